//! Lists: at the right revision, in parts, in the form that was asked for.

use api::{Reason, Status};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{Response, StatusCode};
use keyspace::Revision;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{
    Kind, Registry, forms,
    refusals::bad_request,
    scan::{Ask, Page, Scan, Selectors},
};
use crate::{
    Body,
    context::Context,
    planes::refuse,
    query::{Query, VersionMatch},
};

/// What a `continue` token says. Opaque to clients; the same shape as upstream's.
#[derive(Serialize, Deserialize)]
struct Token {
    v: String,
    /// Or [`CURRENT`].
    rv: i64,
    /// What follows the range's prefix in the last key; so a token leads nowhere outside its range.
    start: String,
}

/// An expired token is exchanged for one with this revision.
const CURRENT: i64 = -1;

const TOKEN_VERSION: &str = "meta.k8s.io/v1";

/// A token is not longer than a key.
const TOKEN_BYTES_MAX: usize = 4096;

impl Registry {
    pub(super) async fn list(&self, context: &Context, kind: &Kind) -> Result<Response<Body>, Status> {
        let query = &context.query;
        let scan = Scan::of_plane(&context.plane, kind, context.info.namespace.as_deref());
        let page = page(&scan, query, Selectors::parse(kind, query)?).await?;
        let shown = forms::Shown::new(kind, &context.form, &self.planes().world().clock);
        let metadata = metadata(&page);
        let items: Vec<_> = page.items.into_iter().map(|item| item.stored).collect();
        Ok(forms::answer(StatusCode::OK, shown.list(&items, &metadata), &[]))
    }
}

/// The objects that a list's options ask for.
pub(super) async fn page(scan: &Scan<'_>, query: &Query, selectors: Selectors) -> Result<Page, Status> {
    check(query)?;
    let mut ask = Ask {
        revision: None,
        limit: query.limit,
        after: None,
        selectors,
    };
    if !query.continue_token.is_empty() {
        let token = decode(&query.continue_token)?;
        ask.revision = u64::try_from(token.rv).ok().filter(|rv| *rv > 0).map(Revision);
        ask.after = Some(token.start.clone());
        return scan.page(ask).await.map_err(|status| match status.reason {
            Reason::Expired => expired_token(&token.start),
            _ => status,
        });
    }
    let wanted = revision(&query.resource_version)?;
    let exact = match query.resource_version_match {
        Some(VersionMatch::Exact) => true,
        Some(VersionMatch::NotOlderThan) => false,
        // As upstream: a limit makes a bare version an exact one.
        None => query.limit.is_some(),
    };
    match wanted {
        Some(wanted) if exact && wanted.0 > 0 => ask.revision = Some(wanted),
        _ => {}
    }
    let page = scan.page(ask).await.map_err(|mut status| {
        if status.reason == Reason::Expired {
            "The resourceVersion for the provided list is too old.".clone_into(&mut status.message);
        }
        status
    })?;
    not_older_than(&page, wanted)?;
    Ok(page)
}

fn not_older_than(page: &Page, wanted: Option<Revision>) -> Result<(), Status> {
    match wanted {
        Some(wanted) if wanted > page.now => Err(refuse(keyspace::Error::Future {
            wanted,
            current: page.now,
        })),
        _ => Ok(()),
    }
}

/// Upstream's rules on which options go together (`ValidateListOptions`).
fn check(query: &Query) -> Result<(), Status> {
    let forbidden = |field: &str, why: &str| {
        Err(Status::new(
            Reason::Invalid,
            format!("ListOptions.meta.k8s.io \"\" is invalid: {field}: Forbidden: {why}"),
        ))
    };
    if query.send_initial_events.is_some() {
        return forbidden("sendInitialEvents", "sendInitialEvents is forbidden for list");
    }
    let Some(version_match) = query.resource_version_match else {
        if !query.continue_token.is_empty() && !matches!(query.resource_version.as_str(), "" | "0") {
            return Err(bad_request(
                "specifying resource version is not allowed when using continue",
            ));
        }
        return Ok(());
    };
    if query.resource_version.is_empty() {
        return forbidden(
            "resourceVersionMatch",
            "resourceVersionMatch is forbidden unless resourceVersion is provided",
        );
    }
    if !query.continue_token.is_empty() {
        return forbidden(
            "resourceVersionMatch",
            "resourceVersionMatch is forbidden when continue is provided",
        );
    }
    if version_match == VersionMatch::Exact && query.resource_version == "0" {
        return forbidden(
            "resourceVersionMatch",
            "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"",
        );
    }
    Ok(())
}

/// A `resourceVersion` option; `None` if it is empty.
pub(super) fn revision(text: &str) -> Result<Option<Revision>, Status> {
    if text.is_empty() {
        return Ok(None);
    }
    match text.parse() {
        Ok(number) => Ok(Some(Revision(number))),
        Err(_) => Err(bad_request(format!(
            "Invalid value: {text:?}: invalid resource version"
        ))),
    }
}

/// A list's own metadata.
pub(super) fn metadata(page: &Page) -> serde_json::Value {
    let mut metadata = json!({"resourceVersion": page.revision.to_string()});
    if let Some(next) = &page.next {
        let revision = i64::try_from(page.revision.0).unwrap_or(CURRENT);
        metadata["continue"] = encode(revision, &next.after).into();
        if let Some(remaining) = next.remaining {
            metadata["remainingItemCount"] = remaining.into();
        }
    }
    metadata
}

fn encode(rv: i64, after: &str) -> String {
    let token = Token {
        v: TOKEN_VERSION.to_owned(),
        rv,
        start: after.to_owned(),
    };
    URL_SAFE_NO_PAD.encode(serde_json::to_vec(&token).expect("a token always encodes"))
}

fn decode(text: &str) -> Result<Token, Status> {
    let wrong = || bad_request("continue key is not valid: the token can't be read");
    if text.len() > TOKEN_BYTES_MAX {
        return Err(wrong());
    }
    let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| wrong())?;
    let token: Token = serde_json::from_slice(&bytes).map_err(|_| wrong())?;
    if token.v != TOKEN_VERSION || token.start.is_empty() || token.start.contains('\0') {
        return Err(wrong());
    }
    Ok(token)
}

/// In upstream's words, with a token that goes on from the same place in what is there now.
fn expired_token(after: &str) -> Status {
    let mut status = Status::new(
        Reason::Expired,
        "The provided continue parameter is too old to display a consistent list result. You can start a new list \
         without the continue parameter, or use the continue token in this response to retrieve the remainder of the \
         results. Continuing with the provided token results in an inconsistent list - objects that were created, \
         modified, or deleted between the time the first chunk was returned and now may show up in the list.",
    );
    status.continue_token = Some(encode(CURRENT, after));
    status
}
