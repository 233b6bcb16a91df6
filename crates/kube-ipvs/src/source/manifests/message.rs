//! The parser's errors, in words for those who wrote the file.

use serde_saphyr::{Error, MessageFormatter, UserMessageFormatter, budget::BudgetBreach};

/// Whether the text is well-formed and a value in it is not what it should be.
pub(super) fn is_about_a_value(error: &Error) -> bool {
    matches!(
        error,
        Error::Message { .. }
            | Error::SerdeInvalidType { .. }
            | Error::SerdeInvalidValue { .. }
            | Error::SerdeMissingField { .. }
            | Error::Unexpected { .. }
            | Error::InvalidScalar { .. }
            | Error::InvalidBooleanStrict { .. }
    )
}

/// The parser's words, with plain words for those that only its authors understand.
pub(super) fn message_of(error: &Error) -> String {
    let message = UserMessageFormatter.format_message(error).into_owned();
    match (error, message.as_str()) {
        (Error::Budget { breach: BudgetBreach::Depth { .. }, .. }, _) | (_, "recursion limit exceeded") => {
            "is nested too deeply".into()
        }
        // An error within an alias is wrapped, so it is known by its words only.
        (_, text) if text.starts_with("YAML document too large or too complex") => {
            "is too large or too complex: do aliases make much of little?".into()
        }
        (_, "expected mapping start") => "expected fields here, such as `name: value`".into(),
        (_, "expected string scalar") => "expected a text here".into(),
        (_, "invalid boolean") => "expected true or false here".into(),
        _ => match message.strip_prefix("invalid type: ").and_then(|rest| rest.split_once(", expected ")) {
            Some(("sequence", wanted)) => format!("this is a list, not {wanted}"),
            Some(("map", wanted)) => format!("this is a mapping, not {wanted}"),
            Some((found, wanted)) => format!("this is {found}, not {wanted}"),
            None => message,
        },
    }
}
