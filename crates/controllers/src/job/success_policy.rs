//! `successPolicy`: an indexed Job may be done before all its indexes are.

use serde_json::Value;

use super::indexes::Indexes;

/// The place of the first rule that holds.
pub fn matched(policy: &Value, completed: &Indexes, index_count: u32) -> Option<usize> {
    let rules = policy["rules"].as_array()?;
    rules.iter().position(|rule| holds(rule, completed, index_count))
}

fn holds(rule: &Value, completed: &Indexes, index_count: u32) -> bool {
    let wanted = rule["succeededIndexes"]
        .as_str()
        .map(|text| Indexes::parse(text, index_count));
    let (met, of) = match &wanted {
        Some(wanted) => (
            (0..index_count)
                .filter(|at| wanted.contains(*at) && completed.contains(*at))
                .count(),
            wanted.len(),
        ),
        None => (usize::try_from(completed.len()).unwrap_or(0), i64::from(index_count)),
    };
    let enough = rule["succeededCount"].as_i64().unwrap_or(of);
    i64::try_from(met).unwrap_or(i64::MAX) >= enough
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_rule_holds_by_number_by_indexes_or_by_both() {
        let done = Indexes::parse("0,2-3", 10);
        let holds = |rule: Value| matched(&json!({"rules": [rule]}), &done, 10).is_some();

        assert!(holds(json!({"succeededCount": 3})));
        assert!(!holds(json!({"succeededCount": 4})));
        assert!(holds(json!({"succeededIndexes": "0,2"})));
        assert!(!holds(json!({"succeededIndexes": "0,1"})));
        assert!(holds(json!({"succeededIndexes": "0,1", "succeededCount": 1})));
        assert_eq!(matched(&Value::Null, &done, 10), None);
    }
}
