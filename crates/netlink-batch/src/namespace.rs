use std::{os::fd::AsFd, thread};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::Error;

/// Runs `work` in a network namespace and returns its result.
///
/// The namespace is given by an open file of it: `/run/netns/NAME`, `/proc/PID/ns/net`. Entering needs
/// CAP_SYS_ADMIN. The caller's own thread stays where it is: the work is done on a thread of its own that
/// ends afterwards. A socket opened by `work` belongs to the namespace for as long as it lives.
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
/// [`Error::Namespace`] when the namespace cannot be entered or no thread can be started.
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
