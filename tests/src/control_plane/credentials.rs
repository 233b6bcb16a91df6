//! The credentials of a control plane: certificates, keys, and an administrator's token.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::certificates;

/// The administrator's token. It grants every right. Only the tests can reach the API server.
pub(super) const ADMINISTRATOR: &str = "administrator";

/// The audit policy. The API server logs only the daemons' requests, with their verbs and response codes.
const AUDIT: &str = "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived]\nrules:\n- level: Metadata\n  users: \
                     [\"system:serviceaccount:kube-system:kube-ipvs\"]\n- level: None\n";

/// The folder of a control plane's credentials.
#[derive(Debug)]
pub(super) struct Credentials {
    directory: PathBuf,
}

impl Credentials {
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

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Writes a kubeconfig for the server at `url`. `user` holds the fields of its user.
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
