use std::fmt;

pub use netlink_batch::KernelError;

use crate::Request;

/// `errno.h`; the same on every architecture of Linux.
const ENOENT: i32 = 2;

/// A request that the kernel refused; the others of its batch were carried out.
///
/// `Display` says which request on what, the kernel's errno with its own words where it has any, and what an
/// errno stands for where it misleads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestFailure {
    /// The number of the request in its batch; 0 for a single one.
    pub number: usize,
    /// The request.
    pub request: Request,
    /// Why.
    pub error: KernelError,
}

impl RequestFailure {
    /// The virtual server, the destination or the daemon that the request is about does not exist.
    pub fn is_not_found(&self) -> bool {
        self.error.is_not_found() && !self.lacks_module()
    }

    /// What was to be added exists already.
    pub fn already_exists(&self) -> bool {
        self.error.already_exists()
    }

    /// The caller lacks CAP_NET_ADMIN in the user namespace of this network namespace.
    pub fn is_permission_denied(&self) -> bool {
        self.error.is_permission_denied()
    }

    /// The kernel has no such scheduler, or no such persistence engine, and found no module of it to load.
    pub fn lacks_module(&self) -> bool {
        use Request::{AddService, UpdateService};
        self.error.errno() == ENOENT && matches!(self.request, AddService { .. } | UpdateService { .. })
    }
}

impl fmt::Display for RequestFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.request, self.error)?;
        match self.request {
            Request::AddService { service, .. } | Request::UpdateService { service, .. } if self.lacks_module() => {
                write!(f, ": the kernel has no scheduler {0} (module ip_vs_{0})", service.scheduler)?;
                match service.persistence_engine {
                    Some(engine) => {
                        write!(f, " or no persistence engine {engine} (module ip_vs_pe_{engine})")
                    }
                    None => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }
}

impl std::error::Error for RequestFailure {}

/// What can go wrong between us and IPVS.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The kernel does not know IPVS, and could not load it.
    #[error(
        "the kernel has no IPVS: load the module ip_vs (modprobe ip_vs; from a container, on the host), or use a \
         kernel built with CONFIG_IP_VS"
    )]
    NoIpvs,
    /// The kernel refused a request.
    #[error("{0}")]
    Rejected(Box<RequestFailure>),
    /// Something could not be read. That says nothing about whether it exists.
    #[error("cannot {what}: {error}")]
    Read {
        /// What was to be read, such as `list services`.
        what: String,
        /// Why.
        #[source]
        error: netlink_batch::Error,
    },
    /// The socket failed. Whether requests were carried out is unknown: read the state again.
    #[error("{0}")]
    Transport(#[from] netlink_batch::Error),
}

impl Error {
    /// The kernel's refusal, if that is what this is.
    pub fn kernel(&self) -> Option<&KernelError> {
        match self {
            Self::Rejected(failure) => Some(&failure.error),
            Self::Read { error, .. } | Self::Transport(error) => error.kernel(),
            Self::NoIpvs => None,
        }
    }

    /// The errno of the kernel's refusal, or of the system call that failed: `ENOENT` for [`NoIpvs`](Self::NoIpvs).
    /// Some errors have none.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::NoIpvs => Some(ENOENT),
            Self::Rejected(failure) => Some(failure.error.errno()),
            Self::Read { error, .. } | Self::Transport(error) => error.errno(),
        }
    }

    /// The virtual server, the destination or the daemon that the request is about does not exist.
    pub fn is_not_found(&self) -> bool {
        match self {
            Self::Rejected(failure) => failure.is_not_found(),
            _ => self.kernel().is_some_and(KernelError::is_not_found),
        }
    }

    /// What was to be added exists already.
    pub fn already_exists(&self) -> bool {
        self.kernel().is_some_and(KernelError::already_exists)
    }

    /// The caller lacks CAP_NET_ADMIN in the user namespace of this network namespace.
    pub fn is_permission_denied(&self) -> bool {
        self.kernel().is_some_and(KernelError::is_permission_denied)
    }

    /// The kernel has no such scheduler, or no such persistence engine, and found no module of it to load.
    pub fn lacks_module(&self) -> bool {
        matches!(self, Self::Rejected(failure) if failure.lacks_module())
    }
}

impl From<RequestFailure> for Error {
    fn from(failure: RequestFailure) -> Self {
        Self::Rejected(Box::new(failure))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Destination, Protocol, Scheduler, VirtualServer, VirtualServerKey};

    fn failure(request: Request, errno: i32) -> RequestFailure {
        RequestFailure { number: 0, request, error: KernelError::from_errno(errno) }
    }

    fn key() -> VirtualServerKey {
        VirtualServerKey::new(Protocol::Tcp, "10.0.0.1:80".parse().unwrap())
    }

    #[test]
    fn a_failure_says_what_was_asked_of_whom() {
        let address: std::net::SocketAddr = "10.1.1.1:80".parse().unwrap();
        let (service, key, destination) = (key(), address.into(), Destination::default());
        let present = failure(Request::AddDestination { service, key, destination }, 17);
        assert_eq!(
            Error::from(present).to_string(),
            "add destination 10.1.1.1:80 to TCP 10.0.0.1:80: File exists (os error 17)"
        );
    }

    #[test]
    fn enoent_is_about_the_scheduler_or_about_a_destination() {
        let service = VirtualServer::new(Scheduler::RR);
        let add = failure(Request::AddService { key: key(), service }, 2);
        assert!(add.lacks_module() && !add.is_not_found());
        assert!(add.to_string().ends_with("the kernel has no scheduler rr (module ip_vs_rr)"), "{add}");

        let address: std::net::SocketAddr = "10.1.1.1:80".parse().unwrap();
        let delete = failure(Request::DeleteDestination { service: key(), key: address.into() }, 2);
        assert!(delete.is_not_found() && !delete.lacks_module());
        assert!(failure(Request::UpdateService { key: key(), service }, 3).is_not_found());
        assert!(failure(Request::Flush, 1).is_permission_denied());
    }

    #[test]
    fn a_missing_module_says_what_to_do() {
        let said = Error::NoIpvs.to_string();
        assert!(said.contains("modprobe ip_vs") && said.contains("CONFIG_IP_VS"), "{said}");
        assert!(!Error::NoIpvs.is_not_found());
    }
}
