use std::{process::ExitCode, time::Duration};

use super::{
    kernel, print,
    query::{Answer, Query},
};
use crate::events::with_hint;

pub(super) fn run(query: &Query) -> anyhow::Result<ExitCode> {
    let Answer { configuration, mut engine, .. } = query.ask()?;
    let mut kernel = kernel(engine.config(), configuration.kernel())?;
    let (plan, skipped) = engine.plan(kernel.inspect()?, Duration::ZERO);
    kernel.dropping_chains()?.iter().for_each(|chain| eprintln!("kube-ipvs: {chain}"));
    for reason in &skipped {
        eprintln!("kube-ipvs: {}", with_hint(reason));
    }
    print(&plan)?;
    Ok(ExitCode::from(u8::from(!plan.is_empty())))
}
