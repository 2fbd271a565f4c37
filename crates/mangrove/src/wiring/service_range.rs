//! The super cluster's range of Service addresses: how planes share it out, and whether it is the super cluster's own.

use std::{
    net::{IpAddr, Ipv4Addr},
    ops::RangeInclusive,
};

use anyhow::{Context, bail};
use apiserver::ServiceRanges;
use client::Client;
use serde_json::Value;
use tenancy::reserved::Cidr;

/// Where a Kubernetes from 1.33 on tells its ranges.
const SERVICE_CIDRS: &str = "/apis/networking.k8s.io/v1/servicecidrs";

/// The super cluster's range, shared out as the whole platform does: a sixteenth stays the super cluster's, and tenants' planes
/// give addresses of the rest, half of it to their API servers. What that cluster has given there itself is claimed.
pub(super) fn shared_out(text: &str) -> anyhow::Result<ServiceRanges> {
    let wrong = || format!("--service-cluster-ip-range {text:?} is no IPv4 range such as 10.96.0.0/12");
    let (network, bits) = text.split_once('/').with_context(wrong)?;
    let network: Ipv4Addr = network.parse().ok().with_context(wrong)?;
    let bits: u32 = bits
        .parse()
        .ok()
        .filter(|bits| (1..=24).contains(bits))
        .with_context(wrong)?;
    let size = 1u32 << (32 - bits);
    let first = u32::from(network) & !(size - 1);
    let range = |from: u32, to: u32| -> RangeInclusive<Ipv4Addr> {
        Ipv4Addr::from(first + from)..=Ipv4Addr::from(first + (to - 1))
    };
    Ok(ServiceRanges {
        root: range(0, size / 16),
        tenants: range(size / 16, size / 2),
        pods_door: range(size / 2, size),
        ..ServiceRanges::default()
    })
}

/// A range that is not the super cluster's own would only show when it refuses the first tenant's Service.
pub(super) async fn ensure_known(below: &Client, ranges: &ServiceRanges) -> anyhow::Result<()> {
    let Ok(told) = below.raw(http::Method::GET, SERVICE_CIDRS, None).await else {
        // It does not tell, or not us.
        return Ok(());
    };
    let told = serde_json::from_slice(&told).context("reading the super cluster's ServiceCIDRs")?;
    if let Some(own) = other_than(ranges, &told) {
        bail!("the super cluster's Services have addresses of {own}: give that by --service-cluster-ip-range");
    }
    Ok(())
}

/// The ranges of the super cluster, if ours is in none of them.
fn other_than(ranges: &ServiceRanges, told: &Value) -> Option<String> {
    let items = told["items"].as_array().into_iter().flatten();
    let cidrs = items.flat_map(|item| item["spec"]["cidrs"].as_array().into_iter().flatten());
    let cidrs: Vec<&str> = cidrs.filter_map(Value::as_str).collect();
    let ends = [*ranges.root.start(), *ranges.pods_door.end()].map(IpAddr::V4);
    let within = |text: &&str| Cidr::parse(text).is_some_and(|cidr| ends.iter().all(|end| cidr.contains(*end)));
    (!cidrs.is_empty() && !cidrs.iter().any(within)).then(|| cidrs.join(", "))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_usual_range_is_shared_out_as_the_whole_platform_does() {
        assert_eq!(shared_out("10.96.0.0/12").unwrap(), ServiceRanges::default());
        let small = shared_out("172.20.0.0/16").unwrap();
        assert_eq!(
            small.root,
            Ipv4Addr::new(172, 20, 0, 0)..=Ipv4Addr::new(172, 20, 15, 255)
        );
        assert_eq!(
            small.pods_door,
            Ipv4Addr::new(172, 20, 128, 0)..=Ipv4Addr::new(172, 20, 255, 255)
        );
        for wrong in ["10.96.0.0", "x/12", "10.96.0.0/30", "fd00::/108", "10.0.0.0/0"] {
            assert!(shared_out(wrong).is_err(), "{wrong}");
        }
    }
    #[test]
    fn a_range_that_is_not_the_super_clusters_is_found_out() {
        let told = |cidrs: &[&str]| json!({"items": [{"spec": {"cidrs": cidrs}}]});
        let ranges = shared_out("10.96.0.0/12").unwrap();

        assert_eq!(other_than(&ranges, &told(&["10.96.0.0/12"])), None);
        assert_eq!(other_than(&ranges, &told(&["fd00::/108", "10.0.0.0/8"])), None);
        assert_eq!(other_than(&ranges, &told(&["fd00::/108"])), Some("fd00::/108".into()));
        let small = told(&["10.96.0.0/16"]);
        assert_eq!(other_than(&ranges, &small), Some("10.96.0.0/16".into()));
        assert_eq!(
            other_than(&ranges, &json!({"items": []})),
            None,
            "one that tells nothing"
        );
    }
}
