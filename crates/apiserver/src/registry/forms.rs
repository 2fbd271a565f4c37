//! Answers: stored objects in the version and form that was asked for.

use std::sync::Arc;

use api::{
    Status,
    printing::{Columns, Include},
};
use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use keyspace::Revision;
use serde_json::{Value, json};
use world::Clock;

use super::{Kind, Stored, convert, schema, splice};
use crate::{
    Body,
    context::{Form, TableObject},
    full_body,
};

/// How objects of one request are shown.
pub struct Shown {
    kind: Kind,
    form: Form,
    /// Objects are shown as they are stored.
    as_stored: bool,
    columns: Option<Columns>,
    clock: Arc<dyn Clock>,
}

impl Shown {
    pub fn new(kind: &Kind, form: &Form, clock: &Arc<dyn Clock>) -> Shown {
        let columns = match (form, kind) {
            (Form::Table { .. }, Kind::BuiltIn(info)) => Some(Columns::of(&info.resource)),
            (Form::Table { .. }, Kind::Custom(custom)) => Some(Columns::custom(
                &json!({"additionalPrinterColumns": custom.printer_columns}),
            )),
            _ => None,
        };
        let fills_in = kind.custom().is_some_and(|custom| custom.has_defaults);
        Shown {
            as_stored: *form == Form::Object && kind.resource() == kind.storage() && !fills_in,
            kind: kind.clone(),
            form: form.clone(),
            columns,
            clock: Arc::clone(clock),
        }
    }

    /// One object, as get, create, and watch events show it.
    pub fn object(&self, stored: &Stored) -> Bytes {
        match &self.form {
            Form::Object if self.as_stored => splice::splice(stored.object.bytes(), stored.revision),
            Form::Object => encode(&self.tree(stored)),
            Form::Metadata => encode(&api::printing::partial_metadata(&self.tree(stored))),
            Form::Table { .. } => {
                let tree = self.tree(stored);
                let mut table = self.table(&[&tree]);
                table["metadata"]["resourceVersion"] = stored.revision.to_string().into();
                encode(&table)
            }
        }
    }

    /// The object as a tree, with its `resourceVersion`.
    pub fn tree(&self, stored: &Stored) -> Value {
        let mut tree = stored.object.tree().clone();
        convert::from_storage(&self.kind, &mut tree);
        if let Some(custom) = self.kind.custom().filter(|custom| custom.has_defaults) {
            schema::default(custom, &mut tree);
        }
        tree["metadata"]["resourceVersion"] = stored.revision.to_string().into();
        tree
    }

    /// A list. `metadata` is the list's own.
    pub fn list(&self, items: &[Stored], metadata: &Value) -> Bytes {
        if let Form::Table { .. } = self.form {
            let trees: Vec<Value> = items.iter().map(|item| self.tree(item)).collect();
            let mut table = self.table(&trees.iter().collect::<Vec<_>>());
            table["metadata"] = metadata.clone();
            return encode(&table);
        }
        let (kind, api_version) = match self.form {
            Form::Metadata => ("PartialObjectMetadataList".to_owned(), "meta.k8s.io/v1".to_owned()),
            _ => (self.kind.list_kind(), self.kind.resource().api_version()),
        };
        let size: usize = items.iter().map(|item| item.object.bytes().len() + 48).sum();
        let mut out = Vec::with_capacity(size + 256);
        out.extend_from_slice(format!("{{\"kind\":{},\"apiVersion\":{},", json!(kind), json!(api_version)).as_bytes());
        out.extend_from_slice(format!("\"metadata\":{metadata},\"items\":[").as_bytes());
        for (at, item) in items.iter().enumerate() {
            if at > 0 {
                out.push(b',');
            }
            if self.as_stored {
                splice::splice_into(&mut out, item.object.bytes(), item.revision);
            } else {
                out.extend_from_slice(&self.object(item));
            }
        }
        out.extend_from_slice(b"]}");
        out.into()
    }

    /// A watch's bookmark: an object of which only the revision counts.
    pub fn bookmark(&self, revision: Revision, annotations: Option<Value>) -> Bytes {
        let mut metadata = json!({"creationTimestamp": null, "resourceVersion": revision.to_string()});
        if let Some(annotations) = annotations {
            metadata["annotations"] = annotations;
        }
        let resource = self.kind.resource();
        encode(&match self.form {
            Form::Object => {
                json!({"kind": resource.kind, "apiVersion": resource.api_version(), "metadata": metadata})
            }
            Form::Metadata => {
                json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata})
            }
            Form::Table { .. } => {
                let mut table = self.table(&[]);
                // As upstream: the revision is the Table's, the annotations are on the one row's object.
                table["metadata"]["resourceVersion"] = revision.to_string().into();
                table["rows"] = json!([{"cells": [], "object": {
                    "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata,
                }}]);
                table
            }
        })
    }

    fn table(&self, trees: &[&Value]) -> Value {
        let include = match self.form {
            Form::Table {
                include: TableObject::None,
            } => Include::None,
            Form::Table {
                include: TableObject::Object,
            } => Include::Object,
            _ => Include::Metadata,
        };
        // A watch shows ages as of each event.
        let now = jiff::Timestamp::try_from(self.clock.wall()).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
        match &self.columns {
            Some(columns) => columns.table(trees, now, include),
            None => Value::Null,
        }
    }
}

fn encode(tree: &Value) -> Bytes {
    serde_json::to_vec(tree).expect("a JSON value always encodes").into()
}

/// An answer of JSON.
pub fn answer(code: StatusCode, bytes: Bytes, warnings: &[String]) -> Response<Body> {
    let mut response = Response::new(full_body(bytes));
    *response.status_mut() = code;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    for warning in warnings.iter().take(WARNINGS_MAX) {
        crate::http::respond::warn(headers, warning);
    }
    response
}

/// More would make headers that proxies refuse.
const WARNINGS_MAX: usize = 20;

pub fn success(details: Value) -> Response<Body> {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details,
    });
    answer(StatusCode::OK, encode(&status), &[])
}

pub fn tree(code: StatusCode, tree: &Value) -> Response<Body> {
    answer(code, encode(tree), &[])
}

pub fn empty_list(kind: &Kind) -> Result<Response<Body>, Status> {
    Ok(tree(
        StatusCode::OK,
        &json!({"kind": kind.list_kind(), "apiVersion": kind.resource().api_version(), "metadata": {}, "items": []}),
    ))
}
