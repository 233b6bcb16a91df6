//! JSON to the types of the API.

use serde::Deserialize;

use crate::{Invalid, remarks::cut_to};

/// How many characters of a message or a path are kept.
const MAX_MESSAGE: usize = 256;

/// Reads a value of another type as [`Object::read`](crate::Object::read) reads objects: an error names the field, in
/// the words of people who write manifests.
///
/// # Errors
///
/// The first field that cannot be read, and why.
pub fn from_json<'a, T: Deserialize<'a>>(json: &'a str) -> Result<T, Invalid> {
    serde_json::from_str(json).map_err(|_| reason::<T>(json))
}

/// Reads once more, keeping track of the field at which it fails. That costs too much to do it always.
fn reason<'a, T: Deserialize<'a>>(json: &'a str) -> Invalid {
    match serde_path_to_error::deserialize::<_, T>(&mut serde_json::Deserializer::from_str(json)) {
        Ok(_) => Invalid::new("", "cannot be read"),
        Err(error) => {
            let path = error.path().to_string();
            let path = if path == "." { "" } else { &path };
            let message = error.into_inner().to_string();
            // A place within one line of JSON that the operator does not see.
            let message = message.rsplit_once(" at line ").map_or(&*message, |(message, _)| message);
            // The author of an object decides how long keys of maps are, and the values that messages quote.
            Invalid::new(cut_to(MAX_MESSAGE, path), cut_to(MAX_MESSAGE, &plain(message)))
        }
    }
}

/// The parser's words in those of people who write manifests.
fn plain(message: &str) -> String {
    let Some((found, wanted)) = message.strip_prefix("invalid type: ").and_then(|rest| rest.split_once(", expected "))
    else {
        return message.into();
    };
    let found = match found {
        "sequence" => "a list",
        "map" => "a mapping",
        found => found,
    };
    let wanted = match wanted {
        "a sequence" => "a list",
        "a map" => "a mapping: fields such as `name: value`",
        wanted if wanted.starts_with("struct ") => "a mapping: fields such as `name: value`",
        wanted => wanted,
    };
    format!("this is {found}, not {wanted}")
}
