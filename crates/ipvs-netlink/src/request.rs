use std::fmt;

use netlink_batch::attribute::put_with;

use crate::{
    Daemon, DaemonRole, Destination, DestinationKey, Timeouts, VirtualServer, VirtualServerKey,
    message::{Attribute, Command, CommandAttribute, DaemonAttribute, Message},
};

/// One change of the kernel's state.
///
/// `Display` prints it in an operator's words: `add destination 10.1.1.1:80 to TCP 10.0.0.1:80`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Request {
    /// Add a virtual server. Fails if it exists (`EEXIST`), or if the scheduler or the persistence engine does not
    /// exist (`ENOENT`).
    AddService {
        /// The virtual server.
        key: VirtualServerKey,
        /// Its configuration.
        service: VirtualServer,
    },
    /// Change a virtual server. It keeps its connections, destinations and counters. Fails if it does not exist
    /// (`ESRCH`), or if the scheduler or the persistence engine does not exist (`ENOENT`).
    UpdateService {
        /// The virtual server.
        key: VirtualServerKey,
        /// Its whole configuration, not the difference.
        service: VirtualServer,
    },
    /// Delete a virtual server with its destinations. Fails if it does not exist (`ESRCH`).
    DeleteService {
        /// The virtual server.
        key: VirtualServerKey,
    },
    /// Add a destination. Fails if it exists (`EEXIST`), if its virtual server does not exist (`ESRCH`), or if its
    /// address is not unicast (`EINVAL`).
    AddDestination {
        /// The virtual server of the destination.
        service: VirtualServerKey,
        /// The destination.
        key: DestinationKey,
        /// Its configuration.
        destination: Destination,
    },
    /// Change a destination. It keeps its connections and counters. Fails if it (`ENOENT`) or its virtual server
    /// (`ESRCH`) does not exist.
    UpdateDestination {
        /// The virtual server of the destination.
        service: VirtualServerKey,
        /// The destination.
        key: DestinationKey,
        /// Its whole configuration, not the difference.
        destination: Destination,
    },
    /// Delete a destination. Fails if it (`ENOENT`) or its virtual server (`ESRCH`) does not exist. Its connections
    /// stay until they time out. The kernel drops their packets, unless the sysctl `net.ipv4.vs.expire_nodest_conn` is
    /// set.
    DeleteDestination {
        /// The virtual server of the destination.
        service: VirtualServerKey,
        /// The destination.
        key: DestinationKey,
    },
    /// Set the counters of a virtual server and of its destinations to zero; `None` resets all virtual servers.
    Zero(Option<VirtualServerKey>),
    /// Delete all virtual servers of the network namespace, with their destinations.
    Flush,
    /// Set timeouts.
    SetTimeouts(Timeouts),
    /// Start a synchronisation daemon. Fails if a daemon of that role runs (`EEXIST`), or if the interface does not
    /// exist (`ENODEV`). Also fails while a virtual server has destinations of the other family (`EINVAL`).
    StartDaemon(Daemon),
    /// Stop the synchronisation daemon of that role. Fails if none runs (`ESRCH`).
    StopDaemon(DaemonRole),
}

impl Request {
    /// Appends the payload behind the netlink header: the bytes of the request's [`Message`]. A large batch mostly adds
    /// or changes destinations, so these are encoded without an intermediate message.
    pub fn append_to(&self, out: &mut Vec<u8>) {
        let (command, service, key, destination) = match self {
            Self::AddDestination { service, key, destination } => (Command::NewDestination, service, key, destination),
            Self::UpdateDestination { service, key, destination } => {
                (Command::SetDestination, service, key, destination)
            }
            _ => return Message::from(self).append_to(out),
        };
        command.append_header(out);
        put_with(out, CommandAttribute::SERVICE, |out| {
            service.attributes(|attribute| attribute.append(out));
        });
        put_with(out, CommandAttribute::DESTINATION, |out| {
            destination.attributes(key, |attribute| attribute.append(out));
        });
    }
}

impl From<&Request> for Message {
    fn from(request: &Request) -> Self {
        let with_service = |command, key: &VirtualServerKey, service: &VirtualServer| {
            let mut attributes = Vec::new();
            service.attributes(key, |attribute| attributes.push(attribute));
            Self::new(command, vec![CommandAttribute::Service(attributes)])
        };
        match request {
            Request::AddService { key, service } => with_service(Command::NewService, key, service),
            Request::UpdateService { key, service } => with_service(Command::SetService, key, service),
            Request::DeleteService { key } => Self::new(Command::DelService, vec![key.attribute()]),
            Request::AddDestination { service, key, destination } => {
                Self::new(Command::NewDestination, vec![service.attribute(), destination.attribute(key)])
            }
            Request::UpdateDestination { service, key, destination } => {
                Self::new(Command::SetDestination, vec![service.attribute(), destination.attribute(key)])
            }
            Request::DeleteDestination { service, key } => {
                let mut attributes = Vec::new();
                key.attributes(|attribute| attributes.push(attribute));
                let destination = CommandAttribute::Destination(attributes);
                Self::new(Command::DelDestination, vec![service.attribute(), destination])
            }
            Request::Zero(Some(key)) => Self::new(Command::Zero, vec![key.attribute()]),
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
