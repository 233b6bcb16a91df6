//! Converts a YAML document to JSON, as `kubectl apply` sends it, and finds the positions of its fields.

use std::fmt;

use serde::{
    Serialize,
    de::{DeserializeSeed, MapAccess, SeqAccess, Visitor},
};
use serde_saphyr::{
    Deserializer, Error, Location, MessageFormatter, Options, UserMessageFormatter, budget::BudgetBreach,
};

pub(super) fn to_json(text: &str) -> Result<String, Error> {
    let mut json = Vec::with_capacity(text.len());
    parse(text, |yaml| Json(&mut json).deserialize(yaml))?;
    Ok(String::from_utf8(json).expect("serde_json writes UTF-8"))
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

struct Json<'a>(&'a mut Vec<u8>);

impl Json<'_> {
    fn write<E: serde::de::Error>(self, value: impl Serialize) -> Result<(), E> {
        serde_json::to_writer(self.0, &value).map_err(E::custom)
    }
}

impl<'de> DeserializeSeed<'de> for Json<'_> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Json<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value of JSON")
    }
    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<(), E> {
        self.write(value)
    }
    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<(), E> {
        self.write(value)
    }
    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<(), E> {
        self.write(value)
    }
    fn visit_i128<E: serde::de::Error>(self, value: i128) -> Result<(), E> {
        self.write(value)
    }
    fn visit_u128<E: serde::de::Error>(self, value: u128) -> Result<(), E> {
        self.write(value)
    }
    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<(), E> {
        self.write(value)
    }
    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<(), E> {
        self.write(value)
    }
    fn visit_unit<E: serde::de::Error>(self) -> Result<(), E> {
        self.write(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        self.0.push(b'[');
        while seq.next_element_seed(Json(self.0))?.is_some() {
            self.0.push(b',');
        }
        close(self.0, b']');
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        self.0.push(b'{');
        while let Some(key) = map.next_key::<String>()? {
            Json(self.0).write(key)?;
            self.0.push(b':');
            map.next_value_seed(Json(self.0))?;
            self.0.push(b',');
        }
        close(self.0, b'}');
        Ok(())
    }
}

/// Replaces the trailing comma.
fn close(json: &mut Vec<u8>, end: u8) {
    json.pop_if(|last| *last == b',');
    json.push(end);
}
