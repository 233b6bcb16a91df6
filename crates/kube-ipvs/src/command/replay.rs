use std::{fs, path::PathBuf, process::ExitCode};

use anyhow::Context;

use super::print;
use crate::recording;

#[derive(Debug, clap::Args)]
pub(super) struct Replay {
    /// The recording
    file: PathBuf,
    /// Print the recording with other names and addresses, instead of the plans
    #[arg(long)]
    anonymous: bool,
    /// Print the recording up to the first plan that differs, with the plan of this version, instead of the plans
    #[arg(long, conflicts_with = "anonymous")]
    accept: bool,
}

impl Replay {
    pub(super) fn run(&self) -> anyhow::Result<ExitCode> {
        let read = || -> anyhow::Result<_> {
            let text = fs::read_to_string(&self.file)?;
            Ok((recording::replay(&recording::read(&text)?)?, text))
        };
        let (replay, text) = read().with_context(|| self.file.display().to_string())?;
        let accepted = replay.difference.as_ref().filter(|_| self.accept).map(|difference| difference.accept(&text));
        match accepted {
            Some(accepted) => print(accepted?)?,
            None if self.accept => print(text)?,
            None if self.anonymous => print(recording::anonymous(&text)?)?,
            None => {
                for (at, plan) in &replay.plans {
                    print(format_args!("at {at:?}:\n{plan}"))?;
                }
            }
        }
        let Some(difference) = replay.difference else { return Ok(ExitCode::SUCCESS) };
        eprint!("kube-ipvs: {difference}");
        Ok(ExitCode::FAILURE)
    }
}
