//! One document: what kinds of objects it holds, then the objects.

use std::fmt;

use proxier::model;
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, Error, IgnoredAny, MapAccess, SeqAccess, Visitor},
};

use super::{kind::Kind, object::Object};
use crate::source::wire::{self, Bounded, Invalid, Reasons, Remarks};

/// What a document or an item says about itself.
#[derive(Debug, Default)]
pub(super) struct Header {
    /// Whether there is nothing: `null`.
    pub(super) is_null: bool,
    pub(super) api_version: Option<String>,
    pub(super) kind: Option<String>,
    pub(super) name: Option<String>,
    pub(super) namespace: Option<String>,
    /// The items of a list.
    pub(super) items: Vec<Header>,
    has_metadata: bool,
}

impl Header {
    /// Whether all is known that ever will be: the rest need not be looked at.
    pub(super) fn is_complete(&self) -> bool {
        let kind = self.kind.as_ref().filter(|kind| !kind.ends_with("List"));
        self.has_metadata && self.api_version.is_some() && kind.is_some()
    }
}

impl Header {
    fn is_of_discovery(&self) -> bool {
        self.api_version.as_ref().is_some_and(|version| version.starts_with("discovery.k8s.io/"))
    }
}

/// Reads a header. Stops with an error, which means nothing, as soon as the header is complete.
pub(super) struct HeaderSeed<'a> {
    pub(super) header: &'a mut Header,
    pub(super) may_stop: bool,
}

#[derive(Deserialize)]
struct HeaderMeta {
    name: Option<String>,
    namespace: Option<String>,
}

impl<'de> DeserializeSeed<'de> for HeaderSeed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for HeaderSeed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a Kubernetes object: fields such as apiVersion, kind and metadata")
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        self.header.is_null = true;
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "apiVersion" => self.header.api_version = map.next_value()?,
                "kind" => self.header.kind = map.next_value()?,
                "metadata" => {
                    self.header.has_metadata = true;
                    if let Some(meta) = map.next_value::<Option<HeaderMeta>>()? {
                        (self.header.name, self.header.namespace) = (meta.name, meta.namespace);
                    }
                }
                "items" => map.next_value_seed(HeaderItems(&mut self.header.items))?,
                // In the order in which kubectl writes fields, endpoints come before the kind. Still they are no
                // reason to read on for long.
                "endpoints" if self.header.is_of_discovery() => {
                    drop(map.next_value::<Bounded<IgnoredAny, 1000>>()?)
                }
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
            if self.may_stop && self.header.is_complete() {
                return Err(A::Error::custom("the header is complete"));
            }
        }
        Ok(())
    }
}

/// The items of a list, as headers.
struct HeaderItems<'a>(&'a mut Vec<Header>);

impl<'de> DeserializeSeed<'de> for HeaderItems<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for HeaderItems<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        loop {
            let mut header = Header::default();
            if seq.next_element_seed(HeaderSeed { header: &mut header, may_stop: false })?.is_none() {
                return Ok(());
            }
            self.0.push(header);
        }
    }

    // Kinds that are none of our business may have `items` of any shape.
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(())
    }
}

/// What is to be read of a document.
#[derive(Debug)]
pub(super) enum Plan {
    /// It is an object of this kind.
    One(Kind),
    /// It is a list; these are the kinds of its items, `None` for those to pass over.
    List(Vec<Option<Kind>>),
}

/// An object and what of it is ignored, or the rule that it breaks; and which item of a list it is.
pub(super) type Found = (Option<usize>, Outcome);
type Outcome = Result<(Object, Reasons), Invalid>;

/// Reads the objects of a document as planned.
pub(super) fn objects<'de, D: Deserializer<'de>>(
    plan: &Plan,
    deserializer: D,
    found: &mut Vec<Found>,
) -> Result<(), D::Error> {
    match plan {
        Plan::One(kind) => found.push((None, object(*kind, deserializer)?)),
        Plan::List(kinds) => deserializer.deserialize_map(List { kinds, found })?,
    }
    Ok(())
}

fn object<'de, D: Deserializer<'de>>(kind: Kind, deserializer: D) -> Result<Outcome, D::Error> {
    let mut remarks = Remarks::default();
    let object = match kind {
        Kind::Service => wire::Service::deserialize(deserializer)?.convert(&mut remarks).map(Object::Service),
        Kind::EndpointSlice => {
            wire::EndpointSlice::deserialize(deserializer)?.convert(&mut remarks).map(Object::Slice)
        }
        Kind::Endpoints => {
            wire::Endpoints::deserialize(deserializer)?.convert(&mut remarks).map(Object::Endpoints)
        }
        Kind::Node => wire::Node::deserialize(deserializer)?.convert(&mut remarks.left_out).map(Object::Node),
        Kind::ServiceCidr => model::ServiceCidr::try_from(wire::ServiceCidr::deserialize(deserializer)?)
            .map(Object::ServiceCidr),
    };
    // kube-ipvs leaves nothing out of a file. It tells the author, and the last good content stays in force meanwhile.
    let left_out = remarks.left_out.told().next();
    Ok(left_out.map_or(object, Err).map(|object| (object, remarks.ignored)))
}

struct List<'a> {
    kinds: &'a [Option<Kind>],
    found: &'a mut Vec<Found>,
}

impl<'de> Visitor<'de> for List<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of Kubernetes objects")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "items" => map.next_value_seed(Items { kinds: self.kinds, found: self.found })?,
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(())
    }
}

struct Items<'a> {
    kinds: &'a [Option<Kind>],
    found: &'a mut Vec<Found>,
}

impl<'de> DeserializeSeed<'de> for Items<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Items<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of Kubernetes objects")
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        for (index, kind) in self.kinds.iter().enumerate() {
            match kind {
                Some(kind) => {
                    if let Some(object) = seq.next_element_seed(One(*kind))? {
                        self.found.push((Some(index), object));
                    }
                }
                None => drop(seq.next_element::<IgnoredAny>()?),
            }
        }
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
    }
}

struct One(Kind);

impl<'de> DeserializeSeed<'de> for One {
    type Value = Outcome;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        object(self.0, deserializer)
    }
}
