use serde::{Deserialize, Serialize};

use super::{BoundedInt, text};

/// `logging`. The flags win over the file.
#[derive(Debug, Clone, PartialEq, clap::Args, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Logging {
    /// How log lines look: text or json
    #[arg(id = "logging-format", long, value_name = "text|json", default_value = "text")]
    #[serde(with = "text")]
    pub format: LogFormat,

    /// How much is logged: from 4 on each change that is made
    #[arg(id = "v", long, short, value_name = "NUMBER", default_value = "0")]
    pub verbosity: BoundedInt<0, { i32::MAX }>,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// For programs: an object a line.
    Json,
}

words!(LogFormat is "not a format of logs: allowed are text and json": Text = "text", Json = "json");
