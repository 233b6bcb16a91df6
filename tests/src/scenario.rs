//! How a scenario runs: on a cluster of its own, within a time limit, with a full account when it fails.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;

use anyhow::{Result, bail};

use crate::cluster::{Cluster, ClusterBuilder};

/// What a scenario ends with.
pub type TestResult = Result<()>;

/// Makes the cluster, runs `work` on it and takes it down. When `work` fails, panics or does not end in time, the
/// daemons' logs and the kernel's state are printed first.
pub fn scenario(
    builder: ClusterBuilder,
    work: impl FnOnce(&mut Cluster) -> TestResult + Send + 'static,
) -> TestResult {
    let limit = builder.deadline;
    let mut cluster = builder.build()?;
    let diagnosis = cluster.diagnosis();
    let (tell, told) = channel();
    // Its own thread, so that the time limit holds whatever the scenario waits for.
    let thread = thread::Builder::new().name("scenario".into()).spawn(move || {
        let result = catch_unwind(AssertUnwindSafe(|| work(&mut cluster)));
        // The reason comes first: what follows it is long, and who keeps the output may keep only its beginning.
        if let Ok(Err(error)) = &result {
            eprintln!("════ failed: {error:?}");
        }
        if !matches!(result, Ok(Ok(()))) {
            cluster.diagnosis().print();
        }
        drop(cluster);
        let _ = tell.send(());
        result
    })?;
    match told.recv_timeout(limit) {
        Ok(()) | Err(RecvTimeoutError::Disconnected) => match thread.join() {
            Ok(Ok(result)) => result,
            Ok(Err(panic)) | Err(panic) => resume_unwind(panic),
        },
        Err(RecvTimeoutError::Timeout) => {
            diagnosis.print();
            bail!("the scenario did not end within {limit:?}");
        }
    }
}
