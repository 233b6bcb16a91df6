//! Applies changes of EndpointSlices.

use std::{collections::BTreeSet, net::IpAddr};

use super::{Cluster, Endpoints};
use crate::model::{EndpointSlice, Family, ServiceId, SliceId};

impl Cluster {
    pub(crate) fn endpoints(&self, service: &ServiceId, family: Family) -> Endpoints<'_> {
        let ids = self.slices_of.get(service).iter();
        Endpoints::new(ids.filter_map(|id| self.slices.get(id)), family)
    }

    pub(super) fn apply_slice(&mut self, mut slice: EndpointSlice) {
        if self.slices.get(&slice.id) == Some(&slice) {
            return;
        }
        // A slice can move to another Service. The Service that it leaves changes too.
        self.remove_slice(&slice.id);
        self.changed.insert(slice.service.clone());
        self.slices_of.add(slice.service.clone(), slice.id.clone());
        for address in self.may_be_here(&slice) {
            self.endpoints_here.add(address, slice.id.clone());
        }
        self.node_names.share(&mut slice);
        self.slices.insert(slice.id.clone(), slice);
    }

    pub(super) fn remove_slice(&mut self, id: &SliceId) {
        let Some(old) = self.slices.remove(id) else { return };
        for address in self.may_be_here(&old) {
            self.endpoints_here.remove(&address, id);
        }
        self.slices_of.remove(&old.service, id);
        self.changed.insert(old.service.clone());
        self.node_names.release(old);
    }

    /// The addresses of endpoints that are on this node, or can be because they name no node.
    fn may_be_here(&self, slice: &EndpointSlice) -> BTreeSet<IpAddr> {
        let endpoints = slice.endpoints.iter();
        let here = endpoints.filter(|endpoint| endpoint.node.is_none() || self.is_local(endpoint));
        here.map(|endpoint| endpoint.address).collect()
    }
}
