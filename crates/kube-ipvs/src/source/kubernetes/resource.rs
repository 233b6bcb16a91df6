//! What is watched, and how one object of each kind is read.

use std::fmt;

use jiff::Timestamp;
use proxier::model::{Event, ServiceId, SliceId};
use proxier_kubernetes::{AnnotationPolicy, HEADLESS, Invalid, Key, Kind, SERVICE_PROXY_NAME};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::events::About;

/// A collection of objects that is watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Resource {
    Services,
    EndpointSlices,
    /// The Node that we run on, and no other one: all of them would be too many, and they change all the time.
    OwnNode,
    ServiceCidrs,
}

/// An object as the API server has sent it, read.
#[derive(Debug)]
pub(super) struct Object {
    pub(super) key: Key,
    /// `metadata.resourceVersion`.
    pub(super) version: Option<String>,
    /// The event that makes it known; none if a proxy like this one has nothing to do with it.
    pub(super) content: Result<Option<Event>, Invalid>,
    /// `metadata.uid`.
    pub(super) uid: Option<Box<str>>,
    /// What of it is passed over, although it can be followed.
    pub(super) ignored: Vec<Invalid>,
    /// Of an EndpointSlice: when that changed which made the control plane write it.
    pub(super) trigger: Option<Timestamp>,
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
    pub(super) const ALL: [Self; 4] = [Self::Services, Self::EndpointSlices, Self::OwnNode, Self::ServiceCidrs];

    fn kind(self) -> Kind {
        match self {
            Self::Services => Kind::Service,
            Self::EndpointSlices => Kind::EndpointSlice,
            Self::OwnNode => Kind::Node,
            Self::ServiceCidrs => Kind::ServiceCidr,
        }
    }

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

    /// Reads an object, of which Services may choose what the policy allows.
    pub(super) fn read(self, json: &RawValue, policy: &AnnotationPolicy) -> Object {
        let Head { key, version, uid } = self.head(json);
        let (content, ignored, trigger) = match proxier_kubernetes::Object::read(self.kind(), json.get(), policy) {
            Ok((object, remarks)) => (Ok(object.event), remarks.told().collect(), object.trigger_time),
            Err(invalid) => (Err(invalid), Vec::new(), None),
        };
        Object { key, version, content, uid, ignored, trigger }
    }

    /// What an object is known by, and its version. Whatever else is wrong with it, these can be read.
    pub(super) fn head(self, json: &RawValue) -> Head {
        let HeadMeta { name, namespace, uid, resource_version } =
            serde_json::from_str::<WithHead>(json.get()).unwrap_or_default().metadata;
        let version = resource_version.filter(|version| !version.is_empty());
        // Nothing is made Events of about the others.
        let uid = uid.filter(|_| self == Self::Services);
        Head { key: Key::new(self.kind(), &namespace, &name), version, uid }
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
