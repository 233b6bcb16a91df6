use std::{process::ExitCode, time::Duration};

use super::{Source, engine, kernel, print, tell};
use crate::source::addresses;

pub(super) fn run(source: &Source) -> anyhow::Result<ExitCode> {
    let configuration = source.configuration()?;
    let mut engine = engine(&configuration)?;
    let changes = source.open(&configuration)?.look()?;
    tell(&changes);
    engine.set_complete(changes.complete);
    changes.events.into_iter().for_each(|event| engine.event(event));
    engine.event(addresses::list()?);
    let mut kernel = kernel(&configuration)?;
    let (plan, skipped) = engine.plan(kernel.look()?, Duration::ZERO);
    kernel.hindrances()?.iter().for_each(|hindrance| eprintln!("kube-ipvs: {hindrance}"));
    for reason in skipped {
        eprintln!("kube-ipvs: {reason}");
    }
    print(&plan)?;
    Ok(ExitCode::from(u8::from(!plan.is_empty())))
}
