//! CRI's image service.

use k8s_cri::v1;
use k8s_cri::v1::image_service_server::ImageService;
use tonic::{Request, Response, Status};

use super::runtime::{Runtime, blocking, through};
use crate::error::Error;
use crate::image::{Credentials, Image};

fn named(spec: Option<v1::ImageSpec>) -> Result<String, Error> {
    spec.map(|spec| spec.image)
        .filter(|image| !image.is_empty())
        .ok_or_else(|| Error::Invalid("the request names no image".into()))
}

fn in_cri(image: &Image) -> v1::Image {
    let user = image
        .config
        .config
        .as_ref()
        .and_then(|c| c.user.as_deref())
        .unwrap_or("");
    let user = user.split(':').next().unwrap_or("");
    v1::Image {
        id: image.id.clone(),
        repo_tags: image.tags.iter().cloned().collect(),
        repo_digests: image.digests.iter().cloned().collect(),
        size: image.size_bytes,
        uid: image.uid.map(|uid| v1::Int64Value { value: uid.into() }),
        username: if image.uid.is_none() {
            user.to_owned()
        } else {
            String::new()
        },
        spec: Some(v1::ImageSpec {
            image: image.id.clone(),
            ..v1::ImageSpec::default()
        }),
        // The kubelet's garbage collection leaves those alone.
        pinned: image.imported,
    }
}

#[tonic::async_trait]
impl ImageService for Runtime {
    async fn list_images(
        &self,
        request: Request<v1::ListImagesRequest>,
    ) -> Result<Response<v1::ListImagesResponse>, Status> {
        let name = request
            .into_inner()
            .filter
            .and_then(|filter| filter.image)
            .map(|spec| spec.image)
            .filter(|name| !name.is_empty());
        let images = match name {
            Some(name) => self.images().find(&name).iter().map(in_cri).collect(),
            None => self.images().list().iter().map(in_cri).collect(),
        };
        Ok(Response::new(v1::ListImagesResponse { images }))
    }

    async fn image_status(
        &self,
        request: Request<v1::ImageStatusRequest>,
    ) -> Result<Response<v1::ImageStatusResponse>, Status> {
        let request = request.into_inner();
        let image = self.images().find(&named(request.image)?);
        let mut info = std::collections::HashMap::new();
        if let Some(image) = image.as_ref().filter(|_| request.verbose) {
            info.insert(
                "info".into(),
                serde_json::json!({"imageSpec": image.config}).to_string(),
            );
        }
        // An image that is not here is no error to CRI: the answer is empty.
        Ok(Response::new(v1::ImageStatusResponse {
            image: image.as_ref().map(in_cri),
            info,
        }))
    }

    async fn pull_image(
        &self,
        request: Request<v1::PullImageRequest>,
    ) -> Result<Response<v1::PullImageResponse>, Status> {
        let request = request.into_inner();
        let name = named(request.image)?;
        let auth = request.auth.unwrap_or_default();
        let credentials = Credentials {
            username: auth.username,
            password: auth.password,
            auth: auth.auth,
            registry_token: auth.registry_token,
        };
        let runtime = self.clone();
        let image = through(async move {
            let registries = runtime.options().registries.clone();
            runtime.images().pull(&name, credentials, &registries).await
        })
        .await?;
        Ok(Response::new(v1::PullImageResponse { image_ref: image.id }))
    }

    async fn remove_image(
        &self,
        request: Request<v1::RemoveImageRequest>,
    ) -> Result<Response<v1::RemoveImageResponse>, Status> {
        let name = named(request.into_inner().image)?;
        let images = self.images().clone();
        blocking(move || images.remove(&name)).await?;
        Ok(Response::new(v1::RemoveImageResponse {}))
    }

    async fn image_fs_info(
        &self,
        _: Request<v1::ImageFsInfoRequest>,
    ) -> Result<Response<v1::ImageFsInfoResponse>, Status> {
        let inner = self.inner.clone();
        Ok(Response::new(blocking(move || Ok(inner.filesystem_usage())).await?))
    }
}
