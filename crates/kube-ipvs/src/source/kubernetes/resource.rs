//! The watched resources, and how kube-ipvs parses their objects.

use std::fmt;

use jiff::Timestamp;
use proxier::model::{Event, ServiceId, SliceId};
use proxier_kubernetes::{AnnotationPolicy, HEADLESS, Invalid, Key, Kind, SERVICE_PROXY_NAME};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::events::About;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Resource {
    Services,
    EndpointSlices,
    /// The Node that kube-ipvs runs on. Watching all Nodes would be too much: they are many and change often.
    OwnNode,
    ServiceCidrs,
}

#[derive(Debug)]
pub(crate) struct Object {
    pub(crate) key: Key,
    pub(crate) version: Option<String>,
    /// The event that applies the object; `None` if kube-ipvs ignores it.
    pub(crate) content: Result<Option<Event>, Invalid>,
    pub(crate) uid: Option<Box<str>>,
    /// Fields that kube-ipvs ignores although it follows the object.
    pub(crate) ignored: Vec<Invalid>,
    /// For an EndpointSlice, when the change happened that made the control plane write it.
    pub(crate) trigger: Option<Timestamp>,
}

#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) key: Key,
    pub(crate) version: Option<String>,
    pub(crate) uid: Option<Box<str>>,
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
    pub(crate) const ALL: [Self; 4] = [Self::Services, Self::EndpointSlices, Self::OwnNode, Self::ServiceCidrs];

    fn kind(self) -> Kind {
        match self {
            Self::Services => Kind::Service,
            Self::EndpointSlices => Kind::EndpointSlice,
            Self::OwnNode => Kind::Node,
            Self::ServiceCidrs => Kind::ServiceCidr,
        }
    }

    pub(crate) fn path(self) -> &'static str {
        match self {
            Self::Services => "/api/v1/services",
            Self::EndpointSlices => "/apis/discovery.k8s.io/v1/endpointslices",
            Self::OwnNode => "/api/v1/nodes",
            Self::ServiceCidrs => "/apis/networking.k8s.io/v1/servicecidrs",
        }
    }

    /// The name in the API and in metrics, such as `endpointslices`.
    pub(crate) fn word(self) -> &'static str {
        self.path().rsplit('/').next().unwrap_or_default()
    }

    /// As in kube-proxy. The API server omits objects labelled as headless or as served by another proxy.
    pub(crate) fn label_selector(self) -> Option<String> {
        match self {
            Self::Services | Self::EndpointSlices => Some(format!("!{HEADLESS},!{SERVICE_PROXY_NAME}")),
            Self::OwnNode | Self::ServiceCidrs => None,
        }
    }

    /// Whether the engine needs the complete list to start. The other resources are optional: an API server can lack
    /// them or deny access.
    pub(crate) fn is_vital(self) -> bool {
        matches!(self, Self::Services | Self::EndpointSlices)
    }

    pub(crate) fn read(self, json: &RawValue, policy: &AnnotationPolicy) -> Object {
        let Head { key, version, uid } = self.head(json);
        let (content, ignored, trigger) = match proxier_kubernetes::Object::read(self.kind(), json.get(), policy) {
            Ok((object, remarks)) => (Ok(object.event), remarks.into_messages().collect(), object.trigger_time),
            Err(invalid) => (Err(invalid), Vec::new(), None),
        };
        Object { key, version, content, uid, ignored, trigger }
    }

    /// These fields can be read from an otherwise invalid object.
    pub(crate) fn head(self, json: &RawValue) -> Head {
        let HeadMeta { name, namespace, uid, resource_version } =
            serde_json::from_str::<WithHead>(json.get()).unwrap_or_default().metadata;
        let version = resource_version.filter(|version| !version.is_empty());
        // Only Events about Services carry this UID.
        let uid = uid.filter(|_| self == Self::Services);
        Head { key: Key::new(self.kind(), &namespace, &name), version, uid }
    }

    pub(crate) fn about(self, key: &Key) -> Option<About> {
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
