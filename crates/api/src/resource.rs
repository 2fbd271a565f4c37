//! A resource as named in paths: group, version, plural, and what goes with it.

use std::borrow::Cow;

/// Where a resource's objects live.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Scope {
    Cluster,
    Namespaced,
}

/// One resource in one version, such as `apps/v1 deployments`. Built-in ones are constants, those of custom
/// resource definitions are made at run time.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Resource {
    /// Empty for the core group.
    pub group: Cow<'static, str>,
    pub version: Cow<'static, str>,
    /// Lower case, as in paths: `deployments`.
    pub plural: Cow<'static, str>,
    pub kind: Cow<'static, str>,
    pub scope: Scope,
}

impl Resource {
    pub const fn built_in(
        group: &'static str,
        version: &'static str,
        plural: &'static str,
        kind: &'static str,
        scope: Scope,
    ) -> Resource {
        Resource {
            group: Cow::Borrowed(group),
            version: Cow::Borrowed(version),
            plural: Cow::Borrowed(plural),
            kind: Cow::Borrowed(kind),
            scope,
        }
    }

    /// `v1` or `apps/v1`.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.to_string()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// The path of a collection (`name` is `None`) or of one object, without a plane's prefix:
    /// `/api/v1/namespaces/web/pods/one`.
    pub fn path(&self, namespace: Option<&str>, name: Option<&str>) -> String {
        let mut path = if self.group.is_empty() {
            format!("/api/{}", self.version)
        } else {
            format!("/apis/{}/{}", self.group, self.version)
        };
        if let Some(namespace) = namespace.filter(|_| self.scope == Scope::Namespaced) {
            path.push_str("/namespaces/");
            path.push_str(namespace);
        }
        path.push('/');
        path.push_str(&self.plural);
        if let Some(name) = name {
            path.push('/');
            path.push_str(name);
        }
        path
    }
}

macro_rules! resources {
    ($($name:ident = $group:literal / $version:literal $plural:literal $kind:literal $scope:ident;)*) => {
        $(pub const $name: Resource = Resource::built_in($group, $version, $plural, $kind, Scope::$scope);)*
    };
}

resources! {
    NAMESPACES = "" / "v1" "namespaces" "Namespace" Cluster;
    NODES = "" / "v1" "nodes" "Node" Cluster;
    PODS = "" / "v1" "pods" "Pod" Namespaced;
    SERVICES = "" / "v1" "services" "Service" Namespaced;
    ENDPOINTS = "" / "v1" "endpoints" "Endpoints" Namespaced;
    CONFIG_MAPS = "" / "v1" "configmaps" "ConfigMap" Namespaced;
    SECRETS = "" / "v1" "secrets" "Secret" Namespaced;
    SERVICE_ACCOUNTS = "" / "v1" "serviceaccounts" "ServiceAccount" Namespaced;
    EVENTS = "" / "v1" "events" "Event" Namespaced;
    PERSISTENT_VOLUMES = "" / "v1" "persistentvolumes" "PersistentVolume" Cluster;
    PERSISTENT_VOLUME_CLAIMS = "" / "v1" "persistentvolumeclaims" "PersistentVolumeClaim" Namespaced;
    REPLICATION_CONTROLLERS = "" / "v1" "replicationcontrollers" "ReplicationController" Namespaced;
    DEPLOYMENTS = "apps" / "v1" "deployments" "Deployment" Namespaced;
    REPLICA_SETS = "apps" / "v1" "replicasets" "ReplicaSet" Namespaced;
    STATEFUL_SETS = "apps" / "v1" "statefulsets" "StatefulSet" Namespaced;
    DAEMON_SETS = "apps" / "v1" "daemonsets" "DaemonSet" Namespaced;
    CONTROLLER_REVISIONS = "apps" / "v1" "controllerrevisions" "ControllerRevision" Namespaced;
    JOBS = "batch" / "v1" "jobs" "Job" Namespaced;
    CRON_JOBS = "batch" / "v1" "cronjobs" "CronJob" Namespaced;
    STORAGE_CLASSES = "storage.k8s.io" / "v1" "storageclasses" "StorageClass" Cluster;
    POD_DISRUPTION_BUDGETS = "policy" / "v1" "poddisruptionbudgets" "PodDisruptionBudget" Namespaced;
    PRIORITY_CLASSES = "scheduling.k8s.io" / "v1" "priorityclasses" "PriorityClass" Cluster;
    LEASES = "coordination.k8s.io" / "v1" "leases" "Lease" Namespaced;
    ENDPOINT_SLICES = "discovery.k8s.io" / "v1" "endpointslices" "EndpointSlice" Namespaced;
    CLUSTER_ROLES = "rbac.authorization.k8s.io" / "v1" "clusterroles" "ClusterRole" Cluster;
    CLUSTER_ROLE_BINDINGS = "rbac.authorization.k8s.io" / "v1" "clusterrolebindings" "ClusterRoleBinding" Cluster;
    ROLES = "rbac.authorization.k8s.io" / "v1" "roles" "Role" Namespaced;
    ROLE_BINDINGS = "rbac.authorization.k8s.io" / "v1" "rolebindings" "RoleBinding" Namespaced;
    INGRESSES = "networking.k8s.io" / "v1" "ingresses" "Ingress" Namespaced;
    RUNTIME_CLASSES = "node.k8s.io" / "v1" "runtimeclasses" "RuntimeClass" Cluster;
    CUSTOM_RESOURCE_DEFINITIONS = "apiextensions.k8s.io" / "v1" "customresourcedefinitions" "CustomResourceDefinition" Cluster;
    CUSTOM_OBJECTS = "door.mangrove.io" / "v1" "customobjects" "CustomObject" Namespaced;
    VIRTUAL_CLUSTERS = "tenancy.mangrove.io" / "v1alpha1" "virtualclusters" "VirtualCluster" Cluster;
}
