use proxier_kubernetes::Kind;

/// The kind of an object by its `apiVersion` and `kind`.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Sort {
    /// A kind that kube-ipvs follows.
    Known(Kind),
    /// `List`, or a list of one kind, whose items may omit their kind.
    List(Option<Kind>),
    /// A kind that kube-ipvs ignores.
    Foreign,
    /// A followed kind in an unsupported version, with the supported one.
    WrongVersion(&'static str),
}

pub(super) fn is_cluster_wide(name: &str) -> bool {
    Kind::ALL.iter().any(|kind| kind.name() == name && !kind.is_namespaced())
}

/// Other API groups have kinds of the same name, such as Knative's Service; kube-ipvs ignores them. Another version of
/// the right group is a mistake, and so is an EndpointSlice without its group.
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
    let is_of = Kind::of(api_version, name).is_some();
    let group = |version: &str| version.rsplit_once('/').map(|(group, _)| group.to_owned());
    match (group(api_version), group(known.api_version())) {
        _ if is_of && is_list => Sort::List(Some(known)),
        _ if is_of => Sort::Known(known),
        (None, _) => Sort::WrongVersion(known.api_version()),
        (ours, right) if ours == right => Sort::WrongVersion(known.api_version()),
        _ => Sort::Foreign,
    }
}
