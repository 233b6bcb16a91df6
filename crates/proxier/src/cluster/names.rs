use std::sync::Arc;

use foldhash::HashSet;

use crate::model::EndpointSlice;

/// The node names of endpoints. Many endpoints have the same one, and keep it in memory once.
#[derive(Debug, Default)]
pub(super) struct Names {
    // Every name of an endpoint is here. A name can stay if a copy of its slice was in use when the slice was removed.
    known: HashSet<Arc<str>>,
}

impl Names {
    /// Makes the endpoints of a slice use the known names.
    pub(super) fn share(&mut self, slice: &mut EndpointSlice) {
        for name in slice.endpoints.iter_mut().filter_map(|endpoint| endpoint.node.as_mut()) {
            match self.known.get(name) {
                Some(known) => name.clone_from(known),
                None => drop(self.known.insert(name.clone())),
            }
        }
    }

    /// Forgets the names that only this slice used.
    pub(super) fn release(&mut self, slice: EndpointSlice) {
        for name in slice.endpoints.into_iter().filter_map(|endpoint| endpoint.node) {
            const LAST: usize = 2;
            if Arc::strong_count(&name) == LAST {
                self.known.remove(&name);
            }
        }
    }
}
