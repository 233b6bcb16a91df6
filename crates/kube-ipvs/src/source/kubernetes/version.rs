//! The version of the API server.

use std::{
    env::consts::{ARCH, OS},
    time::Duration,
};

pub use k8s_openapi::apimachinery::pkg::version::Info as Version;
use kube::Client;

/// The platform of this binary, in Go's names.
pub(crate) fn platform() -> String {
    let architecture = match ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    format!("{OS}/{architecture}")
}

/// How often kube-ipvs asks for the version. Alerts on version skew wait longer than this.
const POLL_INTERVAL: Duration = Duration::from_secs(600);

/// Reports the version and each change. Only a metric uses it, so the next poll is soon enough for a retry.
pub(super) async fn follow(client: &Client, patience: Duration, mut tell: impl FnMut(&Version)) {
    let mut known = None;
    loop {
        let answer = tokio::time::timeout(patience, client.apiserver_version()).await;
        if let Ok(Ok(version)) = answer
            && known.as_ref() != Some(&version)
        {
            tell(&version);
            known = Some(version);
        }
        // Nodes that start together must not keep polling together.
        tokio::time::sleep(POLL_INTERVAL.mul_f64(1.0 + fastrand::f64())).await;
    }
}
