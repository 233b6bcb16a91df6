use std::{fmt, io};

use netlink_packet_core::{DecodeError, NLM_F_ACK_TLVS, NLM_F_CAPPED};

use crate::attribute::{array, attributes, text};

/// `NLMSGERR_ATTR_MSG` and `NLMSGERR_ATTR_OFFS` of `linux/netlink.h`.
const ATTRIBUTE_TEXT: u16 = 1;
const ATTRIBUTE_OFFSET: u16 = 2;

/// Why the kernel rejected a request: its errno and, if the subsystem provides it, its text.
///
/// `Display` prints both: `Invalid argument (os error 22): Unsupported persistence engine`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelError {
    errno: i32,
    text: Option<String>,
    offset: Option<u32>,
}

impl KernelError {
    /// An error with an errno (positive, as in `errno.h`) and no text; for fakes and tests.
    pub fn from_errno(errno: i32) -> Self {
        Self { errno: errno.abs(), text: None, offset: None }
    }

    /// The errno, positive.
    pub fn errno(&self) -> i32 {
        self.errno
    }

    /// The kernel's text, from the extended acknowledgement.
    pub fn text(&self) -> Option<&str> {
        self.text.as_deref()
    }

    /// The offset of the attribute that the kernel rejected, in bytes from the request's header.
    pub fn offset(&self) -> Option<u32> {
        self.offset
    }

    /// The object does not exist (`ENOENT`, `ESRCH`, `ENODEV`, `EADDRNOTAVAIL`).
    pub fn is_not_found(&self) -> bool {
        use rustix::io::Errno;
        [Errno::NOENT, Errno::SRCH, Errno::NODEV, Errno::ADDRNOTAVAIL].iter().any(|e| e.raw_os_error() == self.errno)
    }

    /// The object exists already (`EEXIST`).
    pub fn already_exists(&self) -> bool {
        self.errno == rustix::io::Errno::EXIST.raw_os_error()
    }

    /// The caller lacks permission (`EPERM`, `EACCES`): CAP_NET_ADMIN is missing in this namespace.
    pub fn is_permission_denied(&self) -> bool {
        use rustix::io::Errno;
        [Errno::PERM, Errno::ACCESS].iter().any(|e| e.raw_os_error() == self.errno)
    }

    /// Reads the payload of an `NLMSG_ERROR`. `code` is a negative errno, or 0 for an acknowledgement. `rest` has the
    /// request's header, capped or with its payload, and the attributes of the extended acknowledgement. `flags` are
    /// those of the reply's header. Malformed bytes cost the text, never the errno.
    pub(crate) fn parse(code: i32, flags: u16, rest: &[u8]) -> Self {
        let mut error = Self { errno: code.saturating_abs(), text: None, offset: None };
        if flags & NLM_F_ACK_TLVS == 0 {
            return error;
        }
        let echoed = match (flags & NLM_F_CAPPED != 0, rest.first_chunk()) {
            (true, _) | (_, None) => 16,
            (false, Some(length)) => (u32::from_ne_bytes(*length) as usize).next_multiple_of(4),
        };
        error.read_attributes(rest.get(echoed..).unwrap_or_default());
        error
    }

    /// `enum nlmsgerr_attrs`.
    pub(crate) fn read_attributes(&mut self, bytes: &[u8]) {
        for (kind, value) in attributes(bytes) {
            match kind {
                ATTRIBUTE_TEXT => self.text = Some(text(value).into_owned()),
                ATTRIBUTE_OFFSET => self.offset = array(value).map(u32::from_ne_bytes),
                _ => {}
            }
        }
    }
}

impl fmt::Display for KernelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", io::Error::from_raw_os_error(self.errno))?;
        match &self.text {
            Some(text) => write!(f, ": {text}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for KernelError {}

/// A request of a [`Batch`](crate::Batch) that the kernel rejected. The kernel executed the others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The number of the request, as [`Batch::push`](crate::Batch::push) returned it.
    pub request: usize,
    /// The kernel's error.
    pub error: KernelError,
}

/// An error of a netlink socket.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The socket could not be opened or set up.
    #[error("cannot open a netlink socket: {0}")]
    Open(#[source] io::Error),
    /// The network namespace could not be entered (this needs CAP_SYS_ADMIN).
    #[error("cannot enter the network namespace: {0}")]
    Namespace(#[source] io::Error),
    /// The kernel accepted no part of the send.
    #[error("cannot send to the kernel: {0}")]
    Send(#[source] io::Error),
    /// No reply could be read. It is unknown whether the kernel executed the requests: read the state again.
    #[error("cannot receive from the kernel: {0}")]
    Receive(#[source] io::Error),
    /// Replies were lost (`ENOBUFS`). It is unknown whether the kernel executed the requests: read the state again.
    #[error("the kernel's replies did not fit the receive buffer: read the state again")]
    Overrun,
    /// The transaction is too large for one send.
    #[error("a transaction of {size} bytes does not fit the send buffer of {limit} bytes: split it")]
    TooLarge {
        /// The size of the transaction in bytes.
        size: usize,
        /// The maximum size of one send in bytes.
        limit: usize,
    },
    /// The kernel's state changed during every attempt to list it (`NLM_F_DUMP_INTR`): list again.
    #[error("the kernel's state changed while it was listed: list it again")]
    Interrupted,
    /// The kernel did not answer a request that asked for an acknowledgement.
    #[error("the kernel did not acknowledge the request: read the state again")]
    NoReply,
    /// The kernel rejected the request.
    #[error("{0}")]
    Rejected(#[from] KernelError),
    /// A reply could not be decoded.
    #[error("cannot decode the kernel's reply: {0}")]
    Decode(String),
}

impl Error {
    /// The kernel's error, if the kernel rejected the request.
    pub fn kernel(&self) -> Option<&KernelError> {
        match self {
            Self::Rejected(error) => Some(error),
            _ => None,
        }
    }

    /// The errno of the kernel's rejection or of the failed system call. Some errors have none.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Open(error) | Self::Namespace(error) | Self::Send(error) | Self::Receive(error) => {
                error.raw_os_error()
            }
            Self::Rejected(error) => Some(error.errno()),
            Self::Overrun | Self::TooLarge { .. } | Self::Interrupted | Self::NoReply | Self::Decode(_) => None,
        }
    }
}

impl From<DecodeError> for Error {
    fn from(error: DecodeError) -> Self {
        Self::Decode(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The payload behind the code of a rejection (`struct nlmsgerr`) with NETLINK_CAP_ACK and NETLINK_EXT_ACK set: the
    /// request's header, here zeros, and the attributes.
    fn capped(attributes: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0u8; 16];
        bytes.extend_from_slice(attributes);
        bytes
    }

    #[test]
    fn extended_ack_text_and_offset_are_read() {
        let rest = capped(b"\x0a\0\x01\0oops!\0\0\0\x08\0\x02\0\x2a\0\0\0");
        let error = KernelError::parse(-22, NLM_F_CAPPED | NLM_F_ACK_TLVS, &rest);
        assert_eq!((error.errno(), error.text(), error.offset()), (22, Some("oops!"), Some(42)));
        assert_eq!(error.to_string(), "Invalid argument (os error 22): oops!");
    }

    #[test]
    fn uncapped_request_before_the_attributes_is_skipped() {
        let mut rest = vec![0u8; 20];
        rest[..4].copy_from_slice(&18u32.to_ne_bytes());
        rest.extend_from_slice(b"\x08\0\x01\0abc\0");
        assert_eq!(KernelError::parse(-2, NLM_F_ACK_TLVS, &rest).text(), Some("abc"));
    }

    #[test]
    fn malformed_extended_ack_loses_only_the_text() {
        for rest in [&b""[..], b"\xff\xff\xff\xff", &[0xff; 40], &capped(b"\xff\xff\x01\0")] {
            let error = KernelError::parse(i32::MIN, NLM_F_ACK_TLVS, rest);
            assert_eq!(error.text(), None);
            assert!(error.errno() > 0);
        }
    }
}
