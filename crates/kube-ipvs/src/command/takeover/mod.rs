//! When kube-ipvs removes kube-proxy's leftovers, and how it reports that.

mod legacy;
mod listeners;
pub(super) mod preview;

use std::{collections::BTreeSet, time::Duration};

use proxier::{
    linux::LinuxKernel,
    takeover::{CleanupReport, Kept},
};

use self::listeners::somebody_else_listens;
use crate::{
    config::Configuration,
    events::{About, EventNote, EventRecorder},
};

type Record<'a> = dyn FnMut(&'static str, String) + 'a;

const POLL_INTERVAL: Duration = Duration::from_secs(10);
/// How long a node can take to reach the desired state. After that, kube-ipvs reports why it waits.
const STARTUP_GRACE: Duration = Duration::from_secs(60);
/// How long nf_tables can hold the sets of removed rules, and how often to look meanwhile.
const SET_RELEASE_TIMEOUT: Duration = Duration::from_secs(5);
const SET_RELEASE_POLL: Duration = Duration::from_millis(100);

pub(super) struct Takeover {
    stage: Stage,
    /// The ports of kube-proxy, if it has the configuration that kube-ipvs takes over.
    ports: BTreeSet<u16>,
    next_look: Duration,
    has_reported_wait: bool,
    /// When kube-ipvs began to wait for nf_tables.
    letting_go: Option<Duration>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// kube-proxy's leftovers are there, if any.
    Waiting { has_warned: bool },
    /// kube-proxy's leftovers are gone, except those that must stay.
    Over { has_warned: bool },
    /// kube-proxy left nothing here, or takeover is off.
    Idle,
}

pub(super) enum Progress<'a> {
    /// All of it, and nothing else of kube-ipvs.
    Settled,
    /// Not all of it. These objects could never be read. If there are none, the kernel rejects something.
    Unsettled(&'a [Box<str>]),
}

impl Takeover {
    pub(super) fn new(configuration: &Configuration) -> Self {
        let stage = match configuration.own.takeover {
            true => Stage::Waiting { has_warned: false },
            false => Stage::Idle,
        };
        let listen = [configuration.healthz_listen(), configuration.metrics_listen()];
        let ports = listen.into_iter().flatten().map(|address| address.port()).collect();
        Self { stage, ports, next_look: Duration::ZERO, has_reported_wait: false, letting_go: None }
    }

    /// When to call `advance` although no sync is due: soon, while it waits for something other than a sync.
    pub(super) fn due(&self) -> Option<Duration> {
        self.letting_go.map(|_| self.next_look)
    }

    /// Call this after each sync, and when it is [due](Self::due).
    pub(super) fn advance(
        &mut self,
        kernel: &mut LinuxKernel,
        progress: Progress<'_>,
        now: Duration,
        recorder: &mut EventRecorder,
    ) {
        let mut record = |reason, note| {
            recorder.record(EventNote { about: About::Node, reason, note }, now);
        };
        if now < self.next_look {
            return;
        }
        match (self.stage, progress) {
            (Stage::Waiting { has_warned }, Progress::Settled) => {
                self.next_look = now + POLL_INTERVAL;
                self.stage = self.remove_kube_proxy_leftovers(kernel, has_warned, now, &mut record);
            }
            (Stage::Waiting { .. }, Progress::Unsettled(unread)) if self.must_report_wait(now) => {
                self.next_look = now + POLL_INTERVAL;
                self.has_reported_wait = report_wait(kernel, unread, &mut record);
            }
            (Stage::Over { has_warned }, _) => {
                self.next_look = now + POLL_INTERVAL;
                self.stage = Stage::Over { has_warned: is_back(kernel, has_warned, &mut record) };
            }
            (Stage::Waiting { .. }, _) if self.letting_go.is_some() => self.next_look = now + SET_RELEASE_POLL,
            (Stage::Waiting { .. } | Stage::Idle, _) => {}
        }
    }

    fn must_report_wait(&self, now: Duration) -> bool {
        !self.has_reported_wait && self.letting_go.is_none() && now > STARTUP_GRACE
    }

    fn remove_kube_proxy_leftovers(
        &mut self,
        kernel: &mut LinuxKernel,
        has_warned: bool,
        now: Duration,
        record: &mut Record<'_>,
    ) -> Stage {
        match kernel.is_kube_proxy_active() {
            Ok(true) if self.letting_go.is_none() => {
                if let Some(port) = self.ports.iter().find(|port| somebody_else_listens(**port)) {
                    if !has_warned {
                        let note = format!(
                            "port {port} is taken: kube-proxy seems to run beside kube-ipvs. Its \
                             rules and ipsets stay until you stop it; see docs/migrating-from-kube-proxy.md"
                        );
                        tracing::warn!("{note}");
                        record("KubeProxyRunning", note);
                    }
                    return Stage::Waiting { has_warned: true };
                }
            }
            Ok(_) => {}
            Err(error) => {
                tracing::error!("{error}; kube-ipvs retries");
                return Stage::Waiting { has_warned };
            }
        }
        let since = self.letting_go.take().unwrap_or(now);
        match kernel.remove_kube_proxy_leftovers(now < since + SET_RELEASE_TIMEOUT) {
            Ok(None) => {
                self.letting_go = Some(since);
                self.next_look = now + SET_RELEASE_POLL;
                Stage::Waiting { has_warned }
            }
            Ok(Some(done)) if done.is_empty() => {
                legacy::notes().iter().for_each(|note| tracing::warn!("{note}"));
                Stage::Idle
            }
            Ok(Some(done)) => {
                log_removed(&done);
                done.kept.iter().for_each(|kept| record("KubeProxyRulesKept", with_hint(kept)));
                Stage::Over { has_warned: false }
            }
            Err(error) => {
                tracing::error!("kube-proxy's leftovers: {error}; kube-ipvs retries");
                Stage::Waiting { has_warned }
            }
        }
    }
}

/// Reports why kube-proxy's leftovers stay, if there are any. Returns whether it did.
fn report_wait(kernel: &mut LinuxKernel, unread: &[Box<str>], record: &mut Record<'_>) -> bool {
    // If they cannot be read, the next look reports that.
    let is_there = kernel.is_kube_proxy_active().unwrap_or_default();
    if is_there {
        let note = waiting_note(unread);
        tracing::warn!("{note}");
        record("TakeoverWaits", note);
    }
    is_there
}

fn waiting_note(unread: &[Box<str>]) -> String {
    let what = match unread {
        [] => {
            "the kernel accepts all changes and kube-ipvs can read all manifests: the log names the failures".to_owned()
        }
        names => format!("kube-ipvs can read these objects: {}", names.join(", ")),
    };
    format!(
        "kube-proxy's rules and ipsets stay until {what}. All other Services are served; see \
         docs/migrating-from-kube-proxy.md"
    )
}

fn log_removed(done: &CleanupReport) {
    let CleanupReport { adopted, chains, tables, sets, kept, .. } = done;
    if adopted + chains + tables + sets > 0 {
        tracing::info!(adopted, chains, tables, sets, "kube-ipvs took over from kube-proxy, and removed its rules");
    }
    kept.iter().for_each(|kept| tracing::warn!("{}", with_hint(kept)));
}

fn with_hint(kept: &Kept) -> String {
    match kept {
        Kept::AcceptingChain { .. } => {
            format!("{kept}. docs/migrating-from-kube-proxy.md says how to replace it")
        }
        _ => kept.to_string(),
    }
}

/// Whether kube-proxy serves this node again. kube-ipvs reports that once.
fn is_back(kernel: &mut LinuxKernel, has_warned: bool, record: &mut Record<'_>) -> bool {
    match kernel.is_kube_proxy_active() {
        Ok(is_back) => {
            if is_back && !has_warned {
                let note = "kube-proxy's rules are back: kube-proxy runs on this node beside kube-ipvs, and each \
                            undoes the changes of the other. Stop one of them, and restart kube-ipvs. Until then, \
                            kube-ipvs leaves kube-proxy's rules in place";
                tracing::error!("{note}");
                record("KubeProxyRunning", note.to_owned());
            }
            is_back
        }
        Err(error) => {
            tracing::error!("{error}");
            has_warned
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_note_names_unread_objects_or_the_kernel() {
        let names = ["Service shop/web".into(), "EndpointSlice shop/web-1".into()];
        let note = waiting_note(&names);
        assert!(
            note.contains("can read these objects: Service shop/web, EndpointSlice shop/web-1. All other"),
            "{note}"
        );
        assert!(waiting_note(&[]).contains("accepts"), "{}", waiting_note(&[]));
    }
}
