//! The addresses of this host, from rtnetlink: all at once, and again whenever one comes or goes.

use std::{collections::BTreeSet, net::IpAddr, time::Duration};

use anyhow::Context;
use proxier::{
    linux::DEVICE,
    model::{Event, NodeAddress},
};
use rtnetlink::{
    Handle, MulticastGroup, new_connection, new_multicast_connection,
    packet_core::NetlinkPayload,
    packet_route::{
        RouteNetlinkMessage,
        address::{AddressAttribute, AddressMessage, AddressScope},
    },
};
use tokio::sync::mpsc;

/// Addresses often change several at a time; they are read once it has been quiet for so long.
const DEBOUNCE: Duration = Duration::from_millis(20);
/// How long changes without a rest are waited for.
const MAX_DEBOUNCE: Duration = Duration::from_secs(1);
/// They are read again this often whatever the kernel tells: its notices can be lost.
const RESCAN_INTERVAL: Duration = Duration::from_secs(30);

/// Reads the addresses once.
///
/// # Errors
///
/// When the kernel cannot be asked.
pub fn list() -> anyhow::Result<BTreeSet<NodeAddress>> {
    runtime()?.block_on(async {
        let (connection, handle, _) = new_connection().context("cannot open rtnetlink")?;
        let connection = tokio::spawn(connection);
        let addresses = read(&handle).await;
        connection.abort();
        addresses
    })
}

/// Delivers the addresses now and whenever they change, until `deliver` says false.
///
/// # Errors
///
/// When the kernel cannot be asked at the start; later failures are logged and tried again.
pub async fn follow(mut deliver: impl FnMut(Event) -> bool) -> anyhow::Result<()> {
    let groups = [MulticastGroup::Ipv4Ifaddr, MulticastGroup::Ipv6Ifaddr, MulticastGroup::Link];
    let (connection, handle, mut notices) =
        new_multicast_connection(&groups).context("cannot open rtnetlink")?;
    let (wake, mut woken) = mpsc::channel(1);
    tokio::spawn(connection);
    let own = handle.clone();
    tokio::spawn(async move {
        let mut device = device_index(&own).await.ok().flatten();
        while let Some((notice, _)) = futures_util::StreamExt::next(&mut notices).await {
            match notice.payload {
                // Our own doing: with many Services there are thousands of these.
                NetlinkPayload::InnerMessage(
                    RouteNetlinkMessage::NewAddress(message) | RouteNetlinkMessage::DelAddress(message),
                ) if Some(message.header.index) == device => continue,
                NetlinkPayload::InnerMessage(
                    RouteNetlinkMessage::NewLink(_) | RouteNetlinkMessage::DelLink(_),
                ) => device = device_index(&own).await.ok().flatten(),
                _ => {}
            }
            // A full channel holds a wake-up already.
            let _ = wake.try_send(());
        }
    });
    let mut last = read(&handle).await?;
    while deliver(Event::NodeAddresses(last.clone())) {
        let mut next = last.clone();
        while next == last {
            if let Ok(notice) = tokio::time::timeout(RESCAN_INTERVAL, woken.recv()).await {
                notice.context("rtnetlink has ended")?;
                let patience = tokio::time::Instant::now() + MAX_DEBOUNCE;
                while tokio::time::Instant::now() < patience
                    && let Ok(Some(())) = tokio::time::timeout(DEBOUNCE, woken.recv()).await
                {}
            }
            match read(&handle).await {
                Ok(addresses) => next = addresses,
                Err(error) => tracing::warn!("{error:#}; the addresses known so far stay in force"),
            }
        }
        last = next;
    }
    Ok(())
}

/// A runtime for one thread, as all of this is.
pub(crate) fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start the I/O runtime")
}

async fn read(handle: &Handle) -> anyhow::Result<BTreeSet<NodeAddress>> {
    use futures_util::TryStreamExt;
    let device = device_index(handle).await?;
    let list: Vec<AddressMessage> = handle
        .address()
        .get()
        .execute()
        .try_collect()
        .await
        .context("cannot read the addresses of this host")?;
    let others = list.iter().filter(|message| Some(message.header.index) != device);
    Ok(others.filter_map(node_address).collect())
}

/// The index of our device; none if there is no such device. Any other failure is one: without knowing the device, its
/// VIPs would be taken for addresses of the host.
async fn device_index(handle: &Handle) -> anyhow::Result<Option<u32>> {
    use futures_util::TryStreamExt;
    const ENODEV: i32 = 19;
    let mut links = handle.link().get().match_name(DEVICE.to_owned()).execute();
    match links.try_next().await {
        Ok(link) => Ok(link.map(|link| link.header.index)),
        Err(rtnetlink::Error::NetlinkError(error)) if error.raw_code() == -ENODEV => Ok(None),
        Err(error) => Err(error).context(format!("cannot look for {DEVICE}")),
    }
}

fn node_address(message: &AddressMessage) -> Option<NodeAddress> {
    let global = matches!(message.header.scope, AddressScope::Universe | AddressScope::Site);
    Some(NodeAddress { address: local(message)?, global })
}

/// The address itself: `Address` of a point-to-point link is the peer's.
fn local(message: &AddressMessage) -> Option<IpAddr> {
    let mut address = None;
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(local) => return Some(*local),
            AddressAttribute::Address(other) => address = Some(*other),
            _ => {}
        }
    }
    address
}
