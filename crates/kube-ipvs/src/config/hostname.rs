use std::{fmt, str::FromStr};

/// The reason why this node's name is unknown.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HostnameError {
    /// The host has no name.
    #[error("this host has no name: set the node's name with --hostname-override")]
    Empty,
    /// The host's name is not text.
    #[error("this host's name {0:?} is not UTF-8: set the node's name with --hostname-override")]
    NotUtf8(String),
}

/// `--hostname-override`: the node's name, if given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeName(Option<Box<str>>);

impl NodeName {
    /// Returns the given name, or else the host's name, in lower case.
    ///
    /// Endpoints with this `nodeName` are local.
    pub fn resolve(&self) -> Result<Box<str>, HostnameError> {
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

fn own_hostname() -> Result<Box<str>, HostnameError> {
    let uname = rustix::system::uname();
    let name = uname.nodename();
    let name = name.to_str().map_err(|_| HostnameError::NotUtf8(name.to_string_lossy().into_owned()))?.trim();
    if name.is_empty() || name == "(none)" {
        return Err(HostnameError::Empty);
    }
    Ok(name.to_lowercase().into())
}
