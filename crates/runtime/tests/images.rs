//! Where images come from, and where they go.

mod machine;

use std::collections::HashMap;
use std::convert::Infallible;
use std::io::Cursor;
use std::sync::Arc;

use base64::Engine;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper_util::rt::TokioIo;
use k8s_cri::v1;
use machine::{BuiltImage, IMAGE, Machine, container_config, gzip, missing};
use serde_json::json;
use tokio::net::TcpListener;

fn named(image: &str) -> Option<v1::ImageSpec> {
    Some(v1::ImageSpec {
        image: image.into(),
        ..Default::default()
    })
}

async fn status(cri: &mut machine::Cri, name: &str) -> Option<v1::Image> {
    let request = v1::ImageStatusRequest {
        image: named(name),
        verbose: false,
    };
    cri.images.image_status(request).await.unwrap().into_inner().image
}

/// A registry on loopback that serves one repository, `app`.
struct Registry {
    address: String,
    requests: Arc<std::sync::Mutex<Vec<String>>>,
}

impl Registry {
    async fn start(mut documents: HashMap<String, (String, Vec<u8>)>, password: Option<&'static str>) -> Registry {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let requests = Arc::new(std::sync::Mutex::new(Vec::new()));
        let kept = requests.clone();
        documents.insert("/v2/".into(), ("application/json".into(), b"{}".to_vec()));
        let documents = Arc::new(documents);
        tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                let (documents, kept) = (documents.clone(), kept.clone());
                tokio::spawn(async move {
                    let service = hyper::service::service_fn(move |request: Request<hyper::body::Incoming>| {
                        let answer = respond(&documents, &kept, password, &request);
                        async move { Ok::<_, Infallible>(answer) }
                    });
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(connection), service)
                        .await;
                });
            }
        });
        Registry { address, requests }
    }
}

fn respond(
    documents: &HashMap<String, (String, Vec<u8>)>,
    requests: &std::sync::Mutex<Vec<String>>,
    password: Option<&str>,
    request: &Request<hyper::body::Incoming>,
) -> Response<Full<Bytes>> {
    let path = request.uri().path().to_owned();
    requests.lock().unwrap().push(path.clone());
    if let Some(password) = password {
        let wanted = format!(
            "Basic {}",
            base64::engine::general_purpose::STANDARD.encode(format!("user:{password}"))
        );
        let given = request.headers().get("authorization").and_then(|v| v.to_str().ok());
        if given != Some(&wanted) {
            return Response::builder()
                .status(StatusCode::UNAUTHORIZED)
                .header("www-authenticate", "Basic realm=\"test\"")
                .body(Full::default())
                .unwrap();
        }
    }
    match documents.get(&path) {
        Some((kind, bytes)) => Response::builder()
            .header("content-type", kind)
            .body(Full::new(Bytes::from(bytes.clone())))
            .unwrap(),
        None => Response::builder()
            .status(StatusCode::NOT_FOUND)
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from_static(
                br#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#,
            )))
            .unwrap(),
    }
}

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

fn documents(image: &BuiltImage) -> HashMap<String, (String, Vec<u8>)> {
    let mut documents = HashMap::new();
    for (digest, bytes) in &image.blobs {
        let blob = ("application/octet-stream".to_owned(), bytes.clone());
        documents.insert(format!("/v2/app/blobs/{digest}"), blob);
    }
    let manifest = (MANIFEST.to_owned(), image.manifest.clone());
    documents.insert(
        format!("/v2/app/manifests/{}", image.manifest_digest()),
        manifest.clone(),
    );
    documents.insert("/v2/app/manifests/v1".into(), manifest);
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [
        {"mediaType": MANIFEST, "digest": format!("sha256:{}", "0".repeat(64)), "size": 1,
         "platform": {"os": "linux", "architecture": "s390x"}},
        {"mediaType": MANIFEST, "digest": image.manifest_digest(), "size": image.manifest.len(),
         "platform": {"os": "linux", "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }}},
    ]});
    documents.insert(
        "/v2/app/manifests/multi".into(),
        (INDEX.to_owned(), index.to_string().into_bytes()),
    );
    documents
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_is_pulled_found_by_all_its_names_run_and_removed() {
    if let Some(why) = missing() {
        return eprintln!("{why}");
    }
    let mut machine = Machine::new();
    machine.start().await;
    let mut cri = machine.cri().await;
    let image = BuiltImage::busybox();
    let registry = Registry::start(documents(&image), None).await;
    let name = format!("{}/app:multi", registry.address);

    let request = v1::PullImageRequest {
        image: named(&name),
        ..Default::default()
    };
    let id = cri
        .images
        .pull_image(request.clone())
        .await
        .unwrap()
        .into_inner()
        .image_ref;

    let by_name = status(&mut cri, &name).await.unwrap();
    assert_eq!(by_name.id, id);
    assert_eq!(by_name.repo_tags.first(), Some(&name));
    assert!(by_name.size > 100_000);
    for other in [&id, &by_name.repo_digests[0], &id[7..20].to_owned()] {
        assert_eq!(status(&mut cri, other).await.unwrap().id, id, "{other}");
    }
    let blobs = || {
        let requests = registry.requests.lock().unwrap();
        requests.iter().filter(|path| path.contains("/blobs/")).count()
    };
    let fetched = blobs();
    cri.images.pull_image(request).await.unwrap();
    assert_eq!(blobs(), fetched + 1, "only the configuration is read again");

    let sandbox = cri.sandbox("web").await;
    let mut config = container_config("main", &["echo", "pulled"]);
    config.image = named(&name);
    let container = cri.run(&sandbox, config).await;
    cri.ended(&container).await;
    assert_eq!(cri.log("web", "main"), ["stdout F pulled"]);

    let request = v1::RemoveImageRequest { image: named(&name) };
    cri.images.remove_image(request.clone()).await.unwrap();
    cri.images.remove_image(request).await.unwrap();
    assert!(status(&mut cri, &name).await.is_none());
    let layers = || std::fs::read_dir(machine.options.root.join("layers")).unwrap().count();
    assert_eq!(layers(), 2, "the container still stands on its layer");
    cri.remove_sandbox(&sandbox).await;
    assert_eq!(layers(), 0);
    machine.take_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_registry_refuses_or_falsifies_is_told_apart() {
    if let Some(why) = missing() {
        return eprintln!("{why}");
    }
    let mut machine = Machine::new();
    machine.start().await;
    let mut cri = machine.cri().await;
    let image = BuiltImage::busybox();
    let mut forged = documents(&image);
    for (path, (_, bytes)) in &mut forged {
        if path.contains("/blobs/") {
            bytes.push(b' ');
        }
    }
    let locked = Registry::start(documents(&image), Some("secret")).await;
    let forged = Registry::start(forged, None).await;
    let mut pull = async |name: String, password: &str| {
        let auth = (!password.is_empty()).then(|| v1::AuthConfig {
            username: "user".into(),
            password: password.into(),
            ..Default::default()
        });
        let request = v1::PullImageRequest {
            image: named(&name),
            auth,
            sandbox_config: None,
        };
        cri.images.pull_image(request).await.map_err(|status| status.code())
    };

    let name = |registry: &Registry, tag: &str| format!("{}/app:{tag}", registry.address);
    assert_eq!(
        pull(name(&locked, "v1"), "").await.unwrap_err(),
        tonic::Code::Unauthenticated
    );
    assert_eq!(
        pull(name(&locked, "v1"), "wrong").await.unwrap_err(),
        tonic::Code::Unauthenticated
    );
    assert!(pull(name(&locked, "v1"), "secret").await.is_ok());
    assert_eq!(
        pull(name(&locked, "no-such"), "secret").await.unwrap_err(),
        tonic::Code::NotFound
    );
    let code = pull(name(&forged, "v1"), "").await.unwrap_err();
    assert!(
        matches!(code, tonic::Code::InvalidArgument | tonic::Code::Unavailable),
        "{code:?}"
    );
    assert_eq!(
        pull("NOT A NAME".into(), "").await.unwrap_err(),
        tonic::Code::InvalidArgument
    );
    let closed = pull("127.0.0.1:1/app:v1".into(), "").await.unwrap_err();
    assert_eq!(closed, tonic::Code::Unavailable);
    machine.take_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn archives_of_both_kinds_are_imported_and_upper_layers_hide_lower_ones() {
    if let Some(why) = missing() {
        return eprintln!("{why}");
    }
    let machine = Machine::ready().await;
    let mut cri = machine.cri().await;
    let mut upper = tar::Builder::new(Vec::new());
    for (name, text) in [("etc/.wh.group", ""), ("root/new", "new"), ("tmp/.wh..wh..opq", "")] {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        upper.append_data(&mut header, name, text.as_bytes()).unwrap();
    }
    let layers = [machine::layer(), upper.into_inner().unwrap()];
    let image = BuiltImage::new(
        &layers,
        json!({"Entrypoint": ["sh", "-c"], "User": "web", "WorkingDir": "/made/here"}),
    );
    let docker = machine::archive(&[
        ("config.json".into(), image.config.clone()),
        ("a/layer.tar".into(), layers[0].clone()),
        ("b/layer.tar".into(), layers[1].clone()),
        (
            "manifest.json".into(),
            json!([{"Config": "config.json", "RepoTags": ["two:layers"], "Layers": ["a/layer.tar", "b/layer.tar"]}])
                .to_string()
                .into_bytes(),
        ),
    ]);

    let images = machine.runtime().import(Cursor::new(gzip(&docker))).await.unwrap();

    assert_eq!(images[0].tags.iter().next().unwrap(), "docker.io/library/two:layers");
    assert_eq!(status(&mut cri, "two:layers").await.unwrap().uid.unwrap().value, 33);
    let sandbox = cri.sandbox("web").await;
    let mut config = container_config("main", &[]);
    config.image = named("two:layers");
    config.args = vec!["id -u; pwd; ls /etc/group 2>&1; ls -ld /root | cut -c1-10 2>/dev/null; cat /tmp/x 2>&1".into()];
    let container = cri.run(&sandbox, config).await;
    cri.ended(&container).await;
    let log = cri.log("web", "main");
    assert_eq!(log[..2], ["stdout F 33", "stdout F /made/here"]);
    assert!(log[2].contains("No such file"), "{log:?}");

    let garbage = machine
        .runtime()
        .import(Cursor::new(b"no archive at all".to_vec()))
        .await;
    assert!(garbage.is_err());
    let empty = machine.runtime().import(Cursor::new(machine::archive(&[]))).await;
    assert!(empty.is_err());
    assert!(status(&mut cri, IMAGE).await.is_some());
    machine.take_down().await;
}
