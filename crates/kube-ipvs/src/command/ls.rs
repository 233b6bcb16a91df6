use std::process::ExitCode;

use anyhow::Context;
use ipvs_netlink::Client;
use proxier::model::VirtualServerKey;

use super::{
    listing::{Listing, VirtualServer, order},
    print,
};

#[derive(Debug, clap::Args)]
pub(super) struct Ls {
    /// Output format
    #[arg(long, short, value_enum, default_value_t = Output::Table)]
    output: Output,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Output {
    /// Like `ipvsadm -Ln`, with Service names
    Table,
    /// JSON, for programs
    Json,
}

impl Ls {
    pub(super) fn run(&self) -> anyhow::Result<ExitCode> {
        let listing = read()?;
        match self.output {
            Output::Table => print(&listing)?,
            Output::Json => print(format_args!("{}\n", serde_json::to_string_pretty(&listing)?))?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn read() -> anyhow::Result<Listing> {
    let owners = super::kernel_as_it_is()?.owners().context("cannot read which virtual servers kube-ipvs owns")?;
    let mut client = Client::open()?;
    let info = client.info()?;
    let mut servers = Vec::new();
    let mut services = client.services()?;
    services.sort_by_key(|service| order(service.key));
    for service in services {
        let destinations = client.destinations(service.key)?;
        let owner = VirtualServerKey::from_ipvs(service.key).and_then(|key| owners.get(&key));
        servers.push(VirtualServer::new(&service, &destinations, owner));
    }
    Ok(Listing::new(&info, servers))
}
