//! Questions about who somebody is: TokenReview and SelfSubjectReview.

use api::{Reason, Status};
use serde_json::{Value, json};

use super::{Authenticator, ISSUER, verify_token};
use crate::{
    context::Identity,
    planes::{Plane, Planes},
};

/// Answers a review of `authentication.k8s.io`.
pub async fn answer(
    authenticator: &Authenticator,
    planes: &Planes,
    plane: &Plane,
    user: &Identity,
    resource: &str,
    mut review: Value,
) -> Result<Value, Status> {
    review["status"] = match resource {
        "selfsubjectreviews" => json!({"userInfo": user_info(user)}),
        "tokenreviews" => {
            let token = review["spec"]["token"].as_str().unwrap_or_default();
            if token.is_empty() {
                return Err(Status::new(
                    Reason::BadRequest,
                    "token is required for TokenReview in authentication",
                ));
            }
            let asked = review["spec"]["audiences"]
                .as_array()
                .map(Vec::as_slice)
                .unwrap_or_default();
            let asked: Vec<&str> = asked.iter().filter_map(Value::as_str).collect();
            let audiences = if asked.is_empty() { vec![ISSUER] } else { asked };
            match verify_token(authenticator, planes, plane, token, &audiences).await? {
                Some(verified) => json!({
                    "authenticated": true,
                    "user": user_info(&verified.identity),
                    "audiences": verified.audiences,
                }),
                // A token is never stored, and never shown again to whoever could not use it.
                None => json!({"authenticated": false, "error": "the token is not valid", "user": {}}),
            }
        }
        _ => {
            return Err(Status::new(
                Reason::NotFound,
                "the server could not find the requested resource",
            ));
        }
    };
    Ok(review)
}

fn user_info(user: &Identity) -> Value {
    let mut info = json!({"username": user.name});
    if !user.uid.is_empty() {
        info["uid"] = json!(user.uid);
    }
    if !user.groups.is_empty() {
        info["groups"] = json!(user.groups);
    }
    if !user.extra.is_empty() {
        info["extra"] = json!(user.extra);
    }
    info
}
