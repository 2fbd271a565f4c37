//! Writes the demo's image as a docker archive: `cargo run -p testkit --example image -- web.tar`.

fn main() -> std::io::Result<()> {
    let path = std::env::args().nth(1).unwrap_or_else(|| "web.tar".to_owned());
    testkit::image::ImageBuilder::busybox("mangrove.test/web:1")?
        .build()?
        .write_docker_archive(path.as_ref())
}
