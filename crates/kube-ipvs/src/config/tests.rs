mod file;
mod flags;
mod manifests;

use std::time::Duration;

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
        // clap ends every refusal with a pointer to --help.
        error.to_string().split("\n\nFor more").next().unwrap().trim_end().to_owned()
    })?;
    cli.options.resolve().map_err(|error| format!("{error:#}"))
}

fn parse(line: &str) -> Configuration {
    resolve(line).unwrap().configuration
}

/// The lines by which what is written of a configuration differs from the defaults.
fn beyond_defaults(configuration: &Configuration) -> String {
    let defaults = write(&Configuration::default()).unwrap();
    let defaults: Vec<&str> = defaults.lines().collect();
    let text = write(configuration).unwrap();
    let lines = text.lines().filter(|line| !defaults.contains(line));
    lines.map(|line| format!("{}\n", line.trim_start())).collect()
}

#[test]
fn durations_as_go_reads_and_writes_them() {
    let cases = [
        ("0", 0, "0s"),
        ("30s", 30_000_000_000, "30s"),
        ("1m30s", 90_000_000_000, "1m30s"),
        ("500ms", 500_000_000, "500ms"),
        ("1h2m3.5s", 3_723_500_000_000, "1h2m3.5s"),
        ("1.5h", 5_400_000_000_000, "1h30m0s"),
        (".5s", 500_000_000, "500ms"),
        ("+1s", 1_000_000_000, "1s"),
        ("-0s", 0, "0s"),
        ("1s1ns", 1_000_000_001, "1.000000001s"),
        ("15µs", 15_000, "15µs"),
        ("0.3333333333333333333h", 1_200_000_000_000 - 1, "19m59.999999999s"),
    ];
    for (text, nanoseconds, written) in cases {
        let duration = parse_go_duration(text).unwrap();
        assert_eq!(duration, Duration::from_nanos(nanoseconds), "{text}");
        assert_eq!(format_go_duration(duration), written, "{text}");
    }
    for text in ["", "s", "1", "1.5", ".s", "1d", "1 s", "1s2", "--1s", "3000000h", "99999999999999999999h"] {
        assert!(parse_go_duration(text).is_err(), "{text}");
    }
}
