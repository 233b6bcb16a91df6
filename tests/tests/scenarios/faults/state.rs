//! The whole state of a node, with the objects of another program.

use anyhow::{Result, ensure};
use scenarios::{Namespace, eventually};

use crate::restart::{Everything, everything};

/// A device of another program, with its address.
const DEVICE: &str = "foreign0";
/// Another program's virtual server, at its address.
pub(crate) const FOREIGN: &str = "203.0.113.9:80";

/// The state that kube-ipvs writes, and that of others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct State {
    everything: Everything,
    /// The tables of all programs, sorted, with their chains and rules.
    tables: Vec<String>,
    foreign: String,
}

impl State {
    pub(crate) fn read(node: &Namespace) -> Result<Self> {
        let everything = everything(node)?;
        let rules = node.run("nft", &["-s", "-t", "list", "ruleset"])?;
        let mut tables: Vec<String> = rules.split("\n}\n").map(str::to_owned).collect();
        tables.sort();
        let foreign = node.run("ip", &["-br", "addr", "show", "dev", DEVICE])?;
        Ok(Self { everything, tables, foreign })
    }

    pub(crate) fn ensure_is(&self, wanted: &Self) -> Result<()> {
        let (found, expected) = (&self.everything, &wanted.everything);
        ensure!(found.0 == expected.0, "IPVS has\n{}instead of\n{}", found.0, expected.0);
        ensure!(found.1 == expected.1, "the VIPs are {:?} instead of {:?}", found.1, expected.1);
        ensure!(found.2 == expected.2, "nft has {:?}\ninstead of {:?}", found.2, expected.2);
        for (table, wanted) in self.tables.iter().zip(&wanted.tables) {
            ensure!(table == wanted, "nft has\n{table}\ninstead of\n{wanted}");
        }
        ensure!(self.tables.len() == wanted.tables.len(), "{} tables", self.tables.len());
        ensure!(self.foreign == wanted.foreign, "another program's device has {}", self.foreign);
        Ok(())
    }

    /// Waits until a node has this state.
    pub(crate) fn awaited(&self, node: &Namespace) -> Result<()> {
        eventually(|| Self::read(node)?.ensure_is(self))
    }
}

/// Creates another program's virtual server, table and address. The virtual server sends to a pod.
pub(crate) fn add_foreign(node: &Namespace, pod: &str) -> Result<()> {
    let script = format!(
        "ip link add {DEVICE} type dummy\n ip link set {DEVICE} up\n ip addr add 203.0.113.9/32 dev {DEVICE}\n\
         ipvsadm -A -t {FOREIGN} -s wrr\n ipvsadm -a -t {FOREIGN} -r {pod} -m -w 3\n\
         nft 'table ip foreign {{ set kept {{ type ipv4_addr; elements = {{ 10.96.0.80 }}; }}; chain rules {{ \
         type filter hook input priority 0; ip daddr 198.18.0.1 drop; }}; }}'"
    );
    node.run("sh", &["-ec", &script]).map(drop)
}
