use std::{fmt, sync::Arc};

use proxier::model::{Event, ServiceId, SliceId};

/// The kinds of objects that a Service proxy acts on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A Node (`v1`).
    Node,
    /// A ServiceCIDR (`networking.k8s.io/v1`).
    ServiceCidr,
    /// A Service (`v1`).
    Service,
    /// An EndpointSlice (`discovery.k8s.io/v1`).
    EndpointSlice,
    /// Endpoints (`v1`), the predecessor of EndpointSlices.
    Endpoints,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 5] = [Self::Node, Self::ServiceCidr, Self::Service, Self::EndpointSlice, Self::Endpoints];

    /// The kind of an object with this `apiVersion` and `kind`; `None` if a proxy acts on no such objects.
    ///
    /// ```
    /// use proxier_kubernetes::Kind;
    ///
    /// assert_eq!(Kind::of("v1", "Service"), Some(Kind::Service));
    /// assert_eq!(Kind::of("serving.knative.dev/v1", "Service"), None);
    /// ```
    pub fn of(api_version: &str, kind: &str) -> Option<Self> {
        // v1beta1 has the same fields.
        let is_of = |known: &Self| {
            api_version == known.api_version()
                || (*known == Self::ServiceCidr && api_version == "networking.k8s.io/v1beta1")
        };
        Self::ALL.into_iter().find(|known| known.name() == kind).filter(is_of)
    }

    /// The `kind` of such an object.
    pub fn name(self) -> &'static str {
        match self {
            Self::Node => "Node",
            Self::ServiceCidr => "ServiceCIDR",
            Self::Service => "Service",
            Self::EndpointSlice => "EndpointSlice",
            Self::Endpoints => "Endpoints",
        }
    }

    /// The `apiVersion` of such an object.
    pub fn api_version(self) -> &'static str {
        match self {
            Self::EndpointSlice => "discovery.k8s.io/v1",
            Self::ServiceCidr => "networking.k8s.io/v1",
            Self::Service | Self::Endpoints | Self::Node => "v1",
        }
    }

    /// Whether its objects belong to namespaces.
    pub fn is_namespaced(self) -> bool {
        !matches!(self, Self::Node | Self::ServiceCidr)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Identifies an object. `Display` prints it as messages name the object: `Service default/web`, `Node node-1`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// The kind of the object.
    pub kind: Kind,
    /// `metadata.namespace`; empty for a cluster-scoped object.
    pub namespace: Arc<str>,
    /// `metadata.name`.
    pub name: Arc<str>,
}

impl Key {
    /// The key of an object. The namespace of a cluster-scoped object is empty.
    pub fn new(kind: Kind, namespace: &str, name: &str) -> Self {
        Self { kind, namespace: namespace.into(), name: name.into() }
    }

    /// The event that removes the object. `None` for Endpoints, which have no event.
    ///
    /// ```
    /// use proxier::model::{Event, ServiceId};
    /// use proxier_kubernetes::{Key, Kind};
    ///
    /// let removed = Key::new(Kind::Service, "default", "web").removed();
    /// assert_eq!(removed, Some(Event::ServiceRemoved(ServiceId::new("default", "web"))));
    /// ```
    pub fn removed(&self) -> Option<Event> {
        let (namespace, name) = (self.namespace.clone(), self.name.clone());
        Some(match self.kind {
            Kind::Node => Event::NodeRemoved((*name).into()),
            Kind::ServiceCidr => Event::ServiceCidrRemoved((*name).into()),
            Kind::Service => Event::ServiceRemoved(ServiceId { namespace, name }),
            Kind::EndpointSlice => Event::SliceRemoved(SliceId { namespace, name }),
            Kind::Endpoints => return None,
        })
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, namespace, name } = self;
        if kind.is_namespaced() { write!(f, "{kind} {namespace}/{name}") } else { write!(f, "{kind} {name}") }
    }
}
