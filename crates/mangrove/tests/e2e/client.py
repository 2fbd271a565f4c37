"""The official Python client at a tenant's plane, by nothing but its kubeconfig. Prints a line for each thing it saw."""

from kubernetes import client, config, dynamic, utils, watch
from kubernetes.client.rest import ApiException
from kubernetes.stream import stream

config.load_kube_config()
core, apps = client.CoreV1Api(), client.AppsV1Api()

print("version", client.VersionApi().get_code().minor)
print("namespaces", *sorted(item.metadata.name for item in core.list_namespace().items))

labels = {"app": "py"}
container = client.V1Container(
    name="main", image="mangrove.test/web:1", command=["/bin/sh", "-c", "echo from python; sleep 1000"]
)
template = client.V1PodTemplateSpec(
    metadata=client.V1ObjectMeta(labels=labels),
    spec=client.V1PodSpec(containers=[container], termination_grace_period_seconds=0),
)
spec = client.V1DeploymentSpec(replicas=1, selector=client.V1LabelSelector(match_labels=labels), template=template)
apps.create_namespaced_deployment(
    "default", client.V1Deployment(metadata=client.V1ObjectMeta(name="py"), spec=spec)
)
seen = watch.Watch()
for event in seen.stream(apps.list_namespaced_deployment, "default", timeout_seconds=100):
    if event["object"].metadata.name == "py" and event["object"].status.ready_replicas == 1:
        print("ready", event["object"].status.ready_replicas)
        seen.stop()

pod = core.list_namespaced_pod("default", label_selector="app=py").items[0].metadata.name
log = core.read_namespaced_pod_log(pod, "default", _preload_content=False)
print("log", log.data.decode().strip())
said = stream(
    core.connect_get_namespaced_pod_exec,
    pod,
    "default",
    command=["/bin/sh", "-c", "echo in the Pod"],
    stderr=True,
    stdin=False,
    stdout=True,
    tty=False,
)
print("exec", said.strip())

apps.patch_namespaced_deployment_scale("py", "default", {"spec": {"replicas": 0}})
print("scale", apps.read_namespaced_deployment_scale("py", "default").spec.replicas)

for index in range(5):
    core.create_namespaced_config_map("default", client.V1ConfigMap(metadata=client.V1ObjectMeta(name=f"py-{index}")))
names, token = [], None
while True:
    page = core.list_namespaced_config_map("default", limit=2, _continue=token)
    names += [item.metadata.name for item in page.items]
    token = page.metadata._continue
    if not token:
        break
print("pages", *(name for name in names if name.startswith("py-")))

try:
    core.read_namespaced_config_map("nothing", "default")
except ApiException as refused:
    print("missing", refused.status, refused.reason)

definition = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "snakes.example.com"},
    "spec": {
        "group": "example.com",
        "scope": "Namespaced",
        "names": {"plural": "snakes", "singular": "snake", "kind": "Snake"},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "properties": {"length": {"type": "integer", "default": 1}},
                    }
                },
            }
        ],
    },
}
utils.create_from_dict(client.ApiClient(), definition)
snakes = dynamic.DynamicClient(client.ApiClient()).resources.get(api_version="example.com/v1", kind="Snake")
snakes.create(body={"apiVersion": "example.com/v1", "kind": "Snake", "metadata": {"name": "s"}}, namespace="default")
print("snake", snakes.get(name="s", namespace="default").length)

review = client.AuthorizationV1Api().create_self_subject_access_review(
    client.V1SelfSubjectAccessReview(
        spec=client.V1SelfSubjectAccessReviewSpec(
            resource_attributes=client.V1ResourceAttributes(verb="create", resource="pods", namespace="default")
        )
    )
)
print("allowed", review.status.allowed)
token = core.create_namespaced_service_account_token(
    "default", "default", client.AuthenticationV1TokenRequest(spec=client.V1TokenRequestSpec(audiences=[]))
)
print("token parts", len(token.status.token.split(".")))
apps.delete_namespaced_deployment("py", "default", propagation_policy="Foreground")
