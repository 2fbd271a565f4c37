//! Images: their names, where their bytes come from (archives, registries), and layers unpacked once, ready to be the
//! lower folders of a container's overlay. Start reading at [`store`].

mod archive;
mod config;
mod layer;
mod pull;
mod reference;
mod store;

pub use config::ImageConfig;
pub use pull::{Credentials, RegistryOptions};
pub use store::{Image, ImageStore};
