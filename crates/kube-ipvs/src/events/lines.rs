//! Selects the log lines about objects and syncs. Pure: no I/O and no clock.

use std::{collections::BTreeSet, fmt, hash::Hash, time::Duration};

use proxier::{SyncReport, model::ServiceId};
use tracing::Level;

use super::{
    About, EventNote,
    cut::cut,
    hint::with_hint,
    limits::{Budget, Budgets, Limits},
};
use crate::source::Problem;

/// At most 86,400 lines a day, and 17,280 of one namespace.
const BUDGETS: Budgets = Budgets {
    object: Budget { burst: 10, one_more: Duration::from_secs(60) },
    namespace: Budget { burst: 50, one_more: Duration::from_secs(5) },
    all: Budget { burst: 200, one_more: Duration::from_secs(1) },
};
/// The budget for lines about synced Services. A pod that flaps causes them on every node.
const SYNCED: Budgets = Budgets {
    object: Budget { burst: 10, one_more: Duration::from_secs(60) },
    namespace: Budget { burst: 50, one_more: Duration::from_secs(30) },
    all: Budget { burst: 200, one_more: Duration::from_secs(10) },
};
/// The longest line, in bytes.
const MAX_LINE: usize = 2048;
/// How often kube-ipvs logs the number of omitted lines.
const SUMMARY_INTERVAL: Duration = Duration::from_secs(30);

/// A line of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    level: Level,
    text: String,
}

impl Line {
    fn new(level: Level, text: &str) -> Self {
        let rest = format!(" … ({} bytes in all)", text.len());
        Self { level, text: cut(text, MAX_LINE, &rest).into_owned() }
    }

    /// Writes the line to the log.
    pub fn log(&self) {
        match self.level {
            Level::WARN => tracing::warn!("{}", self.text),
            _ => tracing::error!("{}", self.text),
        }
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Selects log lines, and counts the omitted ones.
#[derive(Debug)]
pub struct LogLines {
    limits: Limits,
    synced: Limits,
    left_out: u64,
    next_sum: Duration,
}

impl Default for LogLines {
    fn default() -> Self {
        let (limits, synced) = (Limits::new(BUDGETS), Limits::new(SYNCED));
        Self { limits, synced, left_out: 0, next_sum: Duration::ZERO }
    }
}

impl LogLines {
    /// Lines about problems of objects. `now` is the time since any fixed moment.
    pub fn problems(&mut self, problems: &[Problem], now: Duration) -> Vec<Line> {
        let mut lines = Vec::new();
        for problem in problems {
            // The operator who reads the log wrote the file, so there is no limit.
            if problem.place.is_some() {
                lines.push(Line::new(Level::ERROR, &problem.to_string()));
                continue;
            }
            let object = (&problem.path, &problem.object);
            let namespace = problem.object.as_deref().and_then(namespace);
            lines.extend(self.line(Level::ERROR, &object, namespace, now, || problem.to_string()));
        }
        lines.extend(self.sum(now));
        lines
    }

    /// Lines about parts of Services that are not served, and about errors of the kernel.
    pub fn record_sync(&mut self, report: &SyncReport, now: Duration) -> Vec<Line> {
        let mut lines = Vec::new();
        for skipped in &report.skipped {
            let service = skipped.service();
            let namespace = Some(&*service.namespace);
            lines.extend(self.line(Level::WARN, service, namespace, now, || with_hint(skipped)));
        }
        for failure in &report.failures {
            let service = failure.service.as_ref().map(|port| &port.service);
            let namespace = service.map(|service| &*service.namespace);
            let text = || format!("{failure}; kube-ipvs retries");
            lines.extend(self.line(Level::ERROR, &service, namespace, now, text));
        }
        lines.extend(self.sum(now));
        lines
    }

    /// Lines about notes on a Service from its health check server.
    pub fn note(&mut self, event_note: &EventNote, now: Duration) -> Vec<Line> {
        let About::Service(service) = &event_note.about else { return Vec::new() };
        let text = || format!("Service {service}: {}", event_note.note);
        let line = self.line(Level::ERROR, service, Some(&service.namespace), now, text);
        line.into_iter().chain(self.sum(now)).collect()
    }

    /// Whether the log names these Services as synced: one of them must have budget left.
    pub fn synced(&mut self, services: &BTreeSet<&ServiceId>, now: Duration) -> bool {
        let has_line = services.iter().any(|one| self.synced.allow(one, Some(&*one.namespace), now));
        self.left_out += u64::from(!has_line && !services.is_empty());
        has_line
    }

    fn line(
        &mut self,
        level: Level,
        object: &impl Hash,
        namespace: Option<&str>,
        now: Duration,
        text: impl FnOnce() -> String,
    ) -> Option<Line> {
        if !self.limits.allow(object, namespace, now) {
            self.left_out += 1;
            return None;
        }
        Some(Line::new(level, &text()))
    }

    #[cfg(test)]
    pub(super) fn kept(&self) -> usize {
        self.limits.kept()
    }

    fn sum(&mut self, now: Duration) -> Option<Line> {
        if self.left_out == 0 || now < self.next_sum {
            return None;
        }
        self.next_sum = now + SUMMARY_INTERVAL;
        let text = format!(
            "kube-ipvs left out {} lines about Services and EndpointSlices: one object, one namespace or all together \
             had too many. For all lines of one Service, run `kube-ipvs explain NAMESPACE/NAME`",
            std::mem::take(&mut self.left_out)
        );
        Some(Line { level: Level::WARN, text })
    }
}

fn namespace(object: &str) -> Option<&str> {
    let (_, name) = object.split_once(' ')?;
    Some(name.split_once('/')?.0)
}
