use std::{collections::HashMap, net::IpAddr};

use crate::{
    desired::{Desired, Skipped},
    model::{ServiceId, VirtualServerKey},
};

/// What each Service has asked for so far, so that it can be taken back.
#[derive(Debug, Default)]
pub(super) struct Footprints {
    of: HashMap<ServiceId, Footprint>,
    /// How many Services want an address. Invariant: no count is 0.
    vip_users: HashMap<IpAddr, usize>,
}

#[derive(Debug, Default)]
pub(super) struct Footprint {
    pub(super) keys: Vec<VirtualServerKey>,
    pub(super) vips: Vec<IpAddr>,
    pub(super) skipped: Vec<Skipped>,
}

impl Footprints {
    /// Remembers what a Service asks for now, and returns what it asked for before.
    pub(super) fn replace(&mut self, id: &ServiceId, desired: &Desired) -> Footprint {
        let new = Footprint {
            keys: desired.virtual_servers.keys().copied().collect(),
            vips: desired.vips.iter().copied().collect(),
            skipped: desired.skipped.clone(),
        };
        for address in &new.vips {
            *self.vip_users.entry(*address).or_default() += 1;
        }
        let empty = new.keys.is_empty() && new.skipped.is_empty();
        let old =
            if empty { self.of.remove(id) } else { self.of.insert(id.clone(), new) }.unwrap_or_default();
        old.vips.iter().for_each(|address| self.release(*address));
        old
    }

    /// Whether any Service wants an address.
    pub(super) fn wants(&self, address: IpAddr) -> bool {
        self.vip_users.contains_key(&address)
    }

    fn release(&mut self, address: IpAddr) {
        let Some(users) = self.vip_users.get_mut(&address) else { return };
        *users -= 1;
        if *users == 0 {
            self.vip_users.remove(&address);
        }
    }
}
