//! Decodes JSON into the types of the API.

use serde::Deserialize;

use crate::{Invalid, remarks::cut_to};

const MAX_MESSAGE: usize = 256;

/// Decodes a value of another type as [`Object::read`](crate::Object::read) decodes objects: an error names the field,
/// in the words of people who write manifests.
///
/// # Errors
///
/// The first field that cannot be decoded, and why.
pub fn from_json<'a, T: Deserialize<'a>>(json: &'a str) -> Result<T, Invalid> {
    serde_json::from_str(json).map_err(|_| reason::<T>(json))
}

/// Decodes again and tracks the path of the failing field. That costs too much for every object.
fn reason<'a, T: Deserialize<'a>>(json: &'a str) -> Invalid {
    match serde_path_to_error::deserialize::<_, T>(&mut serde_json::Deserializer::from_str(json)) {
        Ok(_) => Invalid::new("", "cannot be read"),
        Err(error) => {
            let path = error.path().to_string();
            let path = if path == "." { "" } else { &path };
            let message = error.into_inner().to_string();
            // The position is within one line of JSON that the operator does not see.
            let message = message.rsplit_once(" at line ").map_or(&*message, |(message, _)| message);
            // The author of an object controls the length of map keys and of the values that messages quote.
            Invalid::new(cut_to(MAX_MESSAGE, path), cut_to(MAX_MESSAGE, &plain(message)))
        }
    }
}

/// Translates the parser's message into the words of people who write manifests.
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
        "a map" => "a mapping with fields such as `name: value`",
        wanted if wanted.starts_with("struct ") => "a mapping with fields such as `name: value`",
        wanted => wanted,
    };
    format!("this is {found}, not {wanted}")
}
