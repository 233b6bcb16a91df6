mod file;
mod flags;
mod manifests;
mod rejected_flags;

use clap::Parser;

use super::*;

#[derive(Debug, Parser)]
#[command(name = "kube-ipvs")]
struct Cli {
    #[command(flatten)]
    options: Options,
}

fn resolve(line: &str) -> Result<LoadedConfig, String> {
    let words = std::iter::once("kube-ipvs").chain(line.split_whitespace());
    let cli = Cli::try_parse_from(words).map_err(|error| {
        // clap ends each error with a pointer to --help.
        error.to_string().split("\n\nFor more").next().unwrap().trim_end().to_owned()
    })?;
    cli.options.resolve().map_err(|error| format!("{error:#}"))
}

fn parse(line: &str) -> Configuration {
    resolve(line).unwrap().configuration
}

/// The lines of the written configuration that differ from the defaults.
fn beyond_defaults(configuration: &Configuration) -> String {
    let defaults = write(&Configuration::default()).unwrap();
    let defaults: Vec<&str> = defaults.lines().collect();
    let text = write(configuration).unwrap();
    let lines = text.lines().filter(|line| !defaults.contains(line));
    lines.map(|line| format!("{}\n", line.trim_start())).collect()
}
