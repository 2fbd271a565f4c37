//! A client inside a Pod, by nothing but the standard in-cluster configuration: who it is, which Pods it sees, and what a
//! Kubernetes at another address says to its token (`OTHER`, if set). Prints one line each.
//!
//! The end-to-end tests put it into an image; it is also what a program of yours would look like.

use k8s_openapi::api::{authentication::v1::SelfSubjectReview, core::v1::Pod};
use kube::{
    Api, Client, Config,
    api::{ListParams, PostParams},
};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let config = Config::incluster()?;
    println!("server {}", config.cluster_url);
    let client = Client::try_from(config.clone())?;
    let reviews: Api<SelfSubjectReview> = Api::all(client.clone());
    let review = reviews
        .create(&PostParams::default(), &SelfSubjectReview::default())
        .await?;
    let user = review.status.and_then(|status| status.user_info).unwrap_or_default();
    println!("user {}", user.username.unwrap_or_default());

    match Api::<Pod>::default_namespaced(client.clone())
        .list(&ListParams::default())
        .await
    {
        Ok(pods) => {
            let mut names: Vec<String> = pods.items.into_iter().filter_map(|pod| pod.metadata.name).collect();
            names.sort();
            println!("pods {}", names.join(","));
        }
        Err(error) => println!("pods refused: {error}"),
    }
    match Api::<Pod>::namespaced(client, "kube-system")
        .list(&ListParams::default())
        .await
    {
        Ok(_) => println!("kube-system seen"),
        Err(error) => println!("kube-system refused: {error}"),
    }

    if let Ok(other) = std::env::var("OTHER") {
        // Where the machine lets packets through: with the CA as it is, the other plane is not even recognised; without,
        // the token is nobody's there.
        for accept_invalid_certs in [false, true] {
            let mut config = config.clone();
            config.cluster_url = format!("https://{other}").parse()?;
            config.accept_invalid_certs = accept_invalid_certs;
            config.connect_timeout = Some(std::time::Duration::from_secs(3));
            let pods = Api::<Pod>::default_namespaced(Client::try_from(config)?);
            match pods.list(&ListParams::default()).await {
                Ok(_) => println!("other seen"),
                Err(kube::Error::Api(status)) => println!("other refused: {}", status.code),
                Err(error) => println!("other unreachable: {error:?}"),
            }
        }
    }
    Ok(())
}
