//! Reports to the service manager, by the protocol of sd_notify(3). Without `NOTIFY_SOCKET`, kube-ipvs sends none.

use std::{
    env,
    ffi::OsStr,
    io,
    os::{
        linux::net::SocketAddrExt,
        unix::{
            ffi::OsStrExt,
            net::{SocketAddr, UnixDatagram},
        },
    },
    time::Duration,
};

#[derive(Clone, Copy)]
pub(super) enum State {
    /// The first sync has succeeded.
    Ready,
    /// The sync loop waits for work, or has been busy for less than [`HANG_TIMEOUT`](super::watchdog::HANG_TIMEOUT).
    Alive,
    Stopping,
}

impl State {
    fn text(self) -> &'static str {
        match self {
            Self::Ready => "READY=1",
            Self::Alive => "WATCHDOG=1",
            Self::Stopping => "STOPPING=1",
        }
    }
}

/// If kube-ipvs cannot reach the service manager, it only logs that, and keeps serving.
pub(super) fn send(state: State) {
    let Some(socket) = env::var_os("NOTIFY_SOCKET").filter(|socket| !socket.is_empty()) else { return };
    if let Err(error) = send_to(&socket, state) {
        tracing::debug!("cannot report {} to {}: {error}", state.text(), socket.display());
    }
}

fn send_to(socket: &OsStr, state: State) -> io::Result<()> {
    // A leading @ stands for the zero byte of an abstract name.
    let address = match socket.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(socket)?,
    };
    UnixDatagram::unbound()?.send_to_addr(state.text().as_bytes(), &address)?;
    Ok(())
}

/// The time within which the service manager expects [`State::Alive`], if it watches this process.
pub(super) fn watchdog_timeout() -> Option<Duration> {
    let variable = |name: &str| env::var(name).ok();
    timeout(variable("WATCHDOG_USEC"), variable("WATCHDOG_PID"), std::process::id())
}

fn timeout(usec: Option<String>, pid: Option<String>, own: u32) -> Option<Duration> {
    let is_meant = pid.is_none_or(|pid| pid.parse() == Ok(own));
    let usec = usec?.parse().ok().filter(|usec| *usec > 0 && is_meant)?;
    Some(Duration::from_micros(usec))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_reach_the_socket_by_path_and_by_abstract_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let name = format!("kube-ipvs-notify-{}", std::process::id());
        let at_name = SocketAddr::from_abstract_name(&name).unwrap();
        for (receiver, socket) in [
            (UnixDatagram::bind(&path).unwrap(), path.into_os_string()),
            (UnixDatagram::bind_addr(&at_name).unwrap(), format!("@{name}").into()),
        ] {
            for (state, expected) in
                [(State::Ready, "READY=1"), (State::Alive, "WATCHDOG=1"), (State::Stopping, "STOPPING=1")]
            {
                send_to(&socket, state).unwrap();
                let mut received = [0; 32];
                let length = receiver.recv(&mut received).unwrap();
                assert_eq!(&received[..length], expected.as_bytes());
            }
        }
        assert!(send_to(folder.path().join("none").as_os_str(), State::Ready).is_err());
    }

    #[test]
    fn watchdog_timeout_of_another_process_is_ignored() {
        let timeout = |usec: &str, pid: Option<&str>| timeout(Some(usec.into()), pid.map(Into::into), 7);
        assert_eq!(timeout("300000000", None), Some(Duration::from_secs(300)));
        assert_eq!(timeout("300000000", Some("7")), Some(Duration::from_secs(300)));
        assert_eq!(timeout("300000000", Some("8")), None);
        assert_eq!(timeout("0", None), None);
        assert_eq!(timeout("x", None), None);
        assert_eq!(super::timeout(None, None, 7), None);
    }
}
