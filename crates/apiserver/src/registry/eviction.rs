//! `pods/eviction`: a deletion that the Pod's disruption budget has to allow.

use api::{Object, Reason, Status, selector::LabelSelector, status::Cause};
use http::{Request, Response, StatusCode};
use serde_json::{Value, json};

use super::{
    Kind, Registry, body,
    delete::DeleteOptions,
    forms, meta,
    owners::Noted,
    read::place,
    refusals::{self, bad_request},
    update::Aspect,
};
use crate::{
    Body,
    context::{Context, Verb},
};

/// Evictions that the budget's controller has not counted yet (upstream's `MaxDisruptedPodSize`).
const DISRUPTED_PODS_MAX: usize = 2000;

/// After which a client may ask again while the budget's numbers are not those of its spec.
const RETRY_SECONDS: u32 = 10;

impl Registry {
    pub(super) async fn evict(
        &self,
        context: &Context,
        kind: &Kind,
        request: Request<Body>,
    ) -> Result<Response<Body>, Status> {
        let eviction = body::json(&body::bytes(request).await?)?;
        let named = meta::text(&eviction, "name");
        if !named.is_empty() && Some(named) != context.info.name.as_deref() {
            return Err(bad_request("name in URL does not match name in Eviction object"));
        }
        let options = match &eviction["deleteOptions"] {
            Value::Null => Vec::new(),
            options => options.to_string().into_bytes(),
        };
        let mut options = DeleteOptions::read(&options, &context.query)?;
        let mut context = context.clone();
        if options.is_dry_run() {
            context.query.dry_run = "All".to_owned();
        }
        let place = place(&context, kind);
        let pod = place
            .read()
            .await?
            .stored
            .ok_or_else(|| refusals::not_found(kind, place.name))?;
        options.check(kind, &pod)?;
        // The one that was looked at, and not another of its name.
        options.require_uid(pod.object.uid());
        if !needs_no_budget(pod.object.tree()) {
            match &*self.budgets_of(&context, &pod.object).await? {
                [] => {}
                [budget] if may_go_anyway(budget.tree(), pod.object.tree()) => {}
                [budget] => self.spend(&context, budget, pod.object.name()).await?,
                _ => {
                    return Err(Status::new(
                        Reason::InternalError,
                        "This pod has more than one PodDisruptionBudget, which the eviction subresource does not \
                         support.",
                    ));
                }
            }
        }
        self.say_why(&context, kind).await?;
        self.delete_named(&context, kind, &options).await?;
        let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201});
        Ok(forms::tree(StatusCode::CREATED, &status))
    }

    async fn budgets_of(&self, context: &Context, pod: &Object) -> Result<Vec<Object>, Status> {
        let budgets = budgets();
        let (_, budgets) = self
            .list_objects(&context.plane, budgets.resource(), Some(pod.namespace()))
            .await?;
        let covers = |budget: &Object| {
            let selector = &budget.tree()["spec"]["selector"];
            selector.is_object() && LabelSelector::from_json(selector).is_ok_and(|it| it.matches_object(pod))
        };
        Ok(budgets.into_iter().filter(covers).collect())
    }

    /// Takes one disruption from the budget, or refuses.
    async fn spend(&self, context: &Context, budget: &Object, pod: &str) -> Result<(), Status> {
        let mut context = context.clone();
        context.info.name = Some(budget.name().to_owned());
        // As upstream's server, which writes the budget's status by a client of its own.
        "status".clone_into(&mut context.info.subresource);
        "kube-apiserver".clone_into(&mut context.manager);
        // Whatever else has changed in the budget: its numbers are looked at again each time.
        context.info.verb = Verb::Patch;
        let now = meta::now(&*self.planes().world().clock);
        let change = |current: &Value| {
            Ok(body::Read {
                tree: spent(current, pod, &now)?,
                warnings: Vec::new(),
            })
        };
        match self
            .update_object(&context, &budgets(), Aspect::Status, Noted::Update, &change)
            .await
        {
            Ok(_) => Ok(()),
            Err(status) if matches!(status.reason, Reason::Conflict | Reason::Timeout) => {
                Err(still_processed(budget.name()))
            }
            Err(status) => Err(status),
        }
    }

    /// Writes into the Pod why it goes.
    async fn say_why(&self, context: &Context, kind: &Kind) -> Result<(), Status> {
        let mut context = context.clone();
        context.info.verb = Verb::Patch;
        let now = meta::now(&*self.planes().world().clock);
        let change = |current: &Value| {
            let mut tree = current.clone();
            set_condition(
                &mut tree,
                json!({
                    "type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI",
                    "message": "Eviction API: evicting", "lastProbeTime": null, "lastTransitionTime": now,
                }),
            );
            Ok(body::Read {
                tree,
                warnings: Vec::new(),
            })
        };
        self.update_object(&context, kind, Aspect::Status, Noted::Never, &change)
            .await?;
        Ok(())
    }
}

fn budgets() -> Kind {
    Kind::BuiltIn(api::table::find("policy", "v1", "poddisruptionbudgets").expect("budgets are a built-in kind"))
}

/// What serves nobody is not missed.
fn needs_no_budget(pod: &Value) -> bool {
    matches!(
        pod["status"]["phase"].as_str(),
        Some("Succeeded" | "Failed" | "Pending")
    ) || pod["metadata"]["deletionTimestamp"].is_string()
}

/// Pods that are not ready count for no budget that is met without them.
fn may_go_anyway(budget: &Value, pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array().map_or(&[][..], Vec::as_slice);
    if conditions
        .iter()
        .any(|it| it["type"] == "Ready" && it["status"] == "True")
    {
        return false;
    }
    let (healthy, desired) = (
        number(&budget["status"]["currentHealthy"]),
        number(&budget["status"]["desiredHealthy"]),
    );
    budget["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow" || (desired > 0 && healthy >= desired)
}

fn number(value: &Value) -> i64 {
    value.as_i64().unwrap_or(0)
}

/// The budget with one disruption less.
fn spent(budget: &Value, pod: &str, now: &str) -> Result<Value, Status> {
    let (name, status) = (meta::text(budget, "name"), &budget["status"]);
    let generation = number(&budget["metadata"]["generation"]);
    let allowed = number(&status["disruptionsAllowed"]);
    let forbidden = |why: &str| {
        Err(Status::new(
            Reason::Forbidden,
            format!("poddisruptionbudgets.policy {name:?} is forbidden: {why}"),
        )
        .about("policy", "poddisruptionbudgets", name))
    };
    if number(&status["observedGeneration"]) < generation {
        return Err(still_processed(name));
    }
    if allowed < 0 {
        return forbidden("pdb disruptions allowed is negative");
    }
    if status["disruptedPods"].as_object().map_or(0, serde_json::Map::len) > DISRUPTED_PODS_MAX {
        return forbidden("DisruptedPods map too big - too many evictions not confirmed by PDB controller");
    }
    if allowed == 0 {
        return Err(refusal(&why_not(name, status), None));
    }
    let mut tree = budget.clone();
    tree["status"]["disruptionsAllowed"] = (allowed - 1).into();
    if !tree["status"]["disruptedPods"].is_object() {
        tree["status"]["disruptedPods"] = json!({});
    }
    tree["status"]["disruptedPods"][pod] = now.into();
    if allowed == 1 {
        set_condition(
            &mut tree,
            json!({
                "type": "DisruptionAllowed", "status": "False", "reason": "InsufficientPods", "message": "",
                "observedGeneration": generation, "lastTransitionTime": now,
            }),
        );
    }
    Ok(tree)
}

fn why_not(name: &str, status: &Value) -> String {
    let conditions = status["conditions"].as_array().map_or(&[][..], Vec::as_slice);
    let condition = conditions.iter().find(|it| it["type"] == "DisruptionAllowed");
    let text = |field: &str| condition.and_then(|it| it[field].as_str()).unwrap_or_default();
    let (healthy, desired) = (number(&status["currentHealthy"]), number(&status["desiredHealthy"]));
    if text("status") == "False" && text("reason") == "SyncFailed" {
        format!(
            "The disruption budget {name} does not allow evicting pods currently because it failed sync: {}",
            text("message")
        )
    } else if healthy <= desired {
        format!("The disruption budget {name} needs {desired} healthy pods and has {healthy} currently")
    } else {
        format!(
            "The disruption budget {name} does not allow evicting pods currently ({})",
            text("reason")
        )
    }
}

fn still_processed(name: &str) -> Status {
    let why = format!("The disruption budget {name} is still being processed by the server.");
    refusal(&why, Some(RETRY_SECONDS))
}

fn refusal(why: &str, retry_after_seconds: Option<u32>) -> Status {
    let mut status = Status::new(
        Reason::TooManyRequests,
        "Cannot evict pod as it would violate the pod's disruption budget.",
    );
    status.retry_after_seconds = retry_after_seconds;
    status.causes.push(Cause {
        reason: "DisruptionBudget",
        message: why.to_owned(),
        field: String::new(),
    });
    status
}

/// Puts a condition in the place of the one of its type.
fn set_condition(tree: &mut Value, condition: Value) {
    let conditions = &mut tree["status"]["conditions"];
    if !conditions.is_array() {
        *conditions = json!([]);
    }
    if let Some(conditions) = conditions.as_array_mut() {
        conditions.retain(|it| it["type"] != condition["type"]);
        conditions.push(condition);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(allowed: i64) -> Value {
        json!({"metadata": {"name": "b", "generation": 2}, "status": {
            "observedGeneration": 2, "disruptionsAllowed": allowed, "currentHealthy": 3, "desiredHealthy": 3 - allowed,
        }})
    }

    #[test]
    fn a_budget_is_spent_until_it_is_used_up() {
        let once = spent(&budget(1), "web-1", "2026-01-01T00:00:00Z").unwrap();
        let refused = spent(&once, "web-2", "2026-01-01T00:00:00Z").unwrap_err();

        assert_eq!(once["status"]["disruptionsAllowed"], 0);
        assert_eq!(once["status"]["disruptedPods"]["web-1"], "2026-01-01T00:00:00Z");
        assert_eq!(once["status"]["conditions"][0]["reason"], "InsufficientPods");
        assert_eq!(refused.code(), 429);
        assert_eq!(
            refused.message,
            "Cannot evict pod as it would violate the pod's disruption budget."
        );
        assert_eq!(refused.retry_after_seconds, None);
    }

    #[test]
    fn a_refusal_says_what_the_budget_needs() {
        let mut failed = budget(0);
        failed["status"]["conditions"] =
            json!([{"type": "DisruptionAllowed", "status": "False", "reason": "SyncFailed", "message": "no scale"}]);
        let mut new = budget(1);
        new["metadata"]["generation"] = 3.into();
        let why = |budget: &Value| spent(budget, "p", "").unwrap_err().causes[0].message.clone();

        assert_eq!(
            why(&budget(0)),
            "The disruption budget b needs 3 healthy pods and has 3 currently"
        );
        assert!(why(&failed).ends_with("because it failed sync: no scale"));
        assert!(why(&new).ends_with("is still being processed by the server."));
        assert_eq!(spent(&budget(-1), "p", "").unwrap_err().code(), 403);
    }

    #[test]
    fn pods_that_are_not_ready_may_go_where_the_budget_is_met_without_them() {
        let ready = json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}});
        let unready = json!({"status": {}});
        let mut short = budget(0);
        short["status"]["currentHealthy"] = 1.into();
        let mut always = short.clone();
        always["spec"]["unhealthyPodEvictionPolicy"] = "AlwaysAllow".into();

        assert!(!may_go_anyway(&budget(0), &ready));
        assert!(may_go_anyway(&budget(0), &unready));
        assert!(!may_go_anyway(&short, &unready));
        assert!(may_go_anyway(&always, &unready));
    }
}
