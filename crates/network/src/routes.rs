//! Ways to what is at other machines: their Pods, and the door where another machine serves it. Plain routes: the machines
//! are neighbours on one network.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use futures::TryStreamExt;
use rtnetlink::{
    Handle, RouteMessageBuilder,
    packet_route::route::{RouteMessage, RouteProtocol},
};

use crate::{Error, Range};

/// By this the routes that are ours are known, whoever made them before (rtnetlink(7): above 16 is free for users).
const OURS: RouteProtocol = RouteProtocol::Other(0x6d);

/// Makes our routes those of `wanted` (range to neighbour), and takes others of ours away.
pub async fn bring(wanted: &BTreeMap<Range, Ipv4Addr>) -> Result<(), Error> {
    let handle = connect()?;
    let mut there = BTreeMap::new();
    for route in ours(&handle).await? {
        if let Some(range) = range_of(&route) {
            there.insert(range, route);
        }
    }
    for (range, via) in wanted {
        let route = RouteMessageBuilder::<IpAddr>::new()
            .destination_prefix(IpAddr::V4(range.network), range.prefix)
            .and_then(|route| route.gateway(IpAddr::V4(*via)))
            .map_err(|error| failed(*range, &error))?
            .protocol(OURS)
            .build();
        let added = handle.route().add(route).replace().execute().await;
        added.map_err(|error| failed(*range, &error))?;
    }
    for (range, route) in there {
        if !wanted.contains_key(&range) {
            delete(&handle, range, route).await?;
        }
    }
    Ok(())
}

/// Takes all of ours away.
pub async fn remove() -> Result<(), Error> {
    bring(&BTreeMap::new()).await
}

async fn delete(handle: &Handle, range: Range, route: RouteMessage) -> Result<(), Error> {
    match handle.route().del(route).execute().await {
        Ok(()) => Ok(()),
        // Gone with its interface.
        Err(rtnetlink::Error::NetlinkError(message)) if message.raw_code().abs() == libc::ESRCH => Ok(()),
        Err(error) => Err(failed(range, &error)),
    }
}

async fn ours(handle: &Handle) -> Result<Vec<RouteMessage>, Error> {
    let filter = RouteMessageBuilder::<Ipv4Addr>::new().build();
    let all: Vec<RouteMessage> = handle
        .route()
        .get(filter)
        .execute()
        .try_collect()
        .await
        .map_err(|error| failed(Range::new(Ipv4Addr::UNSPECIFIED, 0), &error))?;
    Ok(all.into_iter().filter(|route| route.header.protocol == OURS).collect())
}

fn range_of(route: &RouteMessage) -> Option<Range> {
    use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute};
    let network = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(RouteAddress::Inet(address)) => Some(*address),
        _ => None,
    })?;
    Some(Range::new(network, route.header.destination_prefix_length))
}

fn connect() -> Result<Handle, Error> {
    let none = Range::new(Ipv4Addr::UNSPECIFIED, 0);
    let (connection, handle, _) = rtnetlink::new_connection().map_err(|error| failed(none, &error))?;
    // Ends when the last handle is dropped.
    tokio::spawn(connection);
    Ok(handle)
}

fn failed(range: Range, error: &dyn std::fmt::Display) -> Error {
    Error::Route {
        range,
        reason: error.to_string(),
    }
}
