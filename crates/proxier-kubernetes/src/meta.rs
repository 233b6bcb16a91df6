use std::{collections::BTreeMap, ops::Bound};

use proxier::model::Timestamp;
use serde::{Deserialize, Deserializer, de::Error};

use crate::{
    Invalid, Key, Kind,
    name::{Label, Subdomain, is_label},
    remarks::quoted,
    scalar::text,
};

/// The label of Services and EndpointSlices that another proxy serves.
pub const SERVICE_PROXY_NAME: &str = "service.kubernetes.io/service-proxy-name";
/// The label of headless Services and of their EndpointSlices.
///
/// A proxy can exclude both from its lists and watches with the label selector `!{HEADLESS},!{SERVICE_PROXY_NAME}`.
pub const HEADLESS: &str = "service.kubernetes.io/headless";

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Meta {
    name: Option<Subdomain>,
    generate_name: Option<serde::de::IgnoredAny>,
    namespace: Option<Label>,
    #[serde(default)]
    labels: Option<BTreeMap<String, Option<String>>>,
    #[serde(default)]
    annotations: Option<BTreeMap<String, Option<String>>>,
    creation_timestamp: Option<Moment>,
    deletion_timestamp: Option<serde::de::IgnoredAny>,
}

impl Meta {
    /// Only an API server generates a name, so `name` is required.
    fn name(&self) -> Result<&Subdomain, Invalid> {
        match (&self.name, &self.generate_name) {
            (Some(name), _) => Ok(name),
            (None, Some(_)) => Err(Invalid::new(
                "metadata.generateName",
                "is not supported here: only an API server can generate names. Set metadata.name",
            )),
            (None, None) => Err(Invalid::new("metadata.name", "is missing")),
        }
    }

    /// The name of a Service must be a DNS label.
    pub(crate) fn key(&self, kind: Kind) -> Result<Key, Invalid> {
        let name = self.name()?;
        if kind == Kind::Service && !is_label(&name.0) {
            let message = format!(
                "{} is not a valid name of a Service: use at most 63 lower-case letters, digits and '-'",
                quoted(&name.0)
            );
            return Err(Invalid::new("metadata.name", message));
        }
        let namespace = match &self.namespace {
            _ if !kind.is_namespaced() => "".into(),
            Some(namespace) => namespace.0.clone(),
            None => "default".into(),
        };
        Ok(Key { kind, namespace, name: name.0.clone() })
    }

    pub(crate) fn label(&self, key: &str) -> Option<&str> {
        let value = self.labels.as_ref()?.get(key)?;
        Some(value.as_deref().unwrap_or_default())
    }

    pub(crate) fn annotation(&self, key: &str) -> Option<&str> {
        let value = self.annotations.as_ref()?.get(key)?;
        Some(value.as_deref().unwrap_or_default())
    }

    /// The annotations whose names begin with `prefix`: the rest of each name, and the value.
    pub(crate) fn annotations_of(&self, prefix: &str) -> impl Iterator<Item = (&str, &str)> {
        let from = (Bound::Included(prefix), Bound::Unbounded);
        let annotations = self.annotations.iter().flat_map(move |all| all.range::<str, _>(from));
        annotations
            .map_while(move |(name, value)| Some((name.strip_prefix(prefix)?, value.as_deref().unwrap_or_default())))
    }

    /// Whether its labels exclude it from this proxy.
    pub(crate) fn is_foreign(&self) -> bool {
        [SERVICE_PROXY_NAME, HEADLESS].iter().any(|label| self.label(label).is_some())
    }

    /// Whether it is being deleted and waits for finalizers.
    pub(crate) fn is_being_deleted(&self) -> bool {
        self.deletion_timestamp.is_some()
    }

    /// `creationTimestamp`; 0 if it is absent.
    pub(crate) fn created(&self) -> Timestamp {
        self.creation_timestamp.as_ref().map_or(0, |moment| moment.0)
    }
}

/// A date and time (RFC 3339), in seconds.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Moment(Timestamp);

impl<'de> Deserialize<'de> for Moment {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        const EXAMPLE: &str = "2026-01-31T12:00:00Z";
        let moment = text(deserializer, "a time", |value| Ok(value.to_owned()))?;
        match moment.parse::<jiff::Timestamp>() {
            Ok(parsed) => Ok(Self(parsed.as_second())),
            Err(_) => Err(D::Error::custom(format_args!("{} is not a time such as {EXAMPLE}", quoted(&moment)))),
        }
    }
}
