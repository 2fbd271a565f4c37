//! `podFailurePolicy`: what a failed Pod means to its Job.

use api::Object;
use serde_json::Value;

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Means {
    /// One more failure.
    Counts,
    /// As if it had not been.
    Ignored,
    /// Its index has failed for good.
    IndexFails,
    JobFails {
        message: String,
    },
}

/// The first rule that matches decides.
pub fn judge(policy: &Value, pod: &Object) -> Means {
    let rules = policy["rules"].as_array();
    for (place, rule) in rules.into_iter().flatten().enumerate() {
        let action = rule["action"].as_str().unwrap_or("Count");
        let Some(found) =
            on_exit_codes(&rule["onExitCodes"], pod).or_else(|| on_conditions(&rule["onPodConditions"], pod))
        else {
            continue;
        };
        return match action {
            "Ignore" => Means::Ignored,
            "FailIndex" => Means::IndexFails,
            "FailJob" => Means::JobFails {
                message: format!("{found} matching FailJob rule at index {place}"),
            },
            _ => Means::Counts,
        };
    }
    Means::Counts
}

fn on_exit_codes(requirement: &Value, pod: &Object) -> Option<String> {
    if !requirement.is_object() {
        return None;
    }
    let container = requirement["containerName"].as_str();
    let values = requirement["values"].as_array().map_or(&[][..], Vec::as_slice);
    let status = &pod.tree()["status"];
    let statuses = ["containerStatuses", "initContainerStatuses"]
        .into_iter()
        .flat_map(|list| status[list].as_array().into_iter().flatten());
    for status in statuses {
        let name = status["name"].as_str().unwrap_or("");
        let Some(code) = status["state"]["terminated"]["exitCode"]
            .as_i64()
            .filter(|code| *code != 0)
        else {
            continue;
        };
        if container.is_some_and(|wanted| wanted != name) {
            continue;
        }
        let listed = values.iter().any(|value| value.as_i64() == Some(code));
        let matches = match requirement["operator"].as_str() {
            Some("In") => listed,
            Some("NotIn") => !listed,
            _ => false,
        };
        if matches {
            return Some(format!(
                "Container {name} for pod {}/{} failed with exit code {code}",
                pod.namespace(),
                pod.name()
            ));
        }
    }
    None
}

fn on_conditions(patterns: &Value, pod: &Object) -> Option<String> {
    let conditions = pod.tree()["status"]["conditions"].as_array()?;
    let matching = patterns.as_array().into_iter().flatten().find(|pattern| {
        conditions.iter().any(|condition| {
            condition["type"] == pattern["type"] && condition["status"] == pattern["status"].as_str().unwrap_or("True")
        })
    })?;
    Some(format!(
        "Pod {}/{} has condition {}",
        pod.namespace(),
        pod.name(),
        matching["type"].as_str().unwrap_or("")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_first_rule_that_matches_decides() {
        let policy = json!({"rules": [
            {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
            {"action": "FailJob", "onExitCodes": {"containerName": "main", "operator": "In", "values": [42]}},
            {"action": "FailIndex", "onExitCodes": {"operator": "NotIn", "values": [1, 2]}}]});
        let failed = |code: i64, conditions: Value| {
            Object::from_tree(
                json!({"metadata": {"namespace": "n", "name": "p"}, "status": {"conditions": conditions,
                "containerStatuses": [{"name": "main", "state": {"terminated": {"exitCode": code}}}]}}),
            )
        };

        let evicted = json!([{"type": "DisruptionTarget", "status": "True"}]);
        assert_eq!(judge(&policy, &failed(42, evicted)), Means::Ignored);
        assert_eq!(
            judge(&policy, &failed(42, json!([]))),
            Means::JobFails {
                message: "Container main for pod n/p failed with exit code 42 matching FailJob rule at index 1"
                    .to_owned()
            }
        );
        assert_eq!(judge(&policy, &failed(1, json!([]))), Means::Counts);
        assert_eq!(judge(&policy, &failed(3, json!([]))), Means::IndexFails);
        assert_eq!(judge(&Value::Null, &failed(3, json!([]))), Means::Counts);
    }
}
