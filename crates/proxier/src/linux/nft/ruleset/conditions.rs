//! The conditions of the rules.

use super::{super::expression::*, Rules};
use crate::{
    linux::LocalDetector,
    set::{KeySet, OUTSIDE, POD_SOURCES, VIPS},
};

impl Rules<'_> {
    pub(super) fn key_in(&self, set: KeySet) -> Expressions {
        self.has_in(KEY, set.name())
    }

    pub(super) fn key_not_in(&self, set: KeySet) -> Expressions {
        self.has_not_in(KEY, set.name())
    }

    /// Matches a connection whose first packet was not sent to a virtual server.
    pub(super) fn originally_not_served(&self) -> Expressions {
        let not_in = |set: KeySet| all([original_key(self.family), is_not_in(set.name())]);
        all([not_in(KeySet::Served), not_in(KeySet::Foreign)])
    }

    pub(super) fn to_vip(&self) -> Expressions {
        self.has_in([Field::Destination], VIPS)
    }

    pub(super) fn source_in(&self, set: &str) -> Expressions {
        self.has_in([Field::Source], set)
    }

    pub(super) fn has_in<const N: usize>(&self, fields: [Field; N], set: &str) -> Expressions {
        all([load(self.family, fields), is_in(set)])
    }

    pub(super) fn has_not_in<const N: usize>(&self, fields: [Field; N], set: &str) -> Expressions {
        all([load(self.family, fields), is_not_in(set)])
    }

    pub(super) fn inside(&self) -> Expressions {
        match &self.settings.local_detector {
            LocalDetector::Sources => self.source_in(POD_SOURCES),
            LocalDetector::Bridge(name) => comes_by(name),
            LocalDetector::InterfacePrefix(prefix) => comes_by_prefix(prefix),
        }
    }

    /// Matches a packet from outside the cluster, after a rule for packets from within it.
    pub(super) fn outside(&self) -> Expressions {
        match &self.settings.local_detector {
            LocalDetector::Sources => self.source_in(OUTSIDE),
            LocalDetector::Bridge(_) | LocalDetector::InterfacePrefix(_) => all([]),
        }
    }
}
