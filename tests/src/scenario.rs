//! Runs a scenario on its own cluster, with a limit for hangs and a full report of a failure.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;

use anyhow::{Result, bail};

use crate::cluster::{Cluster, ClusterBuilder};
use crate::mark;
use crate::wait::patience_of_scenario;

/// The result of a scenario.
pub type TestResult = Result<()>;

/// Creates the cluster, runs `work` on it and deletes it. If `work` fails, panics or hangs, the daemons' logs and the
/// kernel's state are printed first.
pub fn scenario(builder: ClusterBuilder, work: impl FnOnce(&mut Cluster) -> TestResult + Send + 'static) -> TestResult {
    mark::begun();
    let result = run(builder, work);
    if let Err(error) = &result {
        mark::failed(error);
    }
    result
}

fn run(builder: ClusterBuilder, work: impl FnOnce(&mut Cluster) -> TestResult + Send + 'static) -> TestResult {
    let limit = patience_of_scenario();
    let mut cluster = builder.build()?;
    let diagnosis = cluster.diagnosis();
    let (done, finished) = channel();
    // A separate thread, so that the limit holds whatever the scenario waits for.
    let thread = thread::Builder::new().name("scenario".into()).spawn(move || {
        let result = catch_unwind(AssertUnwindSafe(|| work(&mut cluster)));
        // The error comes first: the rest is long, and CI can keep only the beginning of the output.
        if let Ok(Err(error)) = &result {
            eprintln!("════ failed: {error:?}");
        }
        if !matches!(result, Ok(Ok(()))) {
            cluster.diagnosis().print();
        }
        drop(cluster);
        let _ = done.send(());
        result
    })?;
    match finished.recv_timeout(limit) {
        Ok(()) | Err(RecvTimeoutError::Disconnected) => match thread.join() {
            Ok(Ok(result)) => result,
            Ok(Err(panic)) | Err(panic) => {
                mark::panicked(&*panic);
                resume_unwind(panic)
            }
        },
        Err(RecvTimeoutError::Timeout) => {
            diagnosis.print();
            bail!("the scenario hangs: it has not ended within {limit:?}");
        }
    }
}
