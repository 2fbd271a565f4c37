//! The all-planes door: one list or watch over every plane of the shared keyspace, for the platform's own loops.
//!
//! Only what is stored appears; what planes have by birth shows up in their own lists (D6).

use std::sync::Arc;

use api::Status;
use http::{Response, StatusCode};
use keyspace::Keyspace;
use serde_json::json;

use super::{
    Kind, Registry, forms, list, refusals,
    scan::{Scan, Selectors},
    watch::{Frames, View},
};
use crate::{
    Body,
    context::{Context, Form, Verb},
    planes::every,
};

impl Registry {
    pub(super) async fn handle_all_planes(&self, context: &Context) -> Result<Response<Body>, Status> {
        let info = &context.info;
        let customs = &api::resource::CUSTOM_OBJECTS;
        let kind = if info.group == customs.group && info.resource == customs.plural {
            Kind::Custom(every())
        } else {
            api::table::find(&info.group, &info.version, &info.resource)
                .filter(|info| info.is_stored())
                .map(Kind::BuiltIn)
                .ok_or_else(refusals::unknown_resource)?
        };
        if !info.subresource.is_empty() || info.namespace.is_some() {
            return Err(refusals::method_not_allowed());
        }
        let shared: Arc<dyn Keyspace> = Arc::clone(self.planes().shared());
        let scan = Scan::of_all_planes(&*shared, &kind);
        let selectors = Selectors::parse(&kind, &context.query)?;
        let shown = forms::Shown::new(&kind, &Form::Object, &self.planes().world().clock);
        match info.verb {
            Verb::List => {
                let page = list::page(&scan, &context.query, selectors).await?;
                let mut out = Vec::new();
                let head = json!({"kind": kind.list_kind(), "apiVersion": kind.resource().api_version()}).to_string();
                out.extend_from_slice(head.trim_end_matches('}').as_bytes());
                out.extend_from_slice(format!(",\"metadata\":{},\"items\":[", list::metadata(&page)).as_bytes());
                for (at, item) in page.items.iter().enumerate() {
                    let plane = item.plane.map(|plane| plane.to_string()).unwrap_or_default();
                    let comma = if at > 0 { "," } else { "" };
                    out.extend_from_slice(format!("{comma}{{\"plane\":\"{plane}\",\"object\":").as_bytes());
                    out.extend_from_slice(&shown.object(&item.stored));
                    out.push(b'}');
                }
                out.extend_from_slice(b"]}");
                Ok(forms::answer(StatusCode::OK, out.into(), &[]))
            }
            Verb::Watch => {
                let frames = Frames {
                    shown,
                    view: View {
                        kind: kind.clone(),
                        layout: scan.layout,
                        plane: None,
                        selectors,
                    },
                };
                self.watch_scan(&scan, &context.query, frames).await
            }
            _ => Err(refusals::method_not_allowed()),
        }
    }
}
