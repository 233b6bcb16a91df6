use proxier_kubernetes::Kind;

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

/// Whether objects of the kind with this name are in no namespace.
pub(super) fn is_cluster_wide(name: &str) -> bool {
    Kind::ALL.iter().any(|kind| kind.name() == name && !kind.is_namespaced())
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
