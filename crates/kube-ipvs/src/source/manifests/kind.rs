/// The kinds of objects that a proxy acts on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Service,
    EndpointSlice,
    Endpoints,
    Node,
    ServiceCidr,
}

/// What `apiVersion` and `kind` say about an object.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Sort {
    /// One of ours.
    Known(Kind),
    /// `List`, or a list of one kind, whose items may leave out theirs.
    List(Option<Kind>),
    /// None of our business.
    Foreign,
    /// One of ours in a version that is not supported: here is the right one.
    WrongVersion(&'static str),
}

impl Kind {
    const ALL: [Self; 5] =
        [Self::Service, Self::EndpointSlice, Self::Endpoints, Self::Node, Self::ServiceCidr];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Service => "Service",
            Self::EndpointSlice => "EndpointSlice",
            Self::Endpoints => "Endpoints",
            Self::Node => "Node",
            Self::ServiceCidr => "ServiceCIDR",
        }
    }

    fn api_version(self) -> &'static str {
        match self {
            Self::EndpointSlice => "discovery.k8s.io/v1",
            Self::ServiceCidr => "networking.k8s.io/v1",
            Self::Service | Self::Endpoints | Self::Node => "v1",
        }
    }

    /// Whether it is read in this version: its own, or an earlier one that says the same in the same words.
    fn is_of(self, api_version: &str) -> bool {
        api_version == self.api_version()
            || (self == Self::ServiceCidr && api_version == "networking.k8s.io/v1beta1")
    }

    /// Whether its objects are in no namespace.
    pub(super) fn is_cluster_wide(name: &str) -> bool {
        [Self::Node, Self::ServiceCidr].iter().any(|kind| kind.name() == name)
    }
}

/// Other API groups have kinds of the same names (Knative's Service): those are none of ours. But the same kind
/// in the same group in another version, or an EndpointSlice without its group, is a mistake.
pub(super) fn sort(api_version: &str, kind: &str) -> Sort {
    if kind == "List" {
        return if api_version == "v1" { Sort::List(None) } else { Sort::WrongVersion("v1") };
    }
    let (name, is_list) = match kind.strip_suffix("List") {
        Some(name) => (name, true),
        None => (kind, false),
    };
    let Some(known) = Kind::ALL.into_iter().find(|known| known.name() == name) else {
        return Sort::Foreign;
    };
    let group = |version: &str| version.rsplit_once('/').map(|(group, _)| group.to_owned());
    match (group(api_version), group(known.api_version())) {
        _ if known.is_of(api_version) && is_list => Sort::List(Some(known)),
        _ if known.is_of(api_version) => Sort::Known(known),
        (None, _) => Sort::WrongVersion(known.api_version()),
        (ours, right) if ours == right => Sort::WrongVersion(known.api_version()),
        _ => Sort::Foreign,
    }
}
