//! The errnos with which Linux rejects a change, and their meaning for a plan.

use std::fmt;

use crate::{
    kernel::{Cause, Reason},
    plan::Change,
};

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Errno(i32, &'static str);

pub(super) const ENOENT: Errno = Errno(2, "No such file or directory");
pub(super) const ESRCH: Errno = Errno(3, "No such process");
pub(super) const EEXIST: Errno = Errno(17, "File exists");
pub(super) const ENODEV: Errno = Errno(19, "No such device");
pub(super) const EADDRNOTAVAIL: Errno = Errno(99, "Cannot assign requested address");

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (os error {})", self.1, self.0)
    }
}

impl From<Errno> for Reason {
    fn from(errno: Errno) -> Self {
        Self::new(errno.to_string(), Some(errno.0))
    }
}

/// Whether the errno says that the kernel already has the state that the change asks for.
pub(super) fn is_done_already(change: &Change, errno: Errno) -> bool {
    match change {
        Change::Bind(_) => errno == EEXIST,
        Change::Unbind(_) => [ENODEV, EADDRNOTAVAIL].contains(&errno),
        Change::RemoveVirtualServer(_) => errno == ESRCH,
        Change::RemoveRealServer { .. } | Change::RemoveElement { .. } => errno == ENOENT,
        _ => false,
    }
}

pub(super) fn cause(change: &Change, errno: Errno) -> Cause {
    match (change, errno) {
        (Change::AddVirtualServer { .. } | Change::AddRealServer { .. }, EEXIST) => Cause::Exists,
        (Change::AddVirtualServer { .. } | Change::UpdateVirtualServer { .. }, ENOENT) => Cause::NoScheduler,
        _ => Cause::Rejected,
    }
}
