use std::{fmt, str::FromStr};

use anyhow::{Context, ensure};

const REMEDY: &str = "set the node's name with --hostname-override";

/// `--hostname-override`: the node's name, if given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeName(Option<Box<str>>);

impl NodeName {
    /// Returns the given name, or else the host's name, in lower case.
    ///
    /// Endpoints with this `nodeName` are local.
    pub fn resolve(&self) -> anyhow::Result<Box<str>> {
        match &self.0 {
            Some(name) => Ok(name.clone()),
            None => own_hostname(),
        }
    }

    /// The given name, if any.
    pub fn given(&self) -> Option<&str> {
        self.0.as_deref()
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.given().unwrap_or_default())
    }
}

impl FromStr for NodeName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let name = text.trim();
        if name.is_empty() {
            return Ok(Self(None));
        }
        let name = name.to_lowercase();
        let allowed = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
        if name.len() > 253 || !name.chars().all(allowed) {
            return Err(format!(
                "{text:?} is not a valid name of a node: use at most 253 letters, digits, '-' and '.'"
            ));
        }
        Ok(Self(Some(name.into())))
    }
}

fn own_hostname() -> anyhow::Result<Box<str>> {
    let uname = rustix::system::uname();
    let name = uname.nodename();
    let name = name.to_str().with_context(|| format!("this host's name {name:?} is not UTF-8: {REMEDY}"))?.trim();
    ensure!(!name.is_empty() && name != "(none)", "this host has no name: {REMEDY}");
    Ok(name.to_lowercase().into())
}
