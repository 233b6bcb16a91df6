use serde::{Deserialize, Serialize};

use super::{BoundedInt, text};

/// `logging`. Flags override the file.
#[derive(Debug, Clone, PartialEq, clap::Args, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Logging {
    /// Log format: text or json
    #[arg(id = "logging-format", long, value_name = "text|json", default_value = "text")]
    #[serde(with = "text")]
    pub format: LogFormat,

    /// Log verbosity; from 4 on, kube-ipvs logs each change that it makes
    #[arg(id = "v", long, short, value_name = "NUMBER", default_value = "0")]
    pub verbosity: BoundedInt<0, { i32::MAX }>,
}

/// The format of log lines.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// Text for people.
    #[default]
    Text,
    /// One JSON object per line, for programs.
    Json,
}

words!(LogFormat is "not a log format: use text or json": Text = "text", Json = "json");
