//! What a control plane is recognised by, and whom it recognises: certificates, keys, an administrator's token.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::certificates;

/// The administrator's token. A client that has it may do everything. Only the tests can reach the API server.
pub(super) const ADMINISTRATOR: &str = "administrator";

/// The API server logs the daemons' requests and no others: which user asked for what, and what the answer was.
const AUDIT: &str = "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived]\nrules:\n- level: Metadata\n  users: \
                     [\"system:serviceaccount:kube-system:kube-ipvs\"]\n- level: None\n";

/// The files of a control plane, in a folder of their own.
#[derive(Debug)]
pub(super) struct Credentials {
    directory: PathBuf,
}

impl Credentials {
    /// Makes them, for a server at these addresses.
    pub(super) fn create(directory: &Path, addresses: &[&str]) -> Result<Self> {
        fs::create_dir_all(directory).with_context(|| format!("making {}", directory.display()))?;
        certificates::write(directory, addresses)?;
        let made = Self { directory: directory.to_owned() };
        for (name, content) in [
            ("audit.yaml", AUDIT.to_owned()),
            ("tokens.csv", format!("{ADMINISTRATOR},administrator,administrator,\"system:masters\"\n")),
        ] {
            fs::write(made.path(name), content)?;
        }
        Ok(made)
    }

    /// One of the files.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Writes a kubeconfig of this name for the server at `url`; `user` are the fields of its user.
    pub(super) fn kubeconfig(&self, name: &str, url: &str, user: &str) -> Result<PathBuf> {
        let path = self.path(name);
        let authority = self.path("ca.crt");
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: default\ncontexts:\n- name: default\n  context: {{ cluster: default, \
             user: default }}\nclusters:\n- name: default\n  cluster: {{ server: \"{url}\", certificate-authority: {} }}\n\
             users:\n- name: default\n  user: {{ {user} }}\n",
            authority.display()
        );
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
        Ok(path)
    }
}
