//! A few metrics under upstream's names, with labels of bounded sets: no plane and no name ever is one.

use std::{
    collections::BTreeMap,
    fmt::Write,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use crate::context::RequestInfo;

/// Series above this are counted under `resource="other"`: custom resources' names come from tenants.
const SERIES_MAX: usize = 2000;

/// Upstream's buckets of `apiserver_request_duration_seconds`, thinned.
const BUCKETS: [f64; 9] = [0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 5.0, 15.0, 60.0];

#[derive(Default)]
pub struct Metrics(Mutex<Inner>);

/// A watch or stream under way; counted until it is dropped.
pub struct LongRunning {
    metrics: Arc<Metrics>,
    verb: String,
}

impl LongRunning {
    pub fn begin(metrics: &Arc<Metrics>, verb: &str) -> LongRunning {
        let verb = verb.to_uppercase();
        *metrics.lock().long_running.entry(verb.clone()).or_default() += 1;
        LongRunning {
            metrics: Arc::clone(metrics),
            verb,
        }
    }
}

impl Drop for LongRunning {
    fn drop(&mut self) {
        if let Some(count) = self.metrics.lock().long_running.get_mut(&self.verb) {
            *count -= 1;
        }
    }
}

#[derive(Default)]
struct Inner {
    requests: BTreeMap<Labels, u64>,
    durations: BTreeMap<String, Histogram>,
    long_running: BTreeMap<String, u64>,
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
struct Labels {
    verb: String,
    group: String,
    version: String,
    resource: String,
    subresource: String,
    code: u16,
}

#[derive(Default)]
struct Histogram {
    buckets: [u64; BUCKETS.len()],
    count: u64,
    sum_seconds: f64,
}

impl Metrics {
    /// A request was answered.
    pub fn observe(&self, info: Option<&RequestInfo>, code: u16, took: Duration) {
        let mut inner = self.lock();
        let verb = info.map_or("unknown", |info| info.verb.as_str()).to_uppercase();
        let (group, version, resource, subresource) = match info {
            Some(info) if info.is_resource() => (&*info.group, &*info.version, &*info.resource, &*info.subresource),
            _ => ("", "", "", ""),
        };
        let mut labels = Labels {
            verb: verb.clone(),
            group: group.to_owned(),
            version: version.to_owned(),
            resource: resource.to_owned(),
            subresource: subresource.to_owned(),
            code,
        };
        if inner.requests.len() >= SERIES_MAX && !inner.requests.contains_key(&labels) {
            labels = Labels {
                verb: "other".to_owned(),
                resource: "other".to_owned(),
                ..Labels::default()
            };
        }
        *inner.requests.entry(labels).or_default() += 1;
        inner.durations.entry(verb).or_default().observe(took.as_secs_f64());
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// In Prometheus' text format.
    pub fn render(&self) -> String {
        let inner = self.lock();
        inner.render().expect("writing to a string never fails")
    }
}

impl Inner {
    fn render(&self) -> Result<String, std::fmt::Error> {
        let mut out = String::new();
        out.push_str("# HELP apiserver_request_total Counter of apiserver requests.\n");
        out.push_str("# TYPE apiserver_request_total counter\n");
        for (labels, count) in &self.requests {
            let Labels {
                verb,
                group,
                version,
                resource,
                subresource,
                code,
            } = labels;
            writeln!(
                out,
                "apiserver_request_total{{code=\"{code}\",group={group:?},resource={resource:?},\
                 subresource={subresource:?},verb={verb:?},version={version:?}}} {count}"
            )?;
        }
        out.push_str("# HELP apiserver_request_duration_seconds Response latency in seconds.\n");
        out.push_str("# TYPE apiserver_request_duration_seconds histogram\n");
        for (verb, histogram) in &self.durations {
            for (bound, count) in BUCKETS.iter().zip(&histogram.buckets) {
                writeln!(
                    out,
                    "apiserver_request_duration_seconds_bucket{{verb={verb:?},le=\"{bound}\"}} {count}"
                )?;
            }
            let Histogram { count, sum_seconds, .. } = histogram;
            writeln!(
                out,
                "apiserver_request_duration_seconds_bucket{{verb={verb:?},le=\"+Inf\"}} {count}"
            )?;
            writeln!(
                out,
                "apiserver_request_duration_seconds_sum{{verb={verb:?}}} {sum_seconds}"
            )?;
            writeln!(out, "apiserver_request_duration_seconds_count{{verb={verb:?}}} {count}")?;
        }
        out.push_str("# HELP apiserver_longrunning_requests Gauge of all active long-running apiserver requests.\n");
        out.push_str("# TYPE apiserver_longrunning_requests gauge\n");
        for (verb, count) in &self.long_running {
            writeln!(out, "apiserver_longrunning_requests{{verb={verb:?}}} {count}")?;
        }
        Ok(out)
    }
}

impl Histogram {
    fn observe(&mut self, seconds: f64) {
        for (bound, bucket) in BUCKETS.iter().zip(&mut self.buckets) {
            if seconds <= *bound {
                *bucket += 1;
            }
        }
        self.count += 1;
        self.sum_seconds += seconds;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_have_upstreams_names_and_a_bounded_number_of_series() {
        let metrics = Metrics::default();
        for code in 0..2100 {
            metrics.observe(None, code, Duration::from_millis(10));
        }

        let text = metrics.render();

        assert!(text.contains("apiserver_request_total{code=\"0\""));
        assert!(text.contains("apiserver_request_duration_seconds_bucket{verb=\"UNKNOWN\",le=\"0.025\"} 2100"));
        assert!(metrics.0.lock().unwrap().requests.len() <= SERIES_MAX + 1);
    }
}
