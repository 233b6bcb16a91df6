use std::{os::fd::AsFd, thread};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::Error;

/// Runs `work` in a network namespace and returns its result.
///
/// `namespace` is an open file of the namespace: `/run/netns/NAME`, `/proc/PID/ns/net`. Entering it needs
/// CAP_SYS_ADMIN. `work` runs on a temporary thread, so the caller's thread stays in its namespace. A socket that
/// `work` opens belongs to the namespace for its lifetime.
///
/// ```no_run
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let namespace = std::fs::File::open("/run/netns/node-1")?;
/// let forwarding = netlink_batch::in_namespace(&namespace, || {
///     std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward")
/// })??;
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// [`Error::Namespace`] if the namespace cannot be entered or no thread can be started.
pub fn in_namespace<T: Send>(namespace: impl AsFd, work: impl FnOnce() -> T + Send) -> Result<T, Error> {
    let namespace = namespace.as_fd();
    let enter_and_work = move || {
        move_into_link_name_space(namespace, Some(LinkNameSpaceType::Network))
            .map_err(|error| Error::Namespace(error.into()))?;
        Ok(work())
    };
    thread::scope(|scope| {
        let worker = thread::Builder::new().spawn_scoped(scope, enter_and_work).map_err(Error::Namespace)?;
        worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
