//! `mangrove image ...`: images of the running platform's runtime.

use anyhow::Context;
use serde_json::json;

use crate::{
    cli::{Image, Output},
    control::{ControlSocket, print_json},
    platform::{Layout, Platform},
};

pub fn run(command: Image) -> anyhow::Result<()> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("starting the asynchronous runtime")?
        .block_on(carry_out(command))
}

async fn carry_out(command: Image) -> anyhow::Result<()> {
    match command {
        Image::Import { archive, which } => {
            let platform = Platform::find(which.data_dir.as_deref())?;
            let socket = ControlSocket::new(Layout::of(&platform.data_dir).control_socket());
            let archive =
                std::fs::canonicalize(&archive).with_context(|| format!("can't read {}", archive.display()))?;
            let imported = socket.post("/control/images", &json!({"archive": archive})).await?;
            for reference in imported["references"].as_array().into_iter().flatten() {
                println!("imported {}", reference.as_str().unwrap_or_default());
            }
            Ok(())
        }
        Image::List { output, which } => {
            let platform = Platform::find(which.data_dir.as_deref())?;
            let images = ControlSocket::new(Layout::of(&platform.data_dir).control_socket())
                .get("/control/images")
                .await?;
            if output == Some(Output::Json) {
                return print_json(&images);
            }
            println!("{:<56} {:>10}", "IMAGE", "MIB");
            for image in images.as_array().into_iter().flatten() {
                let size_mib = image["sizeBytes"].as_f64().unwrap_or_default() / f64::from(1 << 20);
                for reference in image["references"].as_array().into_iter().flatten() {
                    println!("{:<56} {size_mib:>10.1}", reference.as_str().unwrap_or_default());
                }
            }
            Ok(())
        }
    }
}
