//! Refusals in upstream's words (`apimachinery/pkg/api/errors`).

use api::{Reason, Status, status::Cause};

use super::kind::{Kind, qualified};

pub fn not_found(kind: &Kind, name: &str) -> Status {
    let resource = kind.resource();
    Status::new(Reason::NotFound, format!("{} {name:?} not found", qualified(resource))).about(
        &resource.group,
        &resource.plural,
        name,
    )
}

pub fn already_exists(kind: &Kind, name: &str) -> Status {
    let resource = kind.resource();
    Status::new(
        Reason::AlreadyExists,
        format!("{} {name:?} already exists", qualified(resource)),
    )
    .about(&resource.group, &resource.plural, name)
}

pub fn conflict(kind: &Kind, name: &str, why: &str) -> Status {
    let resource = kind.resource();
    Status::new(
        Reason::Conflict,
        format!(
            "Operation cannot be fulfilled on {} {name:?}: {why}",
            qualified(resource)
        ),
    )
    .about(&resource.group, &resource.plural, name)
}

pub const MODIFIED: &str =
    "the object has been modified; please apply your changes to the latest version and try again";

pub fn forbidden(kind: &Kind, name: &str, why: &str) -> Status {
    let resource = kind.resource();
    Status::new(
        Reason::Forbidden,
        format!("{} {name:?} is forbidden: {why}", qualified(resource)),
    )
    .about(&resource.group, &resource.plural, name)
}

pub fn bad_request(message: impl Into<String>) -> Status {
    Status::new(Reason::BadRequest, message)
}

pub fn invalid(kind: &Kind, name: &str, causes: Vec<Cause>) -> Status {
    let resource = kind.resource();
    let qualified = if resource.group.is_empty() {
        resource.kind.to_string()
    } else {
        format!("{}.{}", resource.kind, resource.group)
    };
    let texts: Vec<String> = causes
        .iter()
        .map(|cause| format!("{}: {}", cause.field, cause.message))
        .collect();
    let all = match texts.as_slice() {
        [] => "<nil>".to_owned(),
        [one] => one.clone(),
        many => format!("[{}]", many.join(", ")),
    };
    let mut status = Status::new(Reason::Invalid, format!("{qualified} {name:?} is invalid: {all}")).about(
        &resource.group,
        &resource.kind,
        name,
    );
    status.causes = causes;
    status
}

pub fn unknown_resource() -> Status {
    Status::new(Reason::NotFound, "the server could not find the requested resource")
}

pub fn method_not_allowed() -> Status {
    Status::new(
        Reason::MethodNotAllowed,
        "the server does not allow this method on the requested resource",
    )
}
