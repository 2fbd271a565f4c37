//! The answer to one question about a plane's names. Pure.

use std::net::Ipv4Addr;

use hickory_proto::{
    op::{Message, MessageType, OpCode, ResponseCode},
    rr::{
        Name, RData, Record, RecordType,
        rdata::{A, CNAME, PTR, SOA, SRV, TXT},
    },
};

use super::zones::{ServiceKind, Zone, Zones};

/// Seconds; what CoreDNS' kubernetes plugin gives.
const TTL: u32 = 5;

/// Of the specification that these names follow.
const SCHEMA_VERSION: &str = "1.1.0";

/// What becomes of a query.
pub enum Outcome {
    Answer(Message),
    /// An alias of a name outside the cluster: the answer so far, to which the machine's resolvers' answer about the
    /// target belongs. Stub resolvers don't follow aliases themselves.
    Follow(Message, Name),
    /// Not of the cluster: the machine's resolvers know.
    Forward,
}

/// Answers `query`, which was sent to the plane at `plane`.
pub fn answer(zones: &Zones, domain: &str, plane: Ipv4Addr, query: &Message) -> Outcome {
    let refuse = |code| Outcome::Answer(response(query, code));
    if query.metadata.message_type != MessageType::Query || query.metadata.op_code != OpCode::Query {
        return refuse(ResponseCode::NotImp);
    }
    let [question] = query.queries.as_slice() else {
        return refuse(ResponseCode::FormErr);
    };
    let labels = labels_of(question.name());
    let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
    if let Some(address) = reverse_address(&labels) {
        return match zones.read(plane, |zone| reverse(zone, domain, plane, address)) {
            Some(target) => {
                let mut message = response(query, ResponseCode::NoError);
                message.add_answer(Record::from_rdata(
                    question.name().clone(),
                    TTL,
                    RData::PTR(PTR(target)),
                ));
                Outcome::Answer(message)
            }
            None => Outcome::Forward,
        };
    }
    let suffix: Vec<&str> = domain.split('.').collect();
    let Some(inside) = labels.strip_suffix(suffix.as_slice()) else {
        return Outcome::Forward;
    };

    let found = zones.read(plane, |zone| {
        Lookup { zone, domain, plane }.find(inside, question.query_type())
    });
    let mut message = response(
        query,
        if found.exists {
            ResponseCode::NoError
        } else {
            ResponseCode::NXDomain
        },
    );
    message.metadata.authoritative = true;
    let mut alias = None;
    for data in found.data {
        if let RData::CNAME(CNAME(target)) = &data {
            alias = Some(target.clone());
        }
        message.add_answer(Record::from_rdata(question.name().clone(), TTL, data));
    }
    if let Some(target) = alias.filter(|_| question.query_type() != RecordType::CNAME) {
        let labels = labels_of(&target);
        let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
        let Some(inside) = labels.strip_suffix(suffix.as_slice()) else {
            return Outcome::Follow(message, target);
        };
        // One step: an alias of an alias of an alias may be a circle.
        let found = zones.read(plane, |zone| {
            Lookup { zone, domain, plane }.find(inside, question.query_type())
        });
        for data in found.data {
            message.add_answer(Record::from_rdata(target.clone(), TTL, data));
        }
    }
    for (owner, address) in found.extra {
        message.add_additional(Record::from_rdata(owner, TTL, RData::A(A(address))));
    }
    if message.answers.is_empty()
        && let Ok(zone) = Name::from_ascii(format!("{domain}."))
    {
        let authority = soa(&zone, domain);
        message.add_authority(Record::from_rdata(zone, TTL, authority));
    }
    Outcome::Answer(message)
}

fn labels_of(name: &Name) -> Vec<String> {
    name.to_lowercase()
        .iter()
        .map(|label| String::from_utf8_lossy(label).into_owned())
        .collect()
}

/// An empty response to `query`.
pub fn response(query: &Message, code: ResponseCode) -> Message {
    let mut message = Message::response(query.metadata.id, query.metadata.op_code);
    message.metadata.recursion_desired = query.metadata.recursion_desired;
    message.metadata.recursion_available = true;
    message.metadata.response_code = code;
    message.add_queries(query.queries.iter().cloned());
    if query.edns.is_some() {
        message.set_edns(hickory_proto::op::Edns::new());
    }
    message
}

fn soa(zone: &Name, domain: &str) -> RData {
    let name = |prefix: &str| Name::from_ascii(format!("{prefix}.{domain}.")).unwrap_or_else(|_| zone.clone());
    RData::SOA(SOA::new(name("ns.dns"), name("hostmaster"), 1, 7200, 1800, 86400, TTL))
}

/// What was found: nothing of the type asked for is not the same as no such name.
#[derive(Default)]
struct Found {
    exists: bool,
    data: Vec<RData>,
    extra: Vec<(Name, Ipv4Addr)>,
}

struct Lookup<'a> {
    zone: &'a Zone,
    domain: &'a str,
    plane: Ipv4Addr,
}

impl Lookup<'_> {
    /// `labels` without the cluster domain.
    fn find(&self, labels: &[&str], kind: RecordType) -> Found {
        match labels {
            [] | ["svc"] | ["pod"] => Found {
                exists: true,
                ..Found::default()
            },
            ["dns-version"] => Found {
                exists: true,
                data: match kind {
                    RecordType::TXT | RecordType::ANY => vec![RData::TXT(TXT::new(vec![SCHEMA_VERSION.to_owned()]))],
                    _ => Vec::new(),
                },
                ..Found::default()
            },
            [namespace, "svc"] => Found {
                exists: self.has_namespace(namespace),
                ..Found::default()
            },
            [service, namespace, "svc"] => self.service(namespace, service, kind),
            [port, protocol, service, namespace, "svc"] if port.starts_with('_') && protocol.starts_with('_') => {
                self.port(&port[1..], &protocol[1..], namespace, service, kind)
            }
            [endpoint, service, namespace, "svc"] => self.endpoint(endpoint, namespace, service, kind),
            [address, _, "pod"] => match address.replace('-', ".").parse() {
                Ok(address) => addresses(vec![address], kind),
                Err(_) => Found::default(),
            },
            _ => Found::default(),
        }
    }

    fn has_namespace(&self, namespace: &str) -> bool {
        namespace == "default" || self.zone.services.keys().any(|(known, _)| known == namespace)
    }

    fn service(&self, namespace: &str, service: &str, kind: RecordType) -> Found {
        // Rendered from the plane's record, so it is in no stream; its address is the one that was asked.
        if (namespace, service) == ("default", "kubernetes") {
            return addresses(vec![self.plane], kind);
        }
        let key = (namespace.to_owned(), service.to_owned());
        match self.zone.services.get(&key).map(|service| &service.kind) {
            Some(ServiceKind::Address(address)) => addresses(vec![*address], kind),
            Some(ServiceKind::Headless) => addresses(self.endpoints(&key).map(|(_, address)| address).collect(), kind),
            Some(ServiceKind::External(target)) => match Name::from_ascii(format!("{}.", target.trim_end_matches('.')))
            {
                Ok(target) => Found {
                    exists: true,
                    data: vec![RData::CNAME(CNAME(target))],
                    ..Found::default()
                },
                Err(_) => Found {
                    exists: true,
                    ..Found::default()
                },
            },
            None => Found::default(),
        }
    }

    fn endpoint(&self, endpoint: &str, namespace: &str, service: &str, kind: RecordType) -> Found {
        let key = (namespace.to_owned(), service.to_owned());
        let found: Vec<Ipv4Addr> = self
            .endpoints(&key)
            .filter(|(label, _)| label == endpoint)
            .map(|(_, address)| address)
            .collect();
        if found.is_empty() {
            Found::default()
        } else {
            addresses(found, kind)
        }
    }

    fn port(&self, port: &str, protocol: &str, namespace: &str, service: &str, kind: RecordType) -> Found {
        let key = (namespace.to_owned(), service.to_owned());
        let name = |label: &str| Name::from_ascii(format!("{label}{service}.{namespace}.svc.{}.", self.domain)).ok();
        let matches = |known: &&(String, String, u16)| known.0 == port && known.1 == protocol;
        let mut targets: Vec<(Name, u16, Ipv4Addr)> = Vec::new();
        match self.zone.services.get(&key) {
            _ if (namespace, service) == ("default", "kubernetes") && (port, protocol) == ("https", "tcp") => {
                targets.extend(name("").map(|name| (name, 443, self.plane)));
            }
            Some(known) => match known.kind {
                ServiceKind::Address(address) => {
                    let number = known.ports.iter().find(matches).map(|(_, _, number)| *number);
                    targets.extend(number.and_then(|number| Some((name("")?, number, address))));
                }
                ServiceKind::Headless => {
                    for slice in self
                        .zone
                        .slices
                        .get(&key)
                        .into_iter()
                        .flat_map(|slices| slices.values())
                    {
                        let Some((_, _, number)) = slice.ports.iter().find(matches) else {
                            continue;
                        };
                        for endpoint in &slice.endpoints {
                            let label = format!("{}.", endpoint.label());
                            targets.extend(name(&label).map(|name| (name, *number, endpoint.address)));
                        }
                    }
                }
                ServiceKind::External(_) => {}
            },
            None => {}
        }
        let exists = !targets.is_empty();
        if kind != RecordType::SRV {
            return Found {
                exists,
                ..Found::default()
            };
        }
        let weight = u16::try_from(100 / targets.len().max(1)).unwrap_or(1).max(1);
        let data = targets
            .iter()
            .map(|(name, port, _)| RData::SRV(SRV::new(0, weight, *port, name.clone())))
            .collect();
        Found {
            exists,
            data,
            extra: targets.into_iter().map(|(name, _, address)| (name, address)).collect(),
        }
    }

    fn endpoints(&self, service: &(String, String)) -> impl Iterator<Item = (String, Ipv4Addr)> {
        let slices = self
            .zone
            .slices
            .get(service)
            .into_iter()
            .flat_map(|slices| slices.values());
        slices
            .flat_map(|slice| &slice.endpoints)
            .map(|endpoint| (endpoint.label(), endpoint.address))
    }
}

/// Addresses under a name that exists; there are IPv4 ones only.
fn addresses(found: Vec<Ipv4Addr>, kind: RecordType) -> Found {
    let data = match kind {
        RecordType::A | RecordType::ANY => found.into_iter().map(|address| RData::A(A(address))).collect(),
        _ => Vec::new(),
    };
    Found {
        exists: true,
        data,
        extra: Vec::new(),
    }
}

/// The address in `4.3.2.1.in-addr.arpa`.
fn reverse_address(labels: &[&str]) -> Option<Ipv4Addr> {
    let [d, c, b, a, "in-addr", "arpa"] = labels else {
        return None;
    };
    format!("{a}.{b}.{c}.{d}").parse().ok()
}

fn reverse(zone: &Zone, domain: &str, plane: Ipv4Addr, address: Ipv4Addr) -> Option<Name> {
    let (namespace, service) = match zone.by_address.get(&address) {
        Some((namespace, service)) => (namespace.as_str(), service.as_str()),
        None if address == plane => ("default", "kubernetes"),
        None => {
            let (key, endpoint) = zone.slices.iter().find_map(|(key, slices)| {
                let mut endpoints = slices.values().flat_map(|slice| &slice.endpoints);
                Some((key, endpoints.find(|endpoint| endpoint.address == address)?))
            })?;
            return Name::from_ascii(format!("{}.{}.{}.svc.{domain}.", endpoint.label(), key.1, key.0)).ok();
        }
    };
    Name::from_ascii(format!("{service}.{namespace}.svc.{domain}.")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::zones::{Endpoint, ServiceNames, SliceNames};
    use hickory_proto::op::Query;
    use proptest::prelude::*;

    const ACME: Ipv4Addr = Ipv4Addr::new(10, 104, 0, 1);
    const GLOBEX: Ipv4Addr = Ipv4Addr::new(10, 104, 0, 2);

    fn zones() -> Zones {
        let zones = Zones::default();
        let web = ServiceNames {
            kind: ServiceKind::Address(Ipv4Addr::new(10, 97, 0, 9)),
            ports: vec![("http".to_owned(), "tcp".to_owned(), 80)],
        };
        zones.set_service(ACME, "shop", "web", Some(web));
        zones.set_service(ACME, "shop", "db", Some(ServiceNames::default()));
        let slice = SliceNames {
            service: "db".to_owned(),
            endpoints: vec![
                Endpoint {
                    address: Ipv4Addr::new(10, 244, 0, 3),
                    hostname: Some("db-0".to_owned()),
                },
                Endpoint {
                    address: Ipv4Addr::new(10, 244, 0, 4),
                    hostname: None,
                },
            ],
            ports: vec![("sql".to_owned(), "tcp".to_owned(), 5432)],
        };
        zones.set_slice(ACME, "shop", "db-x", Some(slice));
        let external = ServiceNames {
            kind: ServiceKind::External("example.org".to_owned()),
            ports: Vec::new(),
        };
        zones.set_service(ACME, "shop", "out", Some(external));
        let alias = ServiceNames {
            kind: ServiceKind::External("web.shop.svc.cluster.local".to_owned()),
            ports: Vec::new(),
        };
        zones.set_service(ACME, "shop", "alias", Some(alias));
        zones
    }

    fn ask(plane: Ipv4Addr, name: &str, kind: RecordType) -> Option<(ResponseCode, Vec<String>)> {
        let mut query = Message::query();
        query.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
        match answer(&zones(), "cluster.local", plane, &query) {
            Outcome::Answer(message) => {
                let data = message.answers.iter().map(|record| record.data.to_string()).collect();
                Some((message.metadata.response_code, data))
            }
            Outcome::Follow(message, target) => {
                assert_eq!(message.answers.len(), 1);
                Some((message.metadata.response_code, vec![format!("then {target}")]))
            }
            Outcome::Forward => None,
        }
    }

    #[test]
    fn names_lead_to_services_endpoints_and_ports() {
        use RecordType::{A, AAAA, PTR, SRV};
        let cases: &[(&str, RecordType, &[&str])] = &[
            ("web.shop.svc.cluster.local.", A, &["10.97.0.9"]),
            ("WEB.shop.svc.cluster.local.", A, &["10.97.0.9"]),
            ("web.shop.svc.cluster.local.", AAAA, &[]),
            ("db.shop.svc.cluster.local.", A, &["10.244.0.3", "10.244.0.4"]),
            ("db-0.db.shop.svc.cluster.local.", A, &["10.244.0.3"]),
            ("10-244-0-4.db.shop.svc.cluster.local.", A, &["10.244.0.4"]),
            (
                "_http._tcp.web.shop.svc.cluster.local.",
                SRV,
                &["0 100 80 web.shop.svc.cluster.local."],
            ),
            (
                "_sql._tcp.db.shop.svc.cluster.local.",
                SRV,
                &[
                    "0 50 5432 db-0.db.shop.svc.cluster.local.",
                    "0 50 5432 10-244-0-4.db.shop.svc.cluster.local.",
                ],
            ),
            ("out.shop.svc.cluster.local.", A, &["then example.org."]),
            ("out.shop.svc.cluster.local.", RecordType::CNAME, &["example.org."]),
            (
                "alias.shop.svc.cluster.local.",
                A,
                &["web.shop.svc.cluster.local.", "10.97.0.9"],
            ),
            ("dns-version.cluster.local.", RecordType::TXT, &["1.1.0"]),
            ("kubernetes.default.svc.cluster.local.", A, &["10.104.0.1"]),
            ("10-244-0-9.shop.pod.cluster.local.", A, &["10.244.0.9"]),
            ("9.0.97.10.in-addr.arpa.", PTR, &["web.shop.svc.cluster.local."]),
            ("3.0.244.10.in-addr.arpa.", PTR, &["db-0.db.shop.svc.cluster.local."]),
        ];

        for (name, kind, data) in cases {
            let expected = (
                ResponseCode::NoError,
                data.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>(),
            );
            assert_eq!(ask(ACME, name, *kind), Some(expected), "{name} {kind}");
        }
    }

    #[test]
    fn one_planes_names_are_not_anothers() {
        let none = Some((ResponseCode::NXDomain, Vec::new()));

        assert_eq!(ask(GLOBEX, "web.shop.svc.cluster.local.", RecordType::A), none);
        assert_eq!(
            ask(GLOBEX, "kubernetes.default.svc.cluster.local.", RecordType::A),
            Some((ResponseCode::NoError, vec!["10.104.0.2".to_owned()]))
        );
    }

    #[test]
    fn no_such_name_and_nothing_of_that_type_are_two_answers() {
        let no_such_name = Some((ResponseCode::NXDomain, Vec::new()));
        let nothing = Some((ResponseCode::NoError, Vec::new()));
        for (name, kind, expected) in [
            ("web.shop.svc.cluster.local.", RecordType::AAAA, &nothing),
            ("web.shop.svc.cluster.local.", RecordType::MX, &nothing),
            ("shop.svc.cluster.local.", RecordType::A, &nothing),
            ("svc.cluster.local.", RecordType::A, &nothing),
            ("cluster.local.", RecordType::A, &nothing),
            ("none.shop.svc.cluster.local.", RecordType::A, &no_such_name),
            ("web.none.svc.cluster.local.", RecordType::A, &no_such_name),
            ("none.svc.cluster.local.", RecordType::A, &no_such_name),
            ("db-9.db.shop.svc.cluster.local.", RecordType::A, &no_such_name),
            ("_none._tcp.web.shop.svc.cluster.local.", RecordType::SRV, &no_such_name),
            ("1-2-3.shop.pod.cluster.local.", RecordType::A, &no_such_name),
            ("a.b.c.d.e.f.cluster.local.", RecordType::A, &no_such_name),
        ] {
            assert_eq!(&ask(ACME, name, kind), expected, "{name} {kind}");
        }
    }

    proptest! {
        #[test]
        fn any_question_has_an_outcome(bytes in proptest::collection::vec(any::<u8>(), 0..120), name in "[a-z0-9_.-]{0,60}") {
            let zones = zones();
            if let Ok(query) = Message::from_vec(&bytes) {
                let _ = answer(&zones, "cluster.local", ACME, &query);
            }
            if let Ok(name) = Name::from_ascii(format!("{name}.cluster.local.")) {
                for kind in [RecordType::A, RecordType::SRV, RecordType::PTR, RecordType::ANY] {
                    let mut query = Message::query();
                    query.add_query(Query::query(name.clone(), kind));
                    let _ = answer(&zones, "cluster.local", ACME, &query);
                }
            }
        }
    }

    #[test]
    fn other_names_are_forwarded() {
        assert_eq!(ask(ACME, "example.org.", RecordType::A), None);
        assert_eq!(ask(ACME, "1.1.1.1.in-addr.arpa.", RecordType::PTR), None);
    }

    #[test]
    fn a_removed_service_leaves_no_name_and_an_empty_plane_no_zone() {
        let zones = zones();
        for service in ["web", "db", "out", "alias"] {
            zones.set_service(ACME, "shop", service, None);
        }
        zones.set_slice(ACME, "shop", "db-x", None);

        assert!(zones.read(ACME, |zone| zone.by_address.is_empty() && zone.slices.is_empty()));
    }
}
