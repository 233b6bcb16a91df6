//! Conversion of errors of the netlink crates to a [`Reason`]: their text and the kernel's errno.

use std::borrow::Cow;

use netlink_batch::KernelError;

use super::addresses::DeviceError;
use crate::kernel::{KernelUnavailable, Reason};

pub(super) fn unavailable<E: Into<Reason>>(what: impl Into<Cow<'static, str>>) -> impl FnOnce(E) -> KernelUnavailable {
    move |error| KernelUnavailable::new(what, error)
}

impl From<netlink_batch::Error> for Reason {
    fn from(error: netlink_batch::Error) -> Self {
        Self::new(error.to_string(), error.errno())
    }
}

impl From<DeviceError> for Reason {
    fn from(error: DeviceError) -> Self {
        match error {
            DeviceError::NotDummy(_) => Self::new(error.to_string(), None),
            DeviceError::Netlink(error) => error.into(),
        }
    }
}

impl From<ipvs_netlink::Error> for Reason {
    fn from(error: ipvs_netlink::Error) -> Self {
        Self::new(error.to_string(), error.errno())
    }
}

impl From<&KernelError> for Reason {
    fn from(error: &KernelError) -> Self {
        Self::new(error.to_string(), Some(error.errno()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_ipvs_module_and_missing_capability_give_different_errnos() {
        let missing = unavailable("IPVS")(ipvs_netlink::Error::NoIpvs);
        assert_eq!((missing.subject(), missing.errno()), ("IPVS", Some(2)));
        let text = missing.to_string();
        assert!(text.starts_with("IPVS: the kernel has no IPVS: load the module"), "{text}");
        let rejection = netlink_batch::Error::from(KernelError::from_errno(1));
        let forbidden = unavailable("IPVS")(ipvs_netlink::Error::from(rejection));
        assert_eq!((forbidden.subject(), forbidden.errno()), ("IPVS", Some(1)));
        assert_eq!(forbidden.to_string(), "IPVS: Operation not permitted (os error 1)");
        let interrupted = unavailable("nftables")(netlink_batch::Error::Interrupted);
        assert_eq!(interrupted.errno(), None);
    }
}
