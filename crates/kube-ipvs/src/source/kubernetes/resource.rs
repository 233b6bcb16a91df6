//! What is watched, and how one object of each kind is read.

use std::{fmt, sync::Arc};

use jiff::Timestamp;
use proxier::model::{self, Event, ServiceId, SliceId};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::config::AnnotationPolicy;
use crate::events::About;
use crate::source::api::{self, ConvertedSlice, HEADLESS, Invalid, Remarks, SERVICE_PROXY_NAME};

/// A collection of objects that is watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Resource {
    Services,
    EndpointSlices,
    /// The Node that we run on, and no other one: all of them would be too many, and they change all the time.
    OwnNode,
    ServiceCidrs,
}

/// What an object is known by.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Key {
    /// Empty for objects that are in no namespace.
    pub(super) namespace: Arc<str>,
    pub(super) name: Arc<str>,
}

/// An object as the API server has sent it, read.
#[derive(Debug)]
pub(super) struct Object {
    pub(super) key: Key,
    /// `metadata.resourceVersion`.
    pub(super) version: Option<String>,
    /// The event that makes it known; none if a proxy like this one has nothing to do with it.
    pub(super) content: Result<Option<Event>, Unreadable>,
    /// `metadata.uid`.
    pub(super) uid: Option<Box<str>>,
    /// What of it is passed over, although it can be followed.
    pub(super) ignored: Vec<Unreadable>,
    /// Of an EndpointSlice: when that changed which made the control plane write it.
    pub(super) trigger: Option<Timestamp>,
}

/// What keeps an object, or a part of it, from being followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unreadable {
    pub(super) field: Option<Box<str>>,
    pub(super) message: Box<str>,
}

/// What an object is known by.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) key: Key,
    pub(super) version: Option<String>,
    pub(super) uid: Option<Box<str>>,
}

#[derive(Deserialize, Default)]
struct WithHead {
    #[serde(default)]
    metadata: HeadMeta,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct HeadMeta {
    name: String,
    namespace: String,
    uid: Option<Box<str>>,
    resource_version: Option<String>,
}

impl Resource {
    pub(super) const ALL: [Self; 4] =
        [Self::Services, Self::EndpointSlices, Self::OwnNode, Self::ServiceCidrs];

    /// Where the API server has it.
    pub(super) fn path(self) -> &'static str {
        match self {
            Self::Services => "/api/v1/services",
            Self::EndpointSlices => "/apis/discovery.k8s.io/v1/endpointslices",
            Self::OwnNode => "/api/v1/nodes",
            Self::ServiceCidrs => "/apis/networking.k8s.io/v1/servicecidrs",
        }
    }

    /// As the API and metrics call it: `endpointslices`.
    pub(super) fn word(self) -> &'static str {
        self.path().rsplit('/').next().unwrap_or_default()
    }

    /// As kube-proxy selects: what is headless, or served by another proxy, is not even sent.
    pub(super) fn label_selector(self) -> Option<String> {
        match self {
            Self::Services | Self::EndpointSlices => Some(format!("!{HEADLESS},!{SERVICE_PROXY_NAME}")),
            Self::OwnNode | Self::ServiceCidrs => None,
        }
    }

    /// Whether nothing can be done before all of it is known. The others refine what is done, and an API server may
    /// lack them or refuse them to us.
    pub(super) fn is_vital(self) -> bool {
        matches!(self, Self::Services | Self::EndpointSlices)
    }

    /// Reads an object.
    pub(super) fn read(self, json: &RawValue) -> Object {
        let Head { key, version, uid } = self.head(json);
        let mut remarks = Remarks::default();
        let mut trigger = None;
        let content = match self {
            Self::Services => {
                api::read::<api::Service>(json.get()).map_err(Unreadable::from).and_then(|service| {
                    let read = service.convert(&mut remarks)?;
                    Ok((!read.is_foreign).then_some(Event::ServiceApplied(read.service)))
                })
            }
            Self::EndpointSlices => {
                api::read::<api::EndpointSlice>(json.get()).map_err(Unreadable::from).and_then(|slice| {
                    trigger = slice.trigger_time();
                    Ok(match slice.convert(&mut remarks)? {
                        ConvertedSlice::Slice(slice) => Some(Event::SliceApplied(slice)),
                        ConvertedSlice::Ignored(..) => None,
                    })
                })
            }
            Self::OwnNode => node(json, &mut remarks.left_out).map(Event::NodeApplied).map(Some),
            Self::ServiceCidrs => api::read::<api::ServiceCidr>(json.get())
                .map_err(Unreadable::from)
                .and_then(|range| Ok(Some(Event::ServiceCidrApplied(range.try_into()?)))),
        };
        let left_out = remarks.left_out.told().map(|Invalid { field, message }| {
            Unreadable::from(Invalid {
                field,
                message: message + "; it is left out, and the rest is followed",
            })
        });
        let ignored = remarks.ignored.told().map(Unreadable::from).chain(left_out).collect();
        Object { key, version, uid, content, ignored, trigger }
    }

    /// What an object is known by, and its version. Whatever else is wrong with it, these can be read.
    pub(super) fn head(self, json: &RawValue) -> Head {
        let HeadMeta { name, namespace, uid, resource_version } =
            serde_json::from_str::<WithHead>(json.get()).unwrap_or_default().metadata;
        let version = resource_version.filter(|version| !version.is_empty());
        // Nothing is made Events of about the others.
        let uid = uid.filter(|_| self == Self::Services);
        Head { key: Key { namespace: namespace.into(), name: name.into() }, version, uid }
    }

    /// What an Event about one of it is about.
    pub(super) fn about(self, key: &Key) -> Option<About> {
        let (namespace, name) = (key.namespace.clone(), key.name.clone());
        match self {
            Self::Services => Some(About::Service(ServiceId { namespace, name })),
            Self::EndpointSlices => Some(About::Slice(SliceId { namespace, name })),
            Self::OwnNode => Some(About::Node),
            Self::ServiceCidrs => None,
        }
    }

    /// The event that says that an object is gone.
    pub(super) fn removed(self, key: &Key) -> Event {
        let (namespace, name) = (key.namespace.clone(), key.name.clone());
        match self {
            Self::Services => Event::ServiceRemoved(ServiceId { namespace, name }),
            Self::EndpointSlices => Event::SliceRemoved(SliceId { namespace, name }),
            Self::OwnNode => Event::NodeRemoved((*name).into()),
            Self::ServiceCidrs => Event::ServiceCidrRemoved((*name).into()),
        }
    }

    /// As messages name one of it: `Service default/web`.
    pub(super) fn describe(self, key: &Key) -> Box<str> {
        let Key { namespace, name } = key;
        match self {
            Self::Services => format!("Service {namespace}/{name}"),
            Self::EndpointSlices => format!("EndpointSlice {namespace}/{name}"),
            Self::OwnNode => format!("Node {name}"),
            Self::ServiceCidrs => format!("ServiceCIDR {name}"),
        }
        .into()
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Services => "Services",
            Self::EndpointSlices => "EndpointSlices",
            Self::OwnNode => "this node's Node",
            Self::ServiceCidrs => "ServiceCIDRs",
        })
    }
}

impl Object {
    /// Takes out of it what the operator does not let it choose.
    pub(super) fn restrict(&mut self, policy: &AnnotationPolicy) {
        match &mut self.content {
            Ok(Some(Event::ServiceApplied(service))) => {
                self.ignored.extend(policy.restrict_service(service).into_iter().map(Unreadable::from));
            }
            Ok(Some(Event::SliceApplied(slice))) => {
                self.ignored.extend(policy.restrict_slice(slice).map(Unreadable::from));
            }
            _ => {}
        }
    }
}

/// Reads a Node.
pub(super) fn node(json: &RawValue, left_out: &mut impl Extend<Invalid>) -> Result<model::Node, Unreadable> {
    api::read::<api::Node>(json.get()).map_err(Unreadable::from).and_then(|node| Ok(node.convert(left_out)?))
}

impl From<Invalid> for Unreadable {
    fn from(Invalid { field, message }: Invalid) -> Self {
        Self { field: (!field.is_empty()).then(|| field.into()), message: message.into() }
    }
}
