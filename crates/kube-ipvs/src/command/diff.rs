use std::{process::ExitCode, time::Duration};

use proxier::kernel::Kernel;

use super::{Source, print, tell};
use crate::source::addresses;

pub(super) fn run(source: &Source) -> anyhow::Result<ExitCode> {
    let mut engine = source.engine()?;
    let changes = source.open()?.scan();
    tell(&changes);
    engine.set_complete(changes.complete);
    changes.events.into_iter().for_each(|event| engine.event(event));
    engine.event(addresses::list()?);
    let (plan, skipped) = engine.plan(source.kernel()?.observe()?, Duration::ZERO);
    for reason in skipped {
        eprintln!("kube-ipvs: {reason}");
    }
    print(&plan)?;
    Ok(ExitCode::from(u8::from(!plan.is_empty())))
}
