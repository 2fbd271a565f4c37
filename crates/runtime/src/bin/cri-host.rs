//! The runtime alone in a process: what tests start, kill and start again, and what `crictl` can be pointed at.
//! `cri-host serve ROOT RUN SOCKET POD_CIDR DEVICE CGROUP`; as a supervisor it is started by the runtime itself.

use runtime::{Runtime, RuntimeOptions, supervisor};
use tokio_util::sync::CancellationToken;

fn main() {
    let mut arguments = std::env::args().skip(1);
    match arguments.next().as_deref() {
        Some(supervisor::ARGUMENT) => supervisor::main(),
        Some("serve") => {
            let arguments: Vec<String> = arguments.collect();
            if let Err(e) = serve(&arguments) {
                eprintln!("cri-host: {e}");
                std::process::exit(1);
            }
        }
        _ => {
            eprintln!("usage: cri-host serve ROOT RUN SOCKET POD_CIDR BRIDGE CGROUP");
            std::process::exit(2);
        }
    }
}

fn serve(arguments: &[String]) -> Result<(), Box<dyn std::error::Error>> {
    let [root, run, socket, pod_cidr, device, cgroup] = arguments else {
        return Err("six arguments are needed".into());
    };
    let mut options = RuntimeOptions::new(root, run, socket, std::env::current_exe()?);
    options.pod_cidr = pod_cidr.clone();
    options.device = device.clone();
    options.cgroup_root = cgroup.clone();
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?
        .block_on(async {
            let runtime = Runtime::open(options).await?;
            let shutdown = CancellationToken::new();
            let stop = shutdown.clone();
            tokio::spawn(async move {
                let _ = tokio::signal::ctrl_c().await;
                stop.cancel();
            });
            println!("serving");
            runtime.serve(shutdown).await?;
            Ok(())
        })
}
