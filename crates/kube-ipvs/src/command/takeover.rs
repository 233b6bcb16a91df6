//! When kube-proxy's leftovers go, and what is said about it.

use std::{collections::BTreeSet, fs, time::Duration};

use proxier::{linux::LinuxKernel, takeover::ClearedOut};

use crate::{
    announce::{About, Announcement, Announcer},
    config::Configuration,
};

/// Announces something about this Node: a reason, and a note.
type Announce<'a> = dyn FnMut(&'static str, String) + 'a;

/// How long to wait at least from one look at kube-proxy to the next.
const PAUSE: Duration = Duration::from_secs(10);

/// Follows the end of kube-proxy on this node.
pub(super) struct Succession {
    stage: Stage,
    /// On which kube-proxy answers, with the configuration that was ours to take over.
    ports: BTreeSet<u16>,
    next_look: Duration,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// What it left is there, if there is any.
    Waiting { has_warned: bool },
    /// What it left is gone, but for what has to stay.
    Over { has_warned: bool },
    /// It was never here, or it is none of our business.
    Idle,
}

impl Succession {
    pub(super) fn new(configuration: &Configuration) -> Self {
        let stage = match configuration.own.take_over {
            true => Stage::Waiting { has_warned: false },
            false => Stage::Idle,
        };
        let listen = [configuration.healthz_listen(), configuration.metrics_listen()];
        let ports = listen.into_iter().flatten().map(|address| address.port()).collect();
        Self { stage, ports, next_look: Duration::ZERO }
    }

    /// To be called after each turn. `is_settled`: whether the kernel has all that is wanted, and nothing else of ours.
    pub(super) fn go_on(
        &mut self,
        kernel: &mut LinuxKernel,
        is_settled: bool,
        now: Duration,
        announcer: &mut Announcer,
    ) {
        let mut announce = |reason, note| {
            announcer.announce(Announcement { about: About::Node, reason, note }, now);
        };
        if now < self.next_look {
            return;
        }
        match self.stage {
            Stage::Waiting { has_warned } if is_settled => {
                self.next_look = now + PAUSE;
                self.stage = self.clear_out(kernel, has_warned, &mut announce);
            }
            Stage::Over { has_warned } => {
                self.next_look = now + PAUSE;
                self.stage = Stage::Over { has_warned: is_back(kernel, has_warned, &mut announce) };
            }
            Stage::Waiting { .. } | Stage::Idle => {}
        }
    }

    fn clear_out(&self, kernel: &mut LinuxKernel, has_warned: bool, announce: &mut Announce<'_>) -> Stage {
        match kernel.is_kube_proxy_at_work() {
            Ok(true) => {
                if let Some(port) = self.ports.iter().find(|port| somebody_else_listens(**port)) {
                    if !has_warned {
                        let note = format!(
                            "port {port} is taken: kube-proxy seems to be running beside kube-ipvs. What it has in iptables \
                             and ipset stays until it is stopped; see docs/migrating-from-kube-proxy.md"
                        );
                        tracing::warn!("{note}");
                        announce("KubeProxyRunning", note);
                    }
                    return Stage::Waiting { has_warned: true };
                }
            }
            Ok(false) => {}
            Err(error) => {
                tracing::error!("{error}; trying again");
                return Stage::Waiting { has_warned };
            }
        }
        match kernel.clear_out() {
            Ok(done) if done.is_empty() => Stage::Idle,
            Ok(done) => {
                tell(&done);
                done.kept.iter().for_each(|kept| announce("KubeProxyRulesKept", kept.to_string()));
                Stage::Over { has_warned: false }
            }
            Err(error) => {
                tracing::error!("what kube-proxy left: {error}; trying again");
                Stage::Waiting { has_warned }
            }
        }
    }
}

fn tell(done: &ClearedOut) {
    let ClearedOut { adopted, chains, sets, kept } = done;
    if adopted + chains + sets > 0 {
        tracing::info!(
            adopted,
            chains,
            sets,
            "taken over from kube-proxy; its chains and ipsets are removed"
        );
    }
    kept.iter().for_each(|kept| tracing::warn!("{kept}"));
}

/// Whether kube-proxy serves this node again, which is said once.
fn is_back(kernel: &mut LinuxKernel, has_warned: bool, announce: &mut Announce<'_>) -> bool {
    match kernel.is_kube_proxy_at_work() {
        Ok(is_back) => {
            if is_back && !has_warned {
                let note = "kube-proxy's ipsets are back: it runs on this node beside kube-ipvs, and each undoes what the \
                            other does. Stop one of them, and start kube-ipvs anew; its rules are left alone until then";
                tracing::error!("{note}");
                announce("KubeProxyRunning", note.to_owned());
            }
            is_back
        }
        Err(error) => {
            tracing::error!("{error}");
            has_warned
        }
    }
}

/// Whether another process than this one listens on a TCP port, in this network namespace.
fn somebody_else_listens(port: u16) -> bool {
    let tables = ["/proc/thread-self/net/tcp", "/proc/thread-self/net/tcp6"];
    let tables: String = tables.iter().filter_map(|table| fs::read_to_string(table).ok()).collect();
    let listeners = listeners(&tables, port);
    !listeners.is_empty() && !listeners.is_subset(&own_sockets())
}

/// The inodes of the sockets that listen on a port, as the kernel's tables of TCP sockets have them.
fn listeners(tables: &str, port: u16) -> BTreeSet<u64> {
    const LISTEN: &str = "0A";
    let listener = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (_, local) = words.get(1)?.rsplit_once(':')?;
        let is_it = u16::from_str_radix(local, 16).ok()? == port && *words.get(3)? == LISTEN;
        words.get(9).filter(|_| is_it)?.parse().ok()
    };
    tables.lines().filter_map(listener).collect()
}

/// The inodes of this process's own sockets.
fn own_sockets() -> BTreeSet<u64> {
    let Ok(descriptors) = fs::read_dir("/proc/self/fd") else { return BTreeSet::new() };
    let links = descriptors.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    let inode =
        |link: std::path::PathBuf| link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok();
    links.filter_map(inode).collect()
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    const TABLE: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:2810 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0 100 0 0 10 0
   1: 0100007F:2810 0100007F:9C40 01 00000000:00000000 00:00000000 00000000     0        0 4712 1 0 20 4 30 10 -1
   2: 0100007F:2809 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4713 1 0 100 0 0 10 0
";

    #[test]
    fn listeners_of_one_port() {
        assert_eq!(listeners(TABLE, 10256), [4711].into());
        assert_eq!(listeners(TABLE, 10249), [4713].into());
        assert_eq!(listeners(TABLE, 80), [].into());
    }

    #[test]
    fn our_own_listener_is_not_somebody_else() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        assert!(!somebody_else_listens(listener.local_addr().unwrap().port()));
    }
}
