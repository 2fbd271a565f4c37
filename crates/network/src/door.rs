//! The Pods' door: a whole range of addresses that leads to this machine, so that one socket serves every plane and knows it by
//! the address that was dialled (D8). The ports are moved by [`crate::proxy`]'s rules.

use std::net::IpAddr;

use futures::TryStreamExt;
use rtnetlink::{
    Handle, RouteMessageBuilder,
    packet_route::route::{RouteMessage, RouteScope, RouteType},
};

use crate::{Error, Options, Range};

/// `RT_TABLE_LOCAL`: asked before all others.
const TABLE_LOCAL: u32 = 255;

/// Routes the door's range to this machine if it is here, and the other Service addresses to the gateway's interface: they have to lead somewhere before
/// they are rewritten, also on a machine without a default route. It has to be there.
pub async fn open(options: &Options) -> Result<(), Error> {
    let handle = connect(options.door)?;
    for (range, route) in routes(&handle, options).await? {
        let added = handle.route().add(route).replace().execute().await;
        added.map_err(|error| failed(range, &error))?;
    }
    Ok(())
}

/// Takes the routes away; absent ones are fine.
pub async fn close(options: &Options) -> Result<(), Error> {
    const NO_SUCH_PROCESS: i32 = libc::ESRCH;
    let handle = connect(options.door)?;
    for (range, route) in routes(&handle, options).await? {
        match handle.route().del(route).execute().await {
            Ok(()) => {}
            Err(rtnetlink::Error::NetlinkError(message)) if message.raw_code().abs() == NO_SUCH_PROCESS => {}
            Err(error) => return Err(failed(range, &error)),
        }
    }
    Ok(())
}

async fn routes(handle: &Handle, options: &Options) -> Result<Vec<(Range, RouteMessage)>, Error> {
    let mut routes = Vec::new();
    if options.door_ports.is_some()
        && let Some(lo) = interface(handle, "lo").await?
    {
        let local = RouteMessageBuilder::<IpAddr>::new()
            .destination_prefix(IpAddr::V4(options.door.network), options.door.prefix)
            .map_err(|error| failed(options.door, &error))?
            .table_id(TABLE_LOCAL)
            .kind(RouteType::Local)
            .scope(RouteScope::Host)
            .output_interface(lo)
            .build();
        routes.push((options.door, local));
    }
    if let Some(device) = interface(handle, &options.device).await? {
        let services = RouteMessageBuilder::<IpAddr>::new()
            .destination_prefix(IpAddr::V4(options.services.network), options.services.prefix)
            .map_err(|error| failed(options.services, &error))?
            .scope(RouteScope::Link)
            .output_interface(device)
            .build();
        routes.push((options.services, services));
    }
    Ok(routes)
}

async fn interface(handle: &Handle, name: &str) -> Result<Option<u32>, Error> {
    let mut links = handle.link().get().match_name(name.to_owned()).execute();
    match links.try_next().await {
        Ok(link) => Ok(link.map(|link| link.header.index)),
        // The kernel's "no such device".
        Err(rtnetlink::Error::NetlinkError(_)) => Ok(None),
        Err(error) => Err(Error::Route {
            range: Range::new(std::net::Ipv4Addr::UNSPECIFIED, 0),
            reason: error.to_string(),
        }),
    }
}

fn connect(range: Range) -> Result<Handle, Error> {
    let (connection, handle, _) = rtnetlink::new_connection().map_err(|error| failed(range, &error))?;
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
