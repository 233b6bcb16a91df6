//! The configuration file: `KubeProxyConfiguration` of `kubeproxy.config.k8s.io/v1alpha1`.

use std::fmt;

use serde::Serialize;
use serde_json::Value;

use super::{ClientConnection, Configuration, GoDuration, Ipvs, Listen, retired, without_effect};

const API_VERSION: &str = "kubeproxy.config.k8s.io/v1alpha1";
const KIND: &str = "KubeProxyConfiguration";
const OTHER_COMPONENTS: [&str; 3] = ["kubeadm.k8s.io", "kubelet.config.k8s.io", "kubescheduler.config.k8s.io"];

/// The content of a configuration file.
#[derive(Debug, Clone, PartialEq)]
pub struct File {
    /// The configuration, with defaults for the fields that the file leaves out.
    pub configuration: Configuration,
    /// Fields that kube-proxy does not have.
    pub unknown: Vec<String>,
    /// Warnings about fields that only older releases of kube-proxy have.
    pub retired: Vec<String>,
    /// Fields and documents that have no effect in kube-ipvs.
    pub without_effect: Vec<String>,
}

/// Parses a configuration file.
///
/// # Errors
///
/// When the text is neither YAML nor JSON, lacks a single `KubeProxyConfiguration`, or has an unknown kind or an
/// invalid value. The error for a value begins with the path of its field.
pub fn read(text: &str) -> Result<File, String> {
    let options = serde_saphyr::options! { duplicate_keys: serde_saphyr::DuplicateKeyPolicy::LastWins };
    let documents = serde_saphyr::from_multiple_with_options(text, options)
        .map_err(|error| format!("is neither YAML nor JSON: {error}"))?;
    let (mut value, others) = pick(documents)?;
    let retired = retired::take(&mut value);
    let mut without_effect = without_effect::take(&mut value);
    prune(&mut value);
    let mut unknown = Vec::new();
    let mut track = serde_path_to_error::Track::new();
    let tracked = serde_path_to_error::Deserializer::new(value, &mut track);
    let read = serde_ignored::deserialize(tracked, |path| unknown.push(path.to_string()));
    let mut configuration: Configuration =
        read.map_err(|error| format!("{}: {}", track.path(), words(&error.to_string())))?;
    configuration.fill_in();
    without_effect.extend(others);
    Ok(File { configuration, unknown, retired, without_effect })
}

/// Writes a configuration as a file.
///
/// # Errors
///
/// When a value cannot be serialized. No such value is known.
pub fn write(configuration: &Configuration) -> Result<String, serde_saphyr::SerializeError> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Document<'a> {
        api_version: &'static str,
        kind: &'static str,
        #[serde(flatten)]
        configuration: &'a Configuration,
    }
    let configuration = &configuration.with_listen_addresses();
    serde_saphyr::to_string(&Document { api_version: API_VERSION, kind: KIND, configuration })
}

/// Replaces serde's type names in an error by plain words.
fn words(message: &str) -> String {
    let mismatch = message.strip_prefix("invalid type: ").and_then(|rest| rest.split_once(", expected "));
    let Some((found, wanted)) = mismatch else { return message.to_owned() };
    let wanted = match wanted {
        "a string" => "a text",
        "a boolean" => "true or false",
        "a sequence" => "a list",
        "i64" => "a whole number",
        "f32" => "a number",
        _ if wanted.starts_with("struct ") => "a mapping of fields",
        _ => wanted,
    };
    format!("this is {found}: it must be {wanted}")
}

/// Returns kube-proxy's document, and the names of documents for other components: kubeadm's file holds them together.
fn pick(documents: Vec<Value>) -> Result<(Value, Vec<String>), String> {
    let (mut ours, mut others) = (None, Vec::new());
    for mut document in documents {
        let [version, kind] = take_kind(&mut document)?;
        if version == API_VERSION && kind == KIND {
            if ours.replace(document).is_some() {
                return Err(format!("has more than one {KIND}: keep one"));
            }
        } else if version.split('/').next().is_some_and(|group| OTHER_COMPONENTS.contains(&group)) {
            others.push(format!("the document {kind}"));
        } else {
            return Err(other(format_args!("the kind {kind:?} of the API version {version:?}")));
        }
    }
    match ours {
        Some(ours) => Ok((ours, others)),
        None if others.is_empty() => Err(other("no fields")),
        None => Err(other(format_args!("only {}", others.join(", ")))),
    }
}

fn other(found: impl fmt::Display) -> String {
    format!("has {found}: it must have one {KIND} of {API_VERSION}")
}

/// Removes `apiVersion` and `kind` from a document, so that they do not count as unknown settings.
fn take_kind(document: &mut Value) -> Result<[String; 2], String> {
    let Some(fields) = document.as_object_mut() else {
        return Err(other("no fields"));
    };
    Ok(["apiVersion", "kind"].map(|key| match fields.remove(key) {
        Some(Value::String(text)) => text,
        _ => String::new(),
    }))
}

/// Removes the values that Go treats as unset: null and empty strings.
fn prune(value: &mut Value) {
    let Some(fields) = value.as_object_mut() else { return };
    fields.retain(|_, value| !value.is_null() && value.as_str() != Some(""));
    fields.values_mut().for_each(prune);
}

impl Configuration {
    /// Returns the configuration with its default listen addresses written out.
    pub fn with_listen_addresses(&self) -> Self {
        let listen = |address: Option<_>| address.map_or(Listen::Disabled, Listen::Socket);
        Self {
            healthz_bind_address: listen(self.healthz_listen()),
            metrics_bind_address: listen(self.metrics_listen()),
            ..self.clone()
        }
    }

    /// Sets the defaults where kube-proxy treats 0 as unset.
    fn fill_in(&mut self) {
        let Self { ipvs, client_connection: client, .. } = self;
        if ipvs.sync_period == GoDuration::default() {
            ipvs.sync_period = Ipvs::default().sync_period;
        }
        if client.qps == 0.0 {
            client.qps = ClientConnection::default().qps;
        }
        if client.burst.get() == 0 {
            client.burst = ClientConnection::default().burst;
        }
    }
}
