//! The set of default gateways. It is not part of a plan, because it depends only on the host's routes.

use std::{collections::BTreeSet, net::IpAddr};

use netlink_batch::Error;

use super::{
    Nft, Table,
    decode::Content,
    element, kind,
    transaction::{self, Request, Transaction},
};
use crate::{
    model::Family,
    set::{Element, GATEWAYS},
};

impl Nft {
    pub(in crate::linux) fn set_gateways(&mut self, all: &BTreeSet<IpAddr>) -> Result<(), Error> {
        let is_there = |family: &Family| *family == Family::V4 || self.without_v6.is_none();
        let families: Vec<Family> = Family::ALL.into_iter().filter(is_there).collect();
        for family in families {
            let wanted = all.iter().copied().filter(|address| Family::of(*address) == family).collect();
            let known = self.gateways(family)?;
            if known == wanted {
                continue;
            }
            let mut transaction = Transaction::new(&self.settings.names);
            for gone in elements(kind::DELETE_ELEMENTS, &known, &wanted) {
                transaction.delete(Table::Ip(family), gone);
            }
            for new in elements(kind::NEW_ELEMENTS, &wanted, &known) {
                transaction.create(Table::Ip(family), new);
            }
            transaction.commit(&mut self.socket)?;
        }
        Ok(())
    }

    fn gateways(&mut self, family: Family) -> Result<BTreeSet<IpAddr>, Error> {
        let raws = self.elements(Table::Ip(family), GATEWAYS)?.into_iter();
        // The set has the same element type as `vips`.
        let decoded = raws.filter_map(|raw| raw.decode(family, Content::Vips));
        let addresses = decoded.filter_map(|(element, _)| match element {
            Element::Vip(address) => Some(address),
            _ => None,
        });
        Ok(addresses.collect())
    }
}

/// The requests for the elements of `of` that are not in `without`.
fn elements(kind: u8, of: &BTreeSet<IpAddr>, without: &BTreeSet<IpAddr>) -> Vec<Request> {
    let addresses: Vec<_> = of.difference(without).collect();
    let request = |addresses: &[&IpAddr]| {
        let mut bytes = Vec::new();
        addresses.iter().for_each(|address| element::append(&mut bytes, &Element::Vip(**address), None));
        Request::of_elements(kind, GATEWAYS, &bytes)
    };
    addresses.chunks(transaction::MOST_ELEMENTS).map(request).collect()
}
