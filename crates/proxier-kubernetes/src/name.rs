//! Names of objects and of ports, as Kubernetes validates them.

use std::sync::Arc;

use serde::{Deserialize, Deserializer};

use crate::{remarks::quoted, scalar::text};

/// A DNS label (RFC 1123): 1 to 63 lower-case letters, digits and hyphens, no hyphen at either end.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Label(pub(crate) Arc<str>);

impl<'de> Deserialize<'de> for Label {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text(deserializer, "a name", |name| match is_label(name) {
            true => Ok(Self(name.into())),
            false => Err(format!(
                "{} is not a valid name: use 1 to 63 lower-case letters, digits and '-', without '-' at either end",
                quoted(name)
            )),
        })
    }
}

/// A DNS subdomain (RFC 1123): labels joined by dots, at most 253 characters.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Subdomain(pub(crate) Arc<str>);

impl<'de> Deserialize<'de> for Subdomain {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text(deserializer, "a name", |name| match is_subdomain(name) {
            true => Ok(Self(name.into())),
            false => Err(format!(
                "{} is not a valid name: use 1 to 253 lower-case letters, digits, '-' and '.', without '-' or '.' at \
                 either end",
                quoted(name)
            )),
        })
    }
}

/// A port's name: a label, or empty.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct PortName(pub(crate) Arc<str>);

impl<'de> Deserialize<'de> for PortName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text(deserializer, "the name of a port", |name| match name.is_empty() || is_label(name) {
            true => Ok(Self(name.into())),
            false => Err(format!(
                "{} is not a valid name of a port: use at most 63 lower-case letters, digits and '-', without '-' at \
                 either end",
                quoted(name)
            )),
        })
    }
}

pub(crate) fn is_label(name: &str) -> bool {
    let allowed = |byte: &u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
    (1..=63).contains(&name.len())
        && name.as_bytes().iter().all(allowed)
        && !name.starts_with('-')
        && !name.ends_with('-')
}

pub(crate) fn is_subdomain(name: &str) -> bool {
    // Labels can be longer than 63: Kubernetes limits only the whole name.
    let allowed = |byte: &u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.');
    (1..=253).contains(&name.len())
        && name.as_bytes().iter().all(allowed)
        && name.split('.').all(|part| !part.is_empty() && !part.starts_with('-') && !part.ends_with('-'))
}
