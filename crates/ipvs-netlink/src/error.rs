use std::fmt;

pub use netlink_batch::KernelError;

use crate::Request;

/// `errno.h`; the same on every architecture of Linux.
const ENOENT: i32 = 2;

/// A request that the kernel rejected. The kernel executed the others of its batch.
///
/// `Display` names the request, its object, the errno, and the kernel's own text if there is one. It explains an errno
/// that misleads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestFailure {
    /// The number of the request in its batch; 0 for a single request.
    pub number: usize,
    /// The request.
    pub request: Request,
    /// The kernel's error.
    pub error: KernelError,
}

impl RequestFailure {
    /// The virtual server, destination or daemon of the request does not exist.
    pub fn is_not_found(&self) -> bool {
        self.error.is_not_found() && !self.lacks_module()
    }

    /// The kernel lacks the scheduler or the persistence engine, and found no module of it to load.
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

/// An error of IPVS or of the connection to it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The kernel has no IPVS and could not load it.
    #[error(
        "the kernel has no IPVS: load the module ip_vs on the host (modprobe ip_vs), or use a kernel built with \
         CONFIG_IP_VS"
    )]
    NoIpvs,
    /// The kernel rejected a request.
    #[error("{0}")]
    Rejected(Box<RequestFailure>),
    /// A read failed. It is unknown whether the object exists.
    #[error("cannot {what}: {error}")]
    Read {
        /// The operation, such as `list services`.
        what: String,
        /// The cause.
        #[source]
        error: netlink_batch::Error,
    },
    /// The socket failed. It is unknown which requests the kernel executed: read the state again.
    #[error("{0}")]
    Transport(#[from] netlink_batch::Error),
}

impl Error {
    /// The kernel's error, if the kernel rejected the request.
    pub fn kernel(&self) -> Option<&KernelError> {
        match self {
            Self::Rejected(failure) => Some(&failure.error),
            Self::Read { error, .. } | Self::Transport(error) => error.kernel(),
            Self::NoIpvs => None,
        }
    }

    /// The errno of the kernel's rejection or of the failed system call; `ENOENT` for [`NoIpvs`](Self::NoIpvs). Some
    /// errors have none.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::NoIpvs => Some(ENOENT),
            Self::Rejected(failure) => Some(failure.error.errno()),
            Self::Read { error, .. } | Self::Transport(error) => error.errno(),
        }
    }

    /// The virtual server, destination or daemon of the request does not exist.
    pub fn is_not_found(&self) -> bool {
        match self {
            Self::Rejected(failure) => failure.is_not_found(),
            _ => self.kernel().is_some_and(KernelError::is_not_found),
        }
    }

    /// The object to add exists already.
    pub fn already_exists(&self) -> bool {
        self.kernel().is_some_and(KernelError::already_exists)
    }

    /// The caller lacks CAP_NET_ADMIN in the user namespace of this network namespace.
    pub fn is_permission_denied(&self) -> bool {
        self.kernel().is_some_and(KernelError::is_permission_denied)
    }

    /// The kernel lacks the scheduler or the persistence engine, and found no module of it to load.
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
    fn request_failure_names_the_request_and_its_object() {
        let address: std::net::SocketAddr = "10.1.1.1:80".parse().unwrap();
        let (service, key, destination) = (key(), address.into(), Destination::default());
        let present = failure(Request::AddDestination { service, key, destination }, 17);
        assert_eq!(
            Error::from(present).to_string(),
            "add destination 10.1.1.1:80 to TCP 10.0.0.1:80: File exists (os error 17)"
        );
    }

    #[test]
    fn enoent_means_a_missing_module_or_a_missing_destination() {
        let service = VirtualServer::new(Scheduler::RR);
        let add = failure(Request::AddService { key: key(), service }, 2);
        assert!(add.lacks_module() && !add.is_not_found());
        assert!(add.to_string().ends_with("the kernel has no scheduler rr (module ip_vs_rr)"), "{add}");

        let address: std::net::SocketAddr = "10.1.1.1:80".parse().unwrap();
        let delete = failure(Request::DeleteDestination { service: key(), key: address.into() }, 2);
        assert!(delete.is_not_found() && !delete.lacks_module());
        assert!(failure(Request::UpdateService { key: key(), service }, 3).is_not_found());
        assert!(failure(Request::Flush, 1).error.is_permission_denied());
    }

    #[test]
    fn no_ipvs_error_names_the_module_to_load() {
        let said = Error::NoIpvs.to_string();
        assert!(said.contains("modprobe ip_vs") && said.contains("CONFIG_IP_VS"), "{said}");
        assert!(!Error::NoIpvs.is_not_found());
    }
}
