use std::fmt;

use crate::{
    Daemon, DaemonRole, Destination, DestinationKey, Timeouts, VirtualServer, VirtualServerKey,
    message::{Command, CommandAttribute, DaemonAttribute, Message},
};

/// One change to the kernel's state, as a value.
///
/// `Display` says it as an operator would: `add destination 10.1.1.1:80 to TCP 10.0.0.1:80`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Request {
    /// Add a virtual server. Fails if it exists (`EEXIST`), or if the scheduler or the persistence engine does
    /// not (`ENOENT`).
    AddService {
        /// Which one.
        key: VirtualServerKey,
        /// How it is to work.
        service: VirtualServer,
    },
    /// Change a virtual server; its connections, destinations and counters stay. Fails if it does not exist
    /// (`ESRCH`), or if the scheduler or the persistence engine does not (`ENOENT`).
    UpdateService {
        /// Which one.
        key: VirtualServerKey,
        /// How it is to work: the whole of it, not the difference.
        service: VirtualServer,
    },
    /// Delete a virtual server with its destinations. Fails if it does not exist (`ESRCH`).
    DeleteService {
        /// Which one.
        key: VirtualServerKey,
    },
    /// Add a destination. Fails if it exists (`EEXIST`), if its virtual server does not (`ESRCH`), or if it is no
    /// unicast address (`EINVAL`).
    AddDestination {
        /// Of which virtual server.
        service: VirtualServerKey,
        /// Which one.
        key: DestinationKey,
        /// How it is to be used.
        destination: Destination,
    },
    /// Change a destination; its connections and counters stay. Fails if it (`ENOENT`) or its virtual server
    /// (`ESRCH`) does not exist.
    UpdateDestination {
        /// Of which virtual server.
        service: VirtualServerKey,
        /// Which one.
        key: DestinationKey,
        /// How it is to be used: the whole of it, not the difference.
        destination: Destination,
    },
    /// Delete a destination. Fails if it (`ENOENT`) or its virtual server (`ESRCH`) does not exist. Its
    /// connections stay until they time out, and their packets are dropped, unless the sysctl
    /// `net.ipv4.vs.expire_nodest_conn` is set.
    DeleteDestination {
        /// Of which virtual server.
        service: VirtualServerKey,
        /// Which one.
        key: DestinationKey,
    },
    /// Set the counters of a virtual server and of its destinations to zero, or all there are.
    Zero(Option<VirtualServerKey>),
    /// Delete all virtual servers of the network namespace, with their destinations.
    Flush,
    /// Set timeouts.
    SetTimeouts(Timeouts),
    /// Start a synchronisation daemon. Fails if one of that role runs (`EEXIST`), if there is no such interface
    /// (`ENODEV`), or while a virtual server has destinations of the other family (`EINVAL`).
    StartDaemon(Daemon),
    /// Stop the synchronisation daemon of that role. Fails if none runs (`ESRCH`).
    StopDaemon(DaemonRole),
}

/// Writes the request.
impl From<&Request> for Message {
    fn from(request: &Request) -> Self {
        let key_only = |command, key: &VirtualServerKey| {
            Self::new(command, vec![CommandAttribute::Service(key.attributes())])
        };
        let with_service = |command, key: &VirtualServerKey, service: &VirtualServer| {
            Self::new(command, vec![CommandAttribute::Service(service.attributes(key))])
        };
        let with_destination = |command, service: &VirtualServerKey, attributes| {
            let service = CommandAttribute::Service(service.attributes());
            Self::new(command, vec![service, CommandAttribute::Destination(attributes)])
        };
        match request {
            Request::AddService { key, service } => with_service(Command::NewService, key, service),
            Request::UpdateService { key, service } => with_service(Command::SetService, key, service),
            Request::DeleteService { key } => key_only(Command::DelService, key),
            Request::AddDestination { service, key, destination } => {
                with_destination(Command::NewDestination, service, destination.attributes(key))
            }
            Request::UpdateDestination { service, key, destination } => {
                with_destination(Command::SetDestination, service, destination.attributes(key))
            }
            Request::DeleteDestination { service, key } => {
                with_destination(Command::DelDestination, service, key.attributes())
            }
            Request::Zero(Some(key)) => key_only(Command::Zero, key),
            Request::Zero(None) => Self::empty(Command::Zero),
            Request::Flush => Self::empty(Command::Flush),
            Request::SetTimeouts(timeouts) => timeouts.into(),
            Request::StartDaemon(daemon) => {
                Self::new(Command::NewDaemon, vec![CommandAttribute::Daemon(daemon.attributes())])
            }
            Request::StopDaemon(role) => {
                let state = vec![DaemonAttribute::State(role.number())];
                Self::new(Command::DelDaemon, vec![CommandAttribute::Daemon(state)])
            }
        }
    }
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AddService { key, service } => write!(f, "add service {key} ({})", service.scheduler),
            Self::UpdateService { key, service } => write!(f, "update service {key} ({})", service.scheduler),
            Self::DeleteService { key } => write!(f, "delete service {key}"),
            Self::AddDestination { service, key, .. } => write!(f, "add destination {key} to {service}"),
            Self::UpdateDestination { service, key, .. } => {
                write!(f, "update destination {key} of {service}")
            }
            Self::DeleteDestination { service, key } => write!(f, "delete destination {key} of {service}"),
            Self::Zero(Some(key)) => write!(f, "zero the counters of {key}"),
            Self::Zero(None) => f.write_str("zero all counters"),
            Self::Flush => f.write_str("delete all services"),
            Self::SetTimeouts(Timeouts { tcp, tcp_fin, udp }) => {
                write!(f, "set timeouts tcp {tcp} s, tcp-fin {tcp_fin} s, udp {udp} s")
            }
            Self::StartDaemon(daemon) => {
                write!(f, "start the {} daemon on {}", daemon.role, daemon.interface)
            }
            Self::StopDaemon(role) => write!(f, "stop the {role} daemon"),
        }
    }
}
