//! `/stats/summary`: what containers use, as the runtime counts it.

use std::collections::BTreeMap;

use http::{Response, StatusCode};
use jiff::Timestamp;
use k8s_cri::v1 as cri;
use serde_json::{Value, json};
use streaming::Body;

use super::{json_answer, text};
use crate::agent::context::Context;
use crate::pod::observed::label;

pub async fn summary(context: &Context) -> Response<Body> {
    match context.runtime.stats().await {
        Ok(stats) => json_answer(&of(&context.node_name, stats)),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

fn of(node: &str, stats: Vec<cri::ContainerStats>) -> Value {
    let mut pods: BTreeMap<String, Value> = BTreeMap::new();
    for container in stats {
        let Some(attributes) = &container.attributes else {
            continue;
        };
        let label = |key: &str| attributes.labels.get(key).cloned().unwrap_or_default();
        let uid = label(label::POD_UID);
        if uid.is_empty() {
            continue;
        }
        let entry = pods.entry(uid.clone()).or_insert_with(|| {
            json!({
                "podRef": {"name": label(label::POD_NAME), "namespace": label(label::POD_NAMESPACE), "uid": uid},
                "containers": [],
            })
        });
        let number = |value: &Option<cri::UInt64Value>| value.as_ref().map_or(0, |value| value.value);
        let cpu = container.cpu.unwrap_or_default();
        let memory = container.memory.unwrap_or_default();
        let of_container = json!({
            "name": label(label::CONTAINER_NAME),
            "cpu": {"time": time(cpu.timestamp), "usageNanoCores": number(&cpu.usage_nano_cores),
                "usageCoreNanoSeconds": number(&cpu.usage_core_nano_seconds)},
            "memory": {"time": time(memory.timestamp), "workingSetBytes": number(&memory.working_set_bytes),
                "usageBytes": number(&memory.usage_bytes), "rssBytes": number(&memory.rss_bytes)},
        });
        if let Some(list) = entry["containers"].as_array_mut() {
            list.push(of_container);
        }
    }
    let pods: Vec<Value> = pods.into_values().collect();
    json!({"node": {"nodeName": node}, "pods": pods})
}

fn time(nanos: i64) -> Value {
    Timestamp::from_second(nanos / 1_000_000_000).map_or(Value::Null, |time| json!(time.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containers_are_gathered_by_pod() {
        let stats = |pod: &str, name: &str| cri::ContainerStats {
            attributes: Some(cri::ContainerAttributes {
                labels: [
                    (label::POD_UID.to_owned(), pod.to_owned()),
                    (label::CONTAINER_NAME.to_owned(), name.to_owned()),
                ]
                .into(),
                ..Default::default()
            }),
            memory: Some(cri::MemoryUsage {
                working_set_bytes: Some(cri::UInt64Value { value: 7 }),
                ..Default::default()
            }),
            ..Default::default()
        };

        let summary = of("n1", vec![stats("p", "a"), stats("q", "c"), stats("p", "b")]);

        assert_eq!(summary["pods"].as_array().unwrap().len(), 2);
        assert_eq!(summary["pods"][0]["containers"][1]["name"], "b");
        assert_eq!(summary["pods"][0]["containers"][0]["memory"]["workingSetBytes"], 7);
    }
}
