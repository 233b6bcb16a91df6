//! Lists of a limited length.

use std::{fmt, marker::PhantomData, ops::Deref};

use serde::{
    Deserialize, Deserializer,
    de::{Error, IgnoredAny, SeqAccess, Visitor},
};

use crate::Invalid;

/// A list of at most `MAX` entries. A longer list is an error. `null` is the empty list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Bounded<T, const MAX: usize>(Vec<T>);

impl<T, const MAX: usize> Default for Bounded<T, MAX> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T, const MAX: usize> Deref for Bounded<T, MAX> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<'de, T: Deserialize<'de>, const MAX: usize> Deserialize<'de> for Bounded<T, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match FirstOf::<T, MAX>::deserialize(deserializer)? {
            FirstOf { entries, more: 0 } => Ok(Self(entries)),
            _ => Err(D::Error::custom(format_args!("too many entries: at most {MAX} are allowed"))),
        }
    }
}

/// The first `MAX` entries of a list, and how many more there were.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FirstOf<T, const MAX: usize> {
    pub(crate) entries: Vec<T>,
    pub(crate) more: usize,
}

impl<T, const MAX: usize> Default for FirstOf<T, MAX> {
    fn default() -> Self {
        Self { entries: Vec::new(), more: 0 }
    }
}

impl<T, const MAX: usize> FirstOf<T, MAX> {
    /// The reason to report for this field, if entries were left out.
    pub(crate) fn cut(&self, field: &str) -> Option<Invalid> {
        let too_many = || Invalid::new(field, format!("too many entries: at most {MAX} are allowed"));
        (self.more > 0).then(too_many)
    }
}

impl<'de, T: Deserialize<'de>, const MAX: usize> Deserialize<'de> for FirstOf<T, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries<T, const MAX: usize>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for Entries<T, MAX> {
            type Value = FirstOf<T, MAX>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }
            fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
                Ok(FirstOf::default())
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                let mut first = FirstOf::default();
                while first.entries.len() < MAX {
                    match list.next_element()? {
                        Some(entry) => first.entries.push(entry),
                        None => return Ok(first),
                    }
                }
                while list.next_element::<IgnoredAny>()?.is_some() {
                    first.more += 1;
                }
                Ok(first)
            }
        }
        deserializer.deserialize_any(Entries(PhantomData))
    }
}
