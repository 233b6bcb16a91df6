use std::sync::Arc;

use proxier::model::{self, EndpointSlice, Event, ServiceId, SliceId};

use super::kind::Kind;
use crate::{
    config::AnnotationPolicy,
    source::api::{self, ConvertedEndpoints, ConvertedService, ConvertedSlice, Invalid, Reasons, Remarks},
};

/// An object of a manifest, converted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Object {
    Service(ConvertedService),
    Slice(ConvertedSlice),
    Endpoints(ConvertedEndpoints),
    Node(model::Node),
    ServiceCidr(model::ServiceCidr),
}

/// What an object is known by.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Key {
    Node(Arc<str>),
    ServiceCidr(Arc<str>),
    Service(ServiceId),
    Slice(SliceId),
    Endpoints(ServiceId),
}

impl Object {
    /// Reads an object of this kind: the object, and which of its annotations count for nothing.
    pub(super) fn read(kind: Kind, json: &str) -> Result<(Self, Reasons), Invalid> {
        let mut remarks = Remarks::default();
        let object = match kind {
            Kind::Service => api::read::<api::Service>(json)?.convert(&mut remarks).map(Self::Service),
            Kind::EndpointSlice => {
                api::read::<api::EndpointSlice>(json)?.convert(&mut remarks).map(Self::Slice)
            }
            Kind::Endpoints => api::read::<api::Endpoints>(json)?.convert(&mut remarks).map(Self::Endpoints),
            Kind::Node => api::read::<api::Node>(json)?.convert(&mut remarks.left_out).map(Self::Node),
            Kind::ServiceCidr => api::read::<api::ServiceCidr>(json)?.try_into().map(Self::ServiceCidr),
        };
        // kube-ipvs leaves nothing out of a file. It tells the author, and the last good content stays in force.
        let left_out = remarks.left_out.told().next();
        left_out.map_or(object, Err).map(|object| (object, remarks.ignored))
    }

    pub(super) fn key(&self) -> Key {
        match self {
            Self::Service(service) => Key::Service(service.service.id.clone()),
            Self::Slice(ConvertedSlice::Slice(slice)) => Key::Slice(slice.id.clone()),
            Self::Slice(ConvertedSlice::Ignored(id, _)) => Key::Slice(id.clone()),
            Self::Endpoints(endpoints) => Key::Endpoints(endpoints.service.clone()),
            Self::Node(node) => Key::Node((&*node.name).into()),
            Self::ServiceCidr(cidr) => Key::ServiceCidr((&*cidr.name).into()),
        }
    }

    /// Takes out of it what the operator does not let it choose, and says what that was.
    pub(super) fn restrict(&mut self, policy: &AnnotationPolicy) -> Vec<Invalid> {
        match self {
            Self::Service(service) => policy.restrict_service(&mut service.service),
            Self::Slice(ConvertedSlice::Slice(slice)) => policy.restrict_slice(slice).into_iter().collect(),
            Self::Endpoints(endpoints) => {
                let slices = endpoints.slices.iter_mut();
                let mut refused: Vec<_> = slices.filter_map(|slice| policy.restrict_slice(slice)).collect();
                // All of them have the weight of the one annotation.
                refused.truncate(1);
                refused
            }
            Self::Slice(ConvertedSlice::Ignored(..)) | Self::Node(_) | Self::ServiceCidr(_) => Vec::new(),
        }
    }

    /// The event that makes it known, unless it is nothing that a proxy acts on. Endpoints show only through
    /// the slices that mirror them.
    pub(super) fn applied(&self) -> Option<Event> {
        match self {
            Self::Service(service) if service.is_foreign => None,
            Self::Service(service) => Some(Event::ServiceApplied(service.service.clone())),
            Self::Slice(ConvertedSlice::Slice(slice)) => Some(Event::SliceApplied(slice.clone())),
            Self::Slice(ConvertedSlice::Ignored(..)) | Self::Endpoints(_) => None,
            Self::Node(node) => Some(Event::NodeApplied(node.clone())),
            Self::ServiceCidr(cidr) => Some(Event::ServiceCidrApplied(cidr.clone())),
        }
    }

    /// The event that says that it is gone, if it ever was there for a proxy.
    pub(super) fn removed(&self) -> Option<Event> {
        match self.applied()? {
            Event::ServiceApplied(service) => Some(Event::ServiceRemoved(service.id)),
            Event::SliceApplied(slice) => Some(Event::SliceRemoved(slice.id)),
            Event::NodeApplied(node) => Some(Event::NodeRemoved(node.name)),
            Event::ServiceCidrApplied(cidr) => Some(Event::ServiceCidrRemoved(cidr.name)),
            _ => None,
        }
    }
}

impl Key {
    /// As messages name it: `Service default/web`, `Node node-1`.
    pub(super) fn describe(&self) -> Box<str> {
        match self {
            Self::Node(name) => format!("{} {name}", Kind::Node.name()),
            Self::ServiceCidr(name) => format!("{} {name}", Kind::ServiceCidr.name()),
            Self::Service(id) => format!("{} {id}", Kind::Service.name()),
            Self::Slice(id) => format!("{} {id}", Kind::EndpointSlice.name()),
            Self::Endpoints(id) => format!("{} {id}", Kind::Endpoints.name()),
        }
        .into()
    }
}

/// The slices that mirror Endpoints for a Service, if it wants them: it has to exist, and select no pods.
pub(super) fn mirrors<'a>(service: Option<&Object>, endpoints: Option<&'a Object>) -> &'a [EndpointSlice] {
    match (service, endpoints) {
        (Some(Object::Service(service)), Some(Object::Endpoints(endpoints)))
            if !service.selects_pods && !service.is_foreign =>
        {
            &endpoints.slices
        }
        _ => &[],
    }
}
