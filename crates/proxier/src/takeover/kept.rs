use std::fmt;

use super::legacy_commands;
use crate::model::Family;

/// An object of kube-proxy that stays, and why. `Display` gives the consequences and the remedy.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kept {
    /// A chain that accepts packets which a policy or a last rule would drop. Without it, Services would be
    /// unreachable.
    AcceptingChain {
        /// The family of its packets.
        family: Family,
        /// The chain.
        chain: Box<str>,
        /// The chain of `filter` that drops packets.
        dropping: Box<str>,
    },
    /// A chain that another program's rules jump to.
    ChainInUse {
        /// The family of its packets.
        family: Family,
        /// The table.
        table: Box<str>,
        /// The chain.
        chain: Box<str>,
        /// The chain with the rule that jumps to `chain`.
        by: Box<str>,
    },
    /// A chain that the kubelet also maintains.
    KubeletChain {
        /// The family of its packets.
        family: Family,
        /// The chain.
        chain: Box<str>,
    },
    /// Sets that rules of remaining chains look up. The sets are empty.
    SetsInUse {
        /// The sets.
        sets: Vec<String>,
    },
    /// Sets that rules outside nftables look up, which are those of legacy iptables. The sets are empty, so these rules
    /// match nothing.
    LegacySets {
        /// The sets.
        sets: Vec<String>,
    },
}

impl Kept {
    /// The shell commands that remove the object; empty if no commands are right on every node.
    pub fn commands(&self) -> Vec<String> {
        match self {
            Self::LegacySets { sets } => legacy_commands(sets),
            _ => Vec::new(),
        }
    }
}

impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AcceptingChain { family, chain, dropping } => write!(
                f,
                "kube-proxy's chain {chain} stays ({family}): {dropping} drops packets that no rule accepts, and this \
                 chain accepts those of Services. This proxy does not update it"
            ),
            Self::ChainInUse { family, table, chain, by } => write!(
                f,
                "kube-proxy's chain {chain} in {table} stays ({family}): the chain {by}, which this proxy does not remove, jumps to it"
            ),
            Self::KubeletChain { family, chain } => {
                write!(f, "the chain {chain} in nat stays ({family}): the kubelet maintains it too")
            }
            Self::SetsInUse { sets } => write!(
                f,
                "kube-proxy's ipsets {} stay, and are empty: rules of chains that stay refer to them",
                sets.join(", ")
            ),
            Self::LegacySets { sets } => {
                write!(
                    f,
                    "kube-proxy's ipsets {} stay, and are empty: rules of legacy iptables refer to them. To remove \
                     both, run on this node:",
                    sets.join(", ")
                )?;
                self.commands().iter().try_for_each(|command| write!(f, "\n{command}"))
            }
        }
    }
}
