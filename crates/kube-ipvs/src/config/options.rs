//! The command line: flags of kube-proxy and kube-ipvs, and the file that replaces kube-proxy's flags.

use std::{fmt::Display, fs, net::SocketAddr, path::PathBuf, str::FromStr};

use anyhow::{Context, anyhow, ensure};
use clap::{Arg, ArgMatches, Args, Command, FromArgMatches, error::ErrorKind};

use super::{Configuration, Listen, OwnFlags, file, listen, retired, text::join, without_effect};

/// Whether a flag counts beside `--config`. All flags that only kube-ipvs has do, because the file has no field for
/// them.
fn counts_beside_file(flag: &str) -> bool {
    let own = OwnFlags::augment_args(Command::new("own"));
    ["config", "hostname-override", "master", "logging-format", "v"].contains(&flag)
        || own.get_arguments().any(|arg| arg.get_long() == Some(flag))
}

fn of_its_kind(arg: Arg) -> Arg {
    let value = arg.get_value_names().and_then(|names| names.first()).map(|name| name.to_string());
    match value.as_deref() {
        Some("BOOL") => arg.num_args(0..=1).require_equals(true).default_missing_value("true").hide_default_value(true),
        Some("NUMBER") => arg.allow_negative_numbers(true),
        _ if arg.get_default_values() == [""] => arg.hide_default_value(true),
        _ => arg,
    }
}

/// The parsed flags.
#[derive(Debug, Clone)]
pub struct Options {
    flags: Flags,
    matches: ArgMatches,
}

#[derive(Debug, Clone, clap::Args)]
struct Flags {
    /// A file of kind KubeProxyConfiguration; it replaces kube-proxy's flags
    #[arg(id = "config", long, value_name = "FILE")]
    file: Option<PathBuf>,

    #[command(flatten)]
    configuration: Configuration,

    /// Deprecated
    #[arg(id = "healthz-port", long, hide = true)]
    healthz_port: Option<u16>,

    /// Deprecated
    #[arg(id = "metrics-port", long, hide = true)]
    metrics_port: Option<u16>,
}

/// The configuration, and messages about the flags and the file.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LoadedConfig {
    /// The configuration.
    pub configuration: Configuration,
    /// Warnings that can surprise the author of the flags or of the file.
    pub warnings: Vec<String>,
    /// Flags, fields, documents and feature gates that have no effect in kube-ipvs.
    pub without_effect: Vec<String>,
    /// All flags with their given or default values. A file does not change them.
    pub flags: Vec<(String, String)>,
    /// The path and content of the file, if given.
    pub file: Option<(PathBuf, String)>,
}

impl Options {
    /// Reads the file, if given, and merges it with the flags.
    ///
    /// # Errors
    ///
    /// When the file cannot be read, or when a value in it or in the flags is not allowed.
    pub fn resolve(&self) -> anyhow::Result<LoadedConfig> {
        let mut resolved = match &self.flags.file {
            Some(path) => self.by_file(path.clone())?,
            None => LoadedConfig { configuration: self.by_flags(), ..LoadedConfig::default() },
        };
        let problems = resolved.configuration.problems();
        let in_file = self.flags.file.iter().map(|path| format!("{}: ", path.display())).collect::<String>();
        ensure!(problems.is_empty(), "{in_file}{}", problems.join("; "));
        resolved.flags = names().map(|name| (name.clone(), value(&self.matches, &name))).collect();
        resolved.warnings.extend(retired::given(&self.matches));
        resolved.without_effect.extend(without_effect::given(&self.matches));
        let gates = resolved.configuration.feature_gates.without_effect();
        resolved.without_effect.extend(gates.map(|gate| format!("the feature gate {gate}")));
        Ok(resolved)
    }

    fn by_flags(&self) -> Configuration {
        let mut configuration = self.flags.configuration.clone();
        let bind = configuration.bind_address;
        // The port in the address wins, as in kube-proxy.
        let at = |listen: Listen, port, usual| match (listen, port) {
            (_, Some(0)) => Listen::Disabled,
            (Listen::Address(address), Some(port)) => Listen::Socket(SocketAddr::new(address, port)),
            (Listen::Default, Some(port)) => {
                let at = Listen::Default.resolve(bind, usual);
                at.map_or(Listen::Disabled, |at| Listen::Socket(SocketAddr::new(at.ip(), port)))
            }
            (listen, _) => listen,
        };
        let Configuration { healthz_bind_address: healthz, metrics_bind_address: metrics, .. } = &mut configuration;
        *healthz = at(*healthz, self.flags.healthz_port, &listen::HEALTHZ);
        *metrics = at(*metrics, self.flags.metrics_port, &listen::METRICS);
        configuration
    }

    fn by_file(&self, path: PathBuf) -> anyhow::Result<LoadedConfig> {
        let name = path.display().to_string();
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {name}"))?;
        let file = file::read(&text).map_err(|error| anyhow!("{name}: {error}"))?;
        let flags = &self.flags.configuration;
        let mut configuration = Configuration { own: flags.own.clone(), ..file.configuration };
        configuration.client_connection.master.clone_from(&flags.client_connection.master);
        if flags.hostname_override.given().is_some() {
            configuration.hostname_override.clone_from(&flags.hostname_override);
        }
        if without_effect::is_given(&self.matches, "logging-format") {
            configuration.logging.format = flags.logging.format;
        }
        if without_effect::is_given(&self.matches, "v") {
            configuration.logging.verbosity = flags.logging.verbosity;
        }
        let mut warnings = Vec::new();
        let ignored = self.given().filter(|flag| !counts_beside_file(flag));
        let ignored: Vec<String> = ignored.map(|flag| format!("--{flag}")).collect();
        if !ignored.is_empty() {
            warnings.push(format!("kube-ipvs ignores these flags because --config is set: {}", ignored.join(", ")));
        }
        warnings.extend(file.retired.iter().map(|retired| format!("{name}: {retired}")));
        if !file.unknown.is_empty() {
            warnings.push(format!("{name}: kube-ipvs ignores these unknown fields: {}", file.unknown.join(", ")));
        }
        Ok(LoadedConfig {
            configuration,
            warnings,
            without_effect: file.without_effect,
            flags: Vec::new(),
            file: Some((path, text)),
        })
    }

    /// Whether a flag with an effect is given.
    pub fn is_given(&self) -> bool {
        self.given().next().is_some()
    }

    /// Whether `--config` is given.
    pub fn has_file(&self) -> bool {
        self.flags.file.is_some()
    }

    fn given(&self) -> impl Iterator<Item = String> {
        names().filter(|name| without_effect::is_given(&self.matches, name))
    }
}

/// The names of all flags with an effect.
fn names() -> impl Iterator<Item = String> {
    let command = Flags::augment_args(Command::new("kube-proxy"));
    command.get_arguments().map(|arg| arg.get_id().to_string()).collect::<Vec<_>>().into_iter()
}

fn value(matches: &ArgMatches, flag: &str) -> String {
    join(matches.get_raw(flag).into_iter().flatten().map(|text| text.to_string_lossy()))
}

/// Parses a repeated list flag as one list, as kube-proxy does.
fn joined<T: FromStr<Err: Display>>(matches: &ArgMatches, flag: &str) -> Result<T, clap::Error> {
    value(matches, flag).parse().map_err(|error| clap::Error::raw(ErrorKind::ValueValidation, error))
}

impl FromArgMatches for Options {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut flags = Flags::from_arg_matches(matches)?;
        let lists = &mut flags.configuration;
        lists.node_port_addresses = joined(matches, "nodeport-addresses")?;
        lists.ipvs.exclude_cidrs = joined(matches, "ipvs-exclude-cidrs")?;
        lists.feature_gates = joined(matches, "feature-gates")?;
        Ok(Self { flags, matches: matches.clone() })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Args for Options {
    fn augment_args(command: Command) -> Command {
        let command = Flags::augment_args(command).mut_args(of_its_kind);
        retired::augment(without_effect::augment(command)).args_override_self(true)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}
