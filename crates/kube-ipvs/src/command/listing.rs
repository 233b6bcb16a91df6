//! Virtual servers as `ipvsadm -Ln` prints them, and as JSON.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
};

use ipvs_netlink::{DestinationEntry, Info, Netmask, ServiceEntry, ServiceFlags, VirtualServerKey};
use serde::Serialize;

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Listing {
    version: String,
    connection_table_size: u32,
    virtual_servers: Vec<VirtualServer>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct VirtualServer {
    #[serde(flatten)]
    place: Place,
    scheduler: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    scheduler_flags: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    persistent_seconds: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    persistence_netmask: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    persistence_engine: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    one_packet: bool,
    /// The Service port, if kube-ipvs made the virtual server.
    #[serde(skip_serializing_if = "Option::is_none")]
    service: Option<String>,
    real_servers: Vec<RealServer>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase", untagged)]
enum Place {
    Address { protocol: String, address: IpAddr, port: u16 },
    Mark { firewall_mark: u32, family: String },
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct RealServer {
    address: IpAddr,
    port: u16,
    forwarding: String,
    weight: u32,
    active_connections: u32,
    inactive_connections: u32,
}

impl Listing {
    pub(super) fn new(info: &Info, virtual_servers: Vec<VirtualServer>) -> Self {
        let size = info.connection_table_size;
        Self { version: info.version.to_string(), connection_table_size: size, virtual_servers }
    }
}

/// ipvsadm's order: IPv4 first, then by mark, protocol, address and port.
pub(super) fn order(key: VirtualServerKey) -> impl Ord {
    match key {
        VirtualServerKey::Address { address, port, protocol } => {
            (key.family(), 0, protocol.number(), Some(address), port)
        }
        VirtualServerKey::FirewallMark { mark, family } => (family, mark, 0, None, 0),
    }
}

impl VirtualServer {
    pub(super) fn new(entry: &ServiceEntry, destinations: &[DestinationEntry], owner: Option<&impl ToString>) -> Self {
        let service = &entry.service;
        let persistence = service.persistence;
        let netmask = persistence.map(|persistence| persistence.netmask).filter(|mask| *mask != Netmask::HOST);
        let mut real_servers: Vec<_> = destinations.iter().map(RealServer::new).collect();
        real_servers.sort_by_key(|server| (server.address, server.port));
        Self {
            place: match entry.key {
                VirtualServerKey::Address { address, port, protocol } => {
                    Place::Address { protocol: protocol.to_string(), address, port }
                }
                VirtualServerKey::FirewallMark { mark, family } => {
                    Place::Mark { firewall_mark: mark, family: family.to_string() }
                }
            },
            scheduler: service.scheduler.to_string(),
            scheduler_flags: scheduler_flags(service.scheduler.as_str(), service.flags),
            persistent_seconds: persistence.map(|persistence| persistence.timeout),
            persistence_netmask: netmask.map(|mask| mask.to_string()),
            persistence_engine: service.persistence_engine.map(|engine| engine.to_string()),
            one_packet: service.flags.contains(ServiceFlags::ONE_PACKET),
            service: owner.map(ToString::to_string),
            real_servers,
        }
    }
}

/// A scheduler can give a meaning to these three flags. Only sh and mh do.
fn scheduler_flags(scheduler: &str, flags: ServiceFlags) -> Option<String> {
    let names = match scheduler {
        "sh" => ["sh-fallback", "sh-port", "flag-3"],
        "mh" => ["mh-fallback", "mh-port", "flag-3"],
        _ => ["flag-1", "flag-2", "flag-3"],
    };
    let all = [ServiceFlags::SCHEDULER_1, ServiceFlags::SCHEDULER_2, ServiceFlags::SCHEDULER_3];
    let set = all.into_iter().zip(names).filter(|(flag, _)| flags.contains(*flag));
    let names: Vec<_> = set.map(|(_, name)| name).collect();
    (!names.is_empty()).then(|| names.join(","))
}

impl RealServer {
    fn new(entry: &DestinationEntry) -> Self {
        Self {
            address: entry.key.address,
            port: entry.key.port,
            forwarding: entry.destination.forwarding.to_string(),
            weight: entry.destination.weight,
            active_connections: entry.connections.active,
            inactive_connections: entry.connections.inactive,
        }
    }
}

impl fmt::Display for Listing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "IP Virtual Server version {} (size={})", self.version, self.connection_table_size)?;
        writeln!(f, "Prot LocalAddress:Port Scheduler Flags")?;
        writeln!(f, "  -> RemoteAddress:Port           Forward Weight ActiveConn InActConn")?;
        self.virtual_servers.iter().try_for_each(|server| server.fmt(f))
    }
}

/// ipvsadm's line and, after three spaces, the Service; then one line per real server.
impl fmt::Display for VirtualServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Address { protocol, address, port } => {
                write!(f, "{protocol:<4} {}", SocketAddr::new(*address, *port))?;
            }
            Place::Mark { firewall_mark, .. } => write!(f, "FWM  {firewall_mark}")?,
        }
        write!(f, " {}", self.scheduler)?;
        if let Some(flags) = &self.scheduler_flags {
            write!(f, " ({flags})")?;
        }
        if let Some(seconds) = self.persistent_seconds {
            write!(f, " persistent {seconds}")?;
        }
        if let Some(netmask) = &self.persistence_netmask {
            write!(f, " mask {netmask}")?;
        }
        if let Some(engine) = &self.persistence_engine {
            write!(f, " pe {engine}")?;
        }
        if self.one_packet {
            write!(f, " ops")?;
        }
        match &self.service {
            Some(service) => writeln!(f, "   {service}")?,
            None => writeln!(f)?,
        }
        self.real_servers.iter().try_for_each(|server| server.fmt(f))
    }
}

impl fmt::Display for RealServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address, port, forwarding, weight, active_connections, inactive_connections } = self;
        let socket = SocketAddr::new(*address, *port).to_string();
        writeln!(f, "  -> {socket:<28} {forwarding:<7} {weight:<6} {active_connections:<10} {inactive_connections:<10}")
    }
}
