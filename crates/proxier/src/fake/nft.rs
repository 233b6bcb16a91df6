//! Set elements, with the semantics of nftables.

use std::{collections::BTreeMap, sync::Arc};

use ipnet::IpNet;

use super::errno::{EEXIST, ENOENT, Errno};
use crate::{
    set::{Element, KeySet},
    state::State,
};

type Elements = BTreeMap<Element, Comment>;
type Comment = Option<Arc<str>>;

/// Adds an element as nftables does without `NLM_F_EXCL`: an existing element stays, and keeps its comment. `replace`
/// deletes the element first. Returns whether the call made a difference.
pub(super) fn add(elements: &mut Elements, element: Element, comment: Comment, replace: bool) -> Result<bool, Errno> {
    if replace {
        delete(elements, &element)?;
    }
    let there = neighbours(elements, &element).find(|there| clash(there, &element));
    match there {
        Some(there) if there == element => Ok(false),
        Some(_) => Err(EEXIST),
        None => Ok(elements.insert(element, comment).is_none()),
    }
}

/// Deletes an element by its key, which for a map excludes the value.
pub(super) fn delete(elements: &mut Elements, element: &Element) -> Result<(), Errno> {
    let found = neighbours(elements, element).find(|there| match (there, element) {
        (Element::ShortCircuit(there, _), Element::ShortCircuit(key, _)) => there == key,
        _ => there == element,
    });
    elements.remove(&found.ok_or(ENOENT)?);
    Ok(())
}

/// The elements directly before and after a place. No two elements of a set clash, so a new element can only clash with
/// these.
fn neighbours(elements: &Elements, place: &Element) -> impl Iterator<Item = Element> {
    let before = elements.range(..=place).next_back();
    before.into_iter().chain(elements.range(place..).next()).map(|(element, _)| *element)
}

/// Whether a set rejects the second of both: ranges must not overlap, and a map has one value for each key.
fn clash(one: &Element, other: &Element) -> bool {
    let overlap = |one: &IpNet, other: &IpNet| one.contains(other) || other.contains(one);
    match (one, other) {
        (Element::ShortCircuit(one, _), Element::ShortCircuit(other, _)) => one == other,
        (Element::Allowed(key, one), Element::Allowed(of, other)) => key == of && overlap(one, other),
        (Element::ServiceRange(one), Element::ServiceRange(other))
        | (Element::PodSource(one), Element::PodSource(other))
        | (Element::RemotePod(one), Element::RemotePod(other)) => overlap(one, other),
        _ => one == other,
    }
}

pub(super) fn show(element: Element, comment: &Comment, state: &mut State) {
    match element {
        Element::Key(set, key) => {
            let entry = state.elements.entry(key).or_default();
            entry.sets = entry.sets.with(set);
            if set == KeySet::Served {
                entry.comment.clone_from(comment);
            }
        }
        Element::Vip(address) => drop(state.recorded_vips.insert(address)),
        Element::Allowed(key, source) => drop(state.allowed.entry(key).or_default().insert(source)),
        Element::Hairpin(protocol, endpoint) => drop(state.hairpins.insert((protocol, endpoint))),
        Element::HealthCheck(key) => drop(state.health_checks.insert(key)),
        Element::ServiceRange(range) => drop(state.service_ranges.insert(range)),
        Element::PodSource(range) => drop(state.pod_sources.insert(range)),
        Element::RemotePod(range) => drop(state.remote_pods.insert(range)),
        Element::Outside(family) => drop(state.outside.insert(family)),
        Element::ArpIgnore(address) => drop(state.arp_ignore.insert(address)),
        Element::ShortCircuit(key, to) => drop(state.short_circuits.insert(key, to)),
    }
}
