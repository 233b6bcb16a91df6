use std::{borrow::Cow, cell::Cell, collections::BTreeSet, time::Duration};

use proxier::{
    Completeness, Config, Engine, Loop, SyncReport,
    kernel::Kernel,
    linux::Drift,
    model::{Event, NodeAddress},
};

use super::{Entry, Recording, kernel::RecordedKernel};

/// A [`Loop`] whose inputs, answers of the kernel and plans go to a recording, if there is one.
#[derive(Debug)]
pub struct Recorded<K> {
    inner: Loop<RecordedKernel<K>>,
}

impl<K: Kernel> Recorded<K> {
    /// The loop of a new engine. The kernel was opened with the same `config`.
    pub fn new(config: Config, addresses: BTreeSet<NodeAddress>, kernel: K, recording: Option<Recording>) -> Self {
        let mut kernel = RecordedKernel::new(kernel, recording);
        kernel.record(&Entry::Start {
            version: env!("CARGO_PKG_VERSION").into(),
            config: Cow::Borrowed(&config),
            addresses: Cow::Borrowed(&addresses),
            anonymous: false,
        });
        Self { inner: Loop::new(Engine::new(config, addresses), kernel) }
    }

    /// The engine.
    pub fn engine(&self) -> &Engine {
        self.inner.engine()
    }

    /// The kernel. Calls by others than the engine are not recorded.
    pub fn kernel(&mut self) -> &mut K {
        &mut self.inner.kernel().kernel
    }

    /// The engine and the kernel, for a program that needs both at once.
    pub fn parts(&mut self) -> (&Engine, &mut K) {
        let (engine, kernel) = self.inner.parts();
        (engine, &mut kernel.kernel)
    }

    /// As [`Loop::apply`].
    pub fn apply(&mut self, event: Event) {
        self.inner.kernel().record(&Entry::Event(Cow::Borrowed(&event)));
        self.inner.apply(event);
    }

    /// As [`Loop::set_complete`].
    pub fn set_complete(&mut self, completeness: Completeness) {
        self.inner.kernel().record(&Entry::Complete(Cow::Borrowed(&completeness)));
        self.inner.set_complete(completeness);
    }

    /// As [`Loop::notify`].
    pub fn notify(&mut self, drifts: &[Drift], now: Duration) {
        self.inner.kernel().record(&Entry::Notice { at: now, drifts: drifts.into() });
        self.inner.notify(drifts, now);
    }

    /// As [`Loop::due`].
    pub fn due(&self) -> Option<Duration> {
        self.inner.due()
    }

    /// As [`Loop::sync_early`].
    pub fn sync_early(&mut self, now: Duration) -> SyncReport {
        self.inner.kernel().record(&Entry::Sync { at: now, early: true });
        let report = self.inner.sync_early(now);
        self.inner.kernel().record(&Entry::Synced { end: None });
        report
    }

    /// As [`Loop::sync_if_due`].
    pub fn sync_if_due(&mut self, clock: impl Fn() -> Duration) -> Option<SyncReport> {
        let now = clock();
        if self.due()? > now {
            return None;
        }
        self.inner.kernel().record(&Entry::Sync { at: now, early: false });
        let (start, end) = (Cell::new(Some(now)), Cell::new(None));
        let report = self.inner.sync_if_due(|| {
            start.take().unwrap_or_else(|| {
                end.set(Some(clock()));
                end.get().unwrap_or_default()
            })
        });
        self.inner.kernel().record(&Entry::Synced { end: end.get() });
        report
    }
}
