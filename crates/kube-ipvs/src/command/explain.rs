use std::{fmt::Write, process::ExitCode};

use anyhow::Context;
use ipvs_netlink::{Destination, Forwarding};
use proxier::{Engine, desired::RealServer, linux::LinuxKernel, model::ServiceId, set::KeySet};

use super::{
    print,
    query::{Answer, Query},
};
use crate::events::with_hint;

#[derive(Debug, clap::Args)]
pub(super) struct Explain {
    /// The Service, as NAMESPACE/NAME, or NAME for the namespace default
    service: String,
    #[command(flatten)]
    query: Query,
}

impl Explain {
    pub(super) fn run(&self) -> anyhow::Result<ExitCode> {
        let Answer { configuration, engine, is_of_an_api_server } = self.query.ask()?;
        // If the user cannot read the kernel, the command still prints the rest.
        let kernel = LinuxKernel::open(engine.config(), configuration.kernel());
        let dropping_chains = kernel.and_then(|mut kernel| kernel.dropping_chains());
        dropping_chains.iter().flatten().for_each(|chain| eprintln!("kube-ipvs: {chain}"));
        let (namespace, name) = self.service.split_once('/').unwrap_or(("default", &self.service));
        let mut text = explain(&engine, &ServiceId::new(namespace, name)).with_context(|| {
            format!("there is no Service {namespace}/{name}, or another proxy serves it (service-proxy-name)")
        })?;
        if is_of_an_api_server && engine.cluster().own_node().is_none() {
            text += &without_node(&configuration.hostname_override.resolve()?);
        }
        print(text)?;
        Ok(ExitCode::SUCCESS)
    }
}

fn without_node(name: &str) -> String {
    format!(
        "  the API server has no Node {name}: kube-ipvs treats no endpoint as local, so traffic policies Local find no \
         endpoints. Set --hostname-override to the name of this Node in `kubectl get nodes`\n"
    )
}

fn explain(engine: &Engine, id: &ServiceId) -> Option<String> {
    let service = engine.cluster().service(id)?;
    let desired = engine.desired(id);
    let mut text = format!("Service {id}\n");
    if service.cluster_ips.is_empty() {
        text += "  has no ClusterIP (headless, ExternalName, or none assigned): kube-ipvs programs nothing for it\n";
    }
    for (key, server) in &desired.virtual_servers {
        let _ = writeln!(text, "  virtual server {key} {} for {}", server.config, server.owner);
        for (address, real_server) in &server.real_servers {
            let what = match real_server {
                RealServer::Serving { destination: Destination { forwarding, weight, .. }, terminating } => {
                    let why = if *terminating { ": terminating, and used because no endpoint is ready" } else { "" };
                    let how = if *forwarding == Forwarding::Masq { "" } else { &format!(" {forwarding}") };
                    format!("weight {weight}{how}{why}")
                }
                RealServer::Draining { terminating: true } => "takes no new connections: terminating".into(),
                RealServer::Draining { terminating: false } => {
                    "takes no new connections: not ready, or weight 0".into()
                }
            };
            let _ = writeln!(text, "    {address} {what}");
        }
        let any_serves = server.real_servers.values().any(|server| matches!(server, RealServer::Serving { .. }));
        if !any_serves {
            text += if server.sets.contains(KeySet::NoLocalEndpoints) {
                "    has no endpoints on this node: kube-ipvs drops new connections\n"
            } else if server.sets.contains(KeySet::NoLocalEndpointsExternal) {
                "    has no endpoints on this node: kube-ipvs drops new connections from outside the cluster\n"
            } else {
                "    has no endpoints: kube-ipvs rejects new connections\n"
            };
        }
    }
    for skipped in &desired.skipped {
        let _ = writeln!(text, "  {}", with_hint(skipped));
    }
    Some(text)
}
