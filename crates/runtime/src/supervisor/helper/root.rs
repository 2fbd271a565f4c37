//! The container's root and its mounts, made in a mount namespace that ends with the helper.

use super::*;

/// Mounts the container's overlay in a mount namespace that ends with this process: the container's own namespace is a
/// copy of it, and the host's mount table never shows it, so nothing is left over whoever dies when.
pub(super) fn mount_root(sandbox: &SandboxPlan, plan: &ContainerPlan, root: &Path) -> Result<(), String> {
    unshare(CloneFlags::CLONE_NEWNS).map_err(text("make a mount namespace"))?;
    match plan.propagation {
        Propagation::Private | Propagation::Slave => mount(
            None::<&str>,
            "/",
            None::<&str>,
            MsFlags::MS_SLAVE | MsFlags::MS_REC,
            None::<&str>,
        )
        .map_err(text("detach mounts from the host"))?,
        // All other mounts stay peers of the host's; only the one that holds the root must not show it there.
        Propagation::Shared => {
            let holder = mounts::mount_of(root).map_err(text("read the mount table"))?;
            if let Some(holder) = holder.filter(|entry| entry.shared) {
                mount(
                    None::<&str>,
                    &holder.point,
                    None::<&str>,
                    MsFlags::MS_PRIVATE,
                    None::<&str>,
                )
                .map_err(text("detach the root's mount from the host"))?;
            }
        }
    }
    // Relative names keep many layers within the one page that mount options may have, and spare us escaping.
    std::env::set_current_dir(&sandbox.layers).map_err(text("enter the layers' folder"))?;
    let options = format!(
        "lowerdir={},upperdir=../containers/{id}/upper,workdir=../containers/{id}/work",
        plan.layers.join(":"),
        id = plan.id
    );
    // `volatile` spares the disk at unmount: the writable layer is thrown away with the container.
    let result = mount(
        Some("overlay"),
        root,
        Some("overlay"),
        MsFlags::empty(),
        Some(format!("{options},volatile").as_str()),
    );
    match result {
        Err(nix::Error::EINVAL) => mount(
            Some("overlay"),
            root,
            Some("overlay"),
            MsFlags::empty(),
            Some(options.as_str()),
        ),
        other => other,
    }
    .map_err(text("mount the overlay root"))?;
    std::env::set_current_dir("/").map_err(text("leave the layers' folder"))
}

/// Puts into the bundle what only the root itself could tell, and makes the working folder.
pub(super) fn complete_spec(
    bundle: &Path,
    propagation: Propagation,
    user: &ResolvedUser,
    root: &OwnedFd,
    confined: bool,
) -> Result<Value, String> {
    let path = bundle.join("config.json");
    let bytes = fs::read(&path).map_err(text("read the bundle"))?;
    let mut spec: Value = serde_json::from_slice(&bytes).map_err(text("read the bundle"))?;
    spec["process"]["user"] = json!({"uid": user.uid, "gid": user.gid, "additionalGids": user.groups});
    if confined {
        lend(&mut spec);
    }
    stage_mounts(bundle, propagation, &mut spec)?;
    let cwd = spec["process"]["cwd"].as_str().unwrap_or("/").to_owned();
    inroot::make_folders(
        root.as_fd(),
        Path::new(&cwd),
        Mode::from_bits_truncate(0o755),
        |_, made| {
            nix::unistd::fchown(made, Some(user.uid.into()), Some(user.gid.into()))?;
            Ok(())
        },
    )
    .map_err(|e| format!("make the working folder {cwd}: {e}"))?;
    fs::write(&path, spec.to_string()).map_err(text("write the bundle"))?;
    Ok(spec)
}

/// libcontainer hands mounts on as their source has them, whatever their own options say. So a mount that must pass on
/// less than the container as a whole is bound here first, with its own propagation, and becomes the source.
pub(super) fn stage_mounts(bundle: &Path, propagation: Propagation, spec: &mut Value) -> Result<(), String> {
    let has = |mount: &Value, option: &str| {
        let options = mount["options"].as_array();
        options.is_some_and(|options| options.iter().any(|known| known.as_str() == Some(option)))
    };
    for (number, mount_entry) in spec["mounts"].as_array_mut().into_iter().flatten().enumerate() {
        let source = mount_entry["source"].as_str().unwrap_or("").to_owned();
        let own = if has(mount_entry, "rshared") {
            let holder = mounts::mount_of(Path::new(&source)).map_err(text("read the mount table"))?;
            if !holder.is_some_and(|holder| holder.shared) {
                return Err(format!(
                    "{source} is not on a shared mount, so nothing can propagate from it"
                ));
            }
            continue;
        } else if has(mount_entry, "rslave") && propagation == Propagation::Shared {
            MsFlags::MS_SLAVE
        } else if has(mount_entry, "rprivate") && propagation != Propagation::Private {
            MsFlags::MS_PRIVATE
        } else {
            continue;
        };
        let stage = bundle.join(format!("mount-{number}"));
        let is_folder = fs::metadata(&source).map_err(|e| format!("{source}: {e}"))?.is_dir();
        if is_folder {
            fs::create_dir_all(&stage).map_err(text("stage a mount"))?;
        } else {
            fs::write(&stage, "").map_err(text("stage a mount"))?;
        }
        let none = None::<&str>;
        mount(
            Some(source.as_str()),
            &stage,
            none,
            MsFlags::MS_BIND | MsFlags::MS_REC,
            none,
        )
        .and_then(|()| mount(none, &stage, none, own | MsFlags::MS_REC, none))
        .map_err(|e| format!("stage the mount of {source}: {e}"))?;
        mount_entry["source"] = json!(stage);
    }
    Ok(())
}
