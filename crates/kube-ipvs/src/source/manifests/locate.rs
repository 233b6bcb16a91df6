//! Finds the position of a field in a document.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, Error, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_saphyr::{Location, Spanned};

use super::yaml;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    Key(String),
    Index(usize),
}

pub(super) fn steps(path: &str) -> Vec<Step> {
    let parts = path.split(['.', '[']).filter(|part| !part.is_empty());
    parts
        .map(|part| match part.strip_suffix(']').and_then(|index| index.parse().ok()) {
            Some(index) => Step::Index(index),
            None => Step::Key(part.into()),
        })
        .collect()
}

/// The position of the field, or of the nearest enclosing field if it is missing.
pub(super) fn locate(text: &str, path: &[Step]) -> Option<Location> {
    (0..=path.len()).rev().find_map(|length| {
        let mut found = None;
        // The seed stops the parser with an error at the field, so the result carries no information.
        let _ = yaml::parse(text, |deserializer| {
            Locate { path: &path[..length], found: &mut found }.deserialize(deserializer)
        });
        found
    })
}

/// Skips the value. It can be large, and its position is enough.
struct Untouched;

impl<'de> Deserialize<'de> for Untouched {
    fn deserialize<D: Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        Ok(Self)
    }
}

struct Locate<'a> {
    path: &'a [Step],
    found: &'a mut Option<Location>,
}

impl<'de> DeserializeSeed<'de> for Locate<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        if self.path.is_empty() {
            *self.found = Some(Spanned::<Untouched>::deserialize(deserializer)?.referenced);
            return Err(D::Error::custom("found"));
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Locate<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a mapping or a list")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<String>()? {
            match self.path.split_first() {
                Some((Step::Key(wanted), rest)) if *wanted == key => {
                    return map.next_value_seed(Locate { path: rest, found: self.found });
                }
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let Some((Step::Index(wanted), rest)) = self.path.split_first() else {
            return Err(A::Error::custom("no list is on the path"));
        };
        for _ in 0..*wanted {
            seq.next_element::<IgnoredAny>()?;
        }
        seq.next_element_seed(Locate { path: rest, found: self.found }).map(|_| ())
    }
}
