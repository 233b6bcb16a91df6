use std::fmt;

use super::legacy_commands;
use crate::model::Family;

/// Something of kube-proxy's that stays, and why. `Display` says what it means and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kept {
    /// A chain that accepts what a policy or a last rule would drop: without it services would be cut off.
    LetsThrough {
        /// Whose packets it is about.
        family: Family,
        /// The chain.
        chain: Box<str>,
        /// The chain of `filter` that drops.
        dropping: Box<str>,
    },
    /// A chain that another program's rules jump to.
    Used {
        /// Whose packets it is about.
        family: Family,
        /// Its table.
        table: Box<str>,
        /// The chain.
        chain: Box<str>,
        /// The chain with the rule that jumps to it.
        by: Box<str>,
    },
    /// A chain that the kubelet keeps too.
    Kubelets {
        /// Whose packets it is about.
        family: Family,
        /// The chain.
        chain: Box<str>,
    },
    /// All that kube-proxy has in a table, as it is from its iptables mode.
    IptablesMode {
        /// Whose packets it is about.
        family: Family,
        /// The table.
        table: Box<str>,
    },
    /// Sets that rules look things up in which stay. The sets have been emptied.
    InUse {
        /// The sets.
        sets: Vec<String>,
    },
    /// Sets that rules still look things up in, though none in nftables: those are legacy iptables'. The sets have
    /// been emptied, so that these rules find nothing.
    Legacy {
        /// The sets.
        sets: Vec<String>,
    },
}

impl Kept {
    /// The commands that remove it, one a line, where there are any that are right everywhere.
    pub fn commands(&self) -> Vec<String> {
        match self {
            Self::Legacy { sets } => legacy_commands(sets),
            _ => Vec::new(),
        }
    }
}

impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LetsThrough { family, chain, dropping } => write!(
                f,
                "kube-proxy's chain {chain} stays ({family}): {dropping} drops what no rule accepts, and this chain is \
                 what lets services through. This proxy does not update it"
            ),
            Self::Used { family, table, chain, by } => write!(
                f,
                "kube-proxy's chain {chain} in {table} stays ({family}): the chain {by}, which this proxy does not remove, jumps to it"
            ),
            Self::Kubelets { family, chain } => {
                write!(f, "the chain {chain} in nat stays ({family}): the kubelet keeps it too")
            }
            Self::IptablesMode { family, table } => write!(
                f,
                "kube-proxy's chains in {table} stay ({family}): they are of its iptables mode, and go with \
                 the next boot of this node. Do not run `kube-proxy --cleanup`, which removes all virtual servers"
            ),
            Self::InUse { sets } => write!(
                f,
                "kube-proxy's ipsets {} stay, emptied: rules of chains that stay look things up in them",
                sets.join(", ")
            ),
            Self::Legacy { sets } => {
                write!(
                    f,
                    "kube-proxy's ipsets {} stay, emptied: rules of legacy iptables refer to them. \
                     To remove both, run on this node:",
                    sets.join(", ")
                )?;
                self.commands().iter().try_for_each(|command| write!(f, "\n{command}"))
            }
        }
    }
}
