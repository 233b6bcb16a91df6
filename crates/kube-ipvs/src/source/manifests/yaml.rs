//! Converts a YAML document to JSON, as `kubectl apply` sends it, and finds the positions of its fields.

use serde::{Deserialize as _, de::Error as _};
use serde_json::Value;
use serde_saphyr::{
    Deserializer, Error, Location, MessageFormatter, Options, UserMessageFormatter, budget::BudgetBreach,
};
use serde_transcode::Transcoder;

pub(super) fn to_json(text: &str) -> Result<String, Error> {
    let mut json = Vec::with_capacity(text.len());
    let written = parse(text, |yaml| serde_json::to_writer(&mut json, &Transcoder::new(yaml)).map_err(Error::custom));
    match written {
        Ok(()) => Ok(String::from_utf8(json).expect("serde_json writes UTF-8")),
        // An error of the JSON writer has no position in the text.
        Err(error) => Err(parse(text, |yaml| Value::deserialize(yaml)).err().unwrap_or(error)),
    }
}

pub(super) fn parse<'de, R>(
    text: &'de str,
    read: impl for<'e> FnOnce(Deserializer<'de, 'e>) -> Result<R, Error>,
) -> Result<R, Error> {
    serde_saphyr::with_deserializer_from_str_with_options(text, options(), read)
}

/// Aliases can expand a small text into much data, so their limits are tight. The file size bounds everything else.
fn options() -> Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_events: usize::MAX,
            max_nodes: usize::MAX,
            max_total_scalar_bytes: usize::MAX,
            max_total_comment_bytes: usize::MAX,
            max_buffered_comment_events: 10_000,
            max_aliases: 1_000,
            max_anchors: 1_000,
            max_merge_keys: 1_000,
            max_recorded_anchor_events: 100_000,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: 100_000,
            max_replay_stack_depth: 8,
        },
        with_snippet: false,
    }
}

pub(super) fn reason(error: &Error) -> (Option<Location>, String) {
    let error = error.without_snippet();
    let message = UserMessageFormatter.format_message(error).into_owned();
    let message = match (error, message.as_str()) {
        (Error::Budget { breach: BudgetBreach::Depth { .. }, .. }, _) | (_, "recursion limit exceeded") => {
            "is nested too deeply".into()
        }
        // serde_saphyr wraps an error within an alias, so only its text identifies it.
        (_, text) if text.starts_with("YAML document too large or too complex") => {
            "is too large or too complex: check its aliases".into()
        }
        _ => message,
    };
    (error.location(), message)
}
