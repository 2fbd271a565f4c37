//! Deciding what a sandbox is to be, before anything of it exists.

use super::*;

impl Inner {
    /// Decides everything and writes it down for the supervisor.
    pub(super) fn plan_sandbox(
        &self,
        id: &str,
        config: v1::PodSandboxConfig,
        runtime_handler: String,
    ) -> Result<(SandboxPlan, SandboxRecord)> {
        let linux = config.linux.clone().unwrap_or_default();
        let security = linux.security_context.clone().unwrap_or_default();
        let namespaces = security.namespace_options.clone().unwrap_or_default();
        if let Some(user) = &namespaces.userns_options
            && user.mode == v1::NamespaceMode::Pod as i32
        {
            return Err(Error::Unsupported("user namespaces are not supported".into()));
        }
        let own_network = namespaces.network != v1::NamespaceMode::Node as i32;
        let own_ipc = namespaces.ipc != v1::NamespaceMode::Node as i32;
        for name in linux.sysctls.keys() {
            check_sysctl(name, own_network, own_ipc)?;
        }
        let hostname = if !own_network {
            fs::read_to_string("/proc/sys/kernel/hostname")
                .unwrap_or_default()
                .trim()
                .to_owned()
        } else if config.hostname.is_empty() {
            let name = config.metadata.as_ref().map(|m| m.name.clone()).unwrap_or_default();
            name.chars().take(MAX_HOSTNAME_BYTES - 1).collect()
        } else {
            config.hostname.clone()
        };
        if hostname.len() > MAX_HOSTNAME_BYTES {
            return Err(Error::Invalid(format!(
                "host name {hostname:?} is longer than {MAX_HOSTNAME_BYTES} bytes"
            )));
        }
        if !linux.cgroup_parent.is_empty() && !is_group_path(&linux.cgroup_parent) {
            return Err(Error::Invalid(format!(
                "control group {:?} is not an absolute path (the driver is cgroupfs)",
                linux.cgroup_parent
            )));
        }
        let resolv = files::resolv_conf(config.dns_config.as_ref())?;

        let folder = self.sandbox_folder(id);
        fs::create_dir_all(&folder).doing(|| "make the sandbox's folder")?;
        let mut address = None;
        let mut host_interface = None;
        let network = if own_network {
            let own = self.addresses.take(id)?;
            let interface = format!("{INTERFACE_PREFIX}{}", &id[..11]);
            address = Some(own);
            host_interface = Some(interface.clone());
            NetworkPlan::Routed {
                device: self.options.device.clone(),
                address: own,
                gateway: self.addresses.cidr().gateway(),
                host_interface: interface,
                mtu: self.options.mtu,
            }
        } else {
            NetworkPlan::Host
        };
        let resolv = match resolv {
            Some(text) => text,
            None => fs::read_to_string("/etc/resolv.conf").unwrap_or_default(),
        };
        let hosts = match own_network {
            true => files::hosts(address, &hostname),
            false => fs::read_to_string("/etc/hosts").unwrap_or_default(),
        };
        for (name, text) in [
            ("resolv.conf", resolv),
            ("hosts", hosts),
            ("hostname", format!("{hostname}\n")),
        ] {
            fs::write(folder.join(name), text).doing(|| format!("write {name}"))?;
        }
        if !config.log_directory.is_empty() {
            fs::create_dir_all(&config.log_directory).doing(|| format!("make {}", config.log_directory))?;
        }
        let owns_cgroup = linux.cgroup_parent.is_empty();
        let cgroup = if owns_cgroup {
            format!("/{}/{id}", self.options.cgroup_root)
        } else {
            linux.cgroup_parent.clone()
        };
        if let Some(resources) = linux.resources.as_ref().filter(|_| owns_cgroup) {
            let doing = || format!("limit control group {cgroup}");
            self.hierarchies.make(&cgroup).doing(doing)?;
            if let Err(error) = self.hierarchies.limit(&cgroup, &spec::limits(resources)) {
                tracing::warn!(sandbox = id, %error, "the sandbox as a whole is not limited");
            }
        }
        let plan = SandboxPlan {
            id: id.to_owned(),
            folder: folder.clone(),
            run: self.run_folder(id),
            containers: self.options.root.join("containers"),
            layers: self.images.layers_folder().to_owned(),
            hostname,
            network,
            ipc: if own_ipc { IpcPlan::Own } else { IpcPlan::Host },
            pid: pid_plan(&namespaces),
            sysctls: linux.sysctls.into_iter().collect(),
            supervisor_cgroup: self.supervisor_cgroup(),
            shm_bytes: SHM_BYTES,
        };
        persist::write_json_volatile(&folder.join(SANDBOX_PLAN), &plan).doing(|| "write the sandbox's plan")?;
        let record = SandboxRecord {
            id: id.to_owned(),
            created_ns: now_ns(),
            config,
            runtime_handler,
            address,
            host_interface,
            cgroup,
            owns_cgroup,
            pid: plan.pid,
            supervisor_pid: 0,
            pid_holder: None,
            stopped: false,
        };
        Ok((plan, record))
    }
}

/// Kernel settings that belong to a network or IPC namespace; all others would change the host.
fn check_sysctl(name: &str, own_network: bool, own_ipc: bool) -> Result<()> {
    let clean = name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b)) && !name.contains("..");
    let network = name.starts_with("net.") && own_network;
    let ipc = (name.starts_with("kernel.shm")
        || name.starts_with("kernel.msg")
        || name == "kernel.sem"
        || name.starts_with("fs.mqueue."))
        && own_ipc;
    if clean && (network || ipc) {
        Ok(())
    } else {
        Err(Error::Invalid(format!(
            "sysctl {name} does not belong to this sandbox's namespaces"
        )))
    }
}

fn is_group_path(path: &str) -> bool {
    path.starts_with('/') && path.len() > 1 && !path.split('/').any(|part| part == "..")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_settings_of_the_sandboxes_own_namespaces_are_taken() {
        assert!(check_sysctl("net.core.somaxconn", true, true).is_ok());
        assert!(check_sysctl("net.core.somaxconn", false, true).is_err());
        assert!(check_sysctl("kernel.shmmax", true, true).is_ok());
        assert!(check_sysctl("kernel.shmmax", true, false).is_err());
        assert!(check_sysctl("kernel.hostname", true, true).is_err());
        assert!(check_sysctl("vm.overcommit_memory", true, true).is_err());
        assert!(check_sysctl("net./../kernel.panic", true, true).is_err());
        assert!(check_sysctl("net.../kernel.panic", true, true).is_err());
    }
}
