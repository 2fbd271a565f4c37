//! What a tenant says of nodes for itself: cordons and taints that hold for its own Pods alone. Kept in the status of its
//! VirtualCluster; a node is shown with them, and Pods go down with a requirement to be elsewhere. Pure.

use std::collections::BTreeMap;

use api::{Object, placement};
use serde_json::{Value, json};

/// Nodes of which a tenant has something to say. More in one object would make it large for everybody who reads it.
pub const NODES_MAX: usize = 500;
/// Taints of one tenant on one node.
const TAINTS_MAX: usize = 16;

/// What a cordon means to whoever goes by taints.
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";

/// What keeps new Pods off. No one evicts Pods by what a tenant says, and preferring is the super scheduler's.
const EFFECT: &str = "NoSchedule";

/// What a tenant says of one node.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Mark {
    pub unschedulable: bool,
    pub taints: Vec<Value>,
}

pub type Marks = BTreeMap<String, Mark>;

/// The marks in a VirtualCluster's status.
pub fn of(cluster: &Object) -> Marks {
    let nodes = cluster.tree()["status"]["nodes"].as_object();
    let mark = |(name, mark): (&String, &Value)| {
        let mark = Mark {
            unschedulable: mark["unschedulable"] == true,
            taints: mark["taints"].as_array().cloned().unwrap_or_default(),
        };
        (!mark.is_empty()).then(|| (name.clone(), mark))
    };
    nodes.into_iter().flatten().filter_map(mark).collect()
}

impl Mark {
    pub fn is_empty(&self) -> bool {
        !self.unschedulable && self.taints.is_empty()
    }

    /// As a VirtualCluster's status has it; null takes it away by a merge patch.
    pub fn to_status(&self) -> Value {
        if self.is_empty() {
            return Value::Null;
        }
        let unschedulable = if self.unschedulable { true.into() } else { Value::Null };
        json!({"unschedulable": unschedulable, "taints": self.taints})
    }

    /// The mark as taints: a cordon is one too.
    fn all_taints(&self) -> Vec<Value> {
        let cordon = json!({"key": UNSCHEDULABLE, "effect": EFFECT});
        let cordon = self.unschedulable.then_some(cordon);
        self.taints.iter().cloned().chain(cordon).collect()
    }

    /// Adds to a node as it is shown what its tenant says of it.
    pub fn show(&self, spec: &mut Value) {
        if self.unschedulable {
            spec["unschedulable"] = true.into();
        }
        let mut taints = spec["taints"].as_array().cloned().unwrap_or_default();
        for taint in self.all_taints() {
            if !taints.iter().any(|there| is_same(there, &taint)) {
                taints.push(taint);
            }
        }
        if !taints.is_empty() {
            spec["taints"] = taints.into();
        }
    }

    /// Whether a Pod with these tolerations stays away.
    pub fn repels(&self, tolerations: &Value) -> bool {
        placement::untolerated(tolerations, &self.all_taints().into(), &[EFFECT]).is_some()
    }

    /// The mark by which a node that is `shown` without any looks as it is `wanted`; a refusal in words if there is none.
    pub fn by_which(&self, shown: &Value, wanted: &Value) -> Result<Mark, String> {
        if without_what_can_change(shown) != without_what_can_change(wanted) {
            return Err(
                "of nodes, which show the cluster underneath, only cordons and taints can be changed here".to_owned(),
            );
        }
        let is_cordoned = |node: &Value| node["spec"]["unschedulable"] == true;
        if is_cordoned(shown) && !is_cordoned(wanted) {
            return Err("the cluster underneath has cordoned it, and alone can take that back".to_owned());
        }
        let taints = |node: &Value| node["spec"]["taints"].as_array().cloned().unwrap_or_default();
        let (theirs, all) = (taints(shown), taints(wanted));
        let is_cordon = |taint: &Value| taint["key"] == UNSCHEDULABLE;
        if let Some(missing) = theirs
            .iter()
            .find(|taint| !is_cordon(taint) && !all.iter().any(|wanted| is_same(wanted, taint)))
        {
            let name = name_of(missing);
            return Err(format!(
                "the taint {name} is of the cluster underneath, which alone can take it back"
            ));
        }
        let is_own = |taint: &Value| !is_cordon(taint) && !theirs.iter().any(|there| is_same(there, taint));
        let own: Vec<Value> = all.into_iter().filter(is_own).collect();
        if let Some(other) = own.iter().find(|taint| taint["effect"] != EFFECT) {
            let name = name_of(other);
            return Err(format!(
                "the taint {name} would have no effect here: one's own taints are {EFFECT}, and Pods leave a node by `kubectl drain`"
            ));
        }
        if own.len() > TAINTS_MAX {
            return Err(format!("more than {TAINTS_MAX} taints of one's own"));
        }
        Ok(Mark {
            // What it was before shows again when the cluster underneath takes its own cordon back.
            unschedulable: if is_cordoned(shown) {
                self.unschedulable
            } else {
                is_cordoned(wanted)
            },
            taints: own,
        })
    }
}

fn is_same(one: &Value, other: &Value) -> bool {
    let text = |taint: &Value, field: &str| taint[field].as_str().unwrap_or("").to_owned();
    ["key", "value", "effect"]
        .iter()
        .all(|field| text(one, field) == text(other, field))
}

fn name_of(taint: &Value) -> String {
    format!(
        "{}:{}",
        taint["key"].as_str().unwrap_or(""),
        taint["effect"].as_str().unwrap_or("")
    )
}

/// What people change, without what they can and what the server keeps.
fn without_what_can_change(node: &Value) -> Value {
    let field = |field: &str| node["metadata"][field].clone();
    let filled = |value: Value| match &value {
        Value::Object(map) if map.is_empty() => Value::Null,
        _ => value,
    };
    let mut spec = node["spec"].clone();
    if let Some(spec) = spec.as_object_mut() {
        spec.remove("taints");
        spec.remove("unschedulable");
    }
    json!([
        filled(field("labels")),
        filled(field("annotations")),
        filled(field("finalizers")),
        filled(spec)
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(spec: Value) -> Value {
        json!({"metadata": {"name": "n", "labels": {"a": "b"}}, "spec": spec})
    }

    fn mark(unschedulable: bool, taints: Value) -> Mark {
        let tree = json!({"status": {"nodes": {"n": {"unschedulable": unschedulable, "taints": taints}}}});
        of(&Object::from_tree(tree)).remove("n").unwrap_or_default()
    }

    #[test]
    fn a_mark_is_read_shown_and_written_as_it_was() {
        let taint = json!({"key": "mine", "value": "yes", "effect": "NoSchedule"});
        let mark = mark(true, json!([taint]));
        let mut spec = json!({"taints": [{"key": "theirs", "effect": "NoExecute"}]});

        mark.show(&mut spec);

        assert_eq!(spec["unschedulable"], true);
        let keys: Vec<&str> = spec["taints"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|taint| taint["key"].as_str())
            .collect();
        assert_eq!(keys, ["theirs", "mine", UNSCHEDULABLE]);
        assert_eq!(mark.to_status(), json!({"unschedulable": true, "taints": [taint]}));
        assert_eq!(Mark::default().to_status(), Value::Null);
    }

    #[test]
    fn what_is_wanted_beyond_what_the_cluster_underneath_says_is_the_tenants_mark() {
        let theirs = json!({"key": "theirs", "effect": "NoExecute"});
        let mine = json!({"key": "mine", "effect": "NoSchedule"});
        let shown = node(json!({"taints": [theirs]}));
        let mut wanted = shown["spec"].clone();
        mark(true, json!([mine])).show(&mut wanted);

        let found = Mark::default().by_which(&shown, &node(wanted)).unwrap();

        assert_eq!(found, mark(true, json!([mine])));
        assert_eq!(found.by_which(&shown, &shown).unwrap(), Mark::default());
        // Under a cordon of the cluster's own nothing of it shows, and it stays.
        let cordoned = node(json!({"unschedulable": true}));
        assert!(
            mark(true, json!([]))
                .by_which(&cordoned, &cordoned)
                .unwrap()
                .unschedulable
        );
        assert!(!Mark::default().by_which(&cordoned, &cordoned).unwrap().unschedulable);
    }

    #[test]
    fn what_is_not_the_tenants_to_say_is_refused_in_words() {
        let shown = node(json!({"taints": [{"key": "theirs", "effect": "NoExecute"}], "unschedulable": true}));
        let refusal = |change: fn(&mut Value)| {
            let mut wanted = shown.clone();
            change(&mut wanted);
            Mark::default().by_which(&shown, &wanted).unwrap_err()
        };

        assert!(refusal(|node| node["metadata"]["labels"]["x"] = "y".into()).contains("only cordons and taints"));
        assert!(refusal(|node| node["spec"]["providerID"] = "y".into()).contains("only cordons and taints"));
        assert!(refusal(|node| node["spec"]["unschedulable"] = Value::Null).contains("has cordoned it"));
        assert!(refusal(|node| node["spec"]["taints"] = json!([])).contains("theirs:NoExecute"));
        let more = refusal(|node| {
            let taints = node["spec"]["taints"].as_array_mut().unwrap();
            taints.push(json!({"key": "mine", "effect": "NoExecute"}));
        });
        assert!(more.contains("mine:NoExecute"), "{more}");
    }

    #[test]
    fn a_pod_stays_away_unless_it_tolerates_what_is_said() {
        let cordoned = mark(true, json!([]));
        let tainted = mark(false, json!([{"key": "mine", "value": "yes", "effect": "NoSchedule"}]));
        let everything = json!([{"operator": "Exists"}]);
        let daemon = json!([{"key": UNSCHEDULABLE, "operator": "Exists", "effect": "NoSchedule"}]);

        assert!(cordoned.repels(&Value::Null) && tainted.repels(&Value::Null));
        assert!(!cordoned.repels(&everything) && !tainted.repels(&everything));
        assert!(!cordoned.repels(&daemon) && tainted.repels(&daemon));
        assert!(!Mark::default().repels(&Value::Null));
    }
}
