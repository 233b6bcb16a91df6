//! Finds the objects of a document.

use proxier_kubernetes::{Invalid, Kind, from_json};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::kind::{Sort, is_cluster_wide, sort};

#[derive(Debug, Default, Deserialize)]
#[serde(
    default,
    rename_all = "camelCase",
    expecting = "a Kubernetes object with fields such as apiVersion, kind and metadata"
)]
pub(super) struct Header<'a> {
    api_version: Option<String>,
    kind: Option<String>,
    metadata: Option<HeaderMeta>,
    /// The items of a list. In other kinds `items` can have any shape.
    #[serde(borrow)]
    items: Option<&'a RawValue>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct HeaderMeta {
    name: Option<String>,
    namespace: Option<String>,
}

/// A document, or an item if the document is a list.
#[derive(Debug)]
pub(super) struct Item<'a> {
    pub(super) json: &'a str,
    /// The name in messages, such as `Service default/web`.
    pub(super) name: Option<Box<str>>,
    /// The path prefix of its fields, such as `items[0].`; empty for a document.
    pub(super) prefix: String,
    /// The kind, or the name of a kind that kube-ipvs ignores.
    pub(super) kind: Result<Kind, Box<str>>,
}

#[derive(Debug)]
pub(super) struct Broken {
    pub(super) object: Option<Box<str>>,
    /// The violated rule. Its field is a path in the document.
    pub(super) rule: Invalid,
}

pub(super) fn items<'a>(json: &'a str) -> Result<Vec<Result<Item<'a>, Broken>>, Broken> {
    let of_document = |header: &Header<'_>, rule| Broken { object: header.describe(), rule };
    let header = Header::read(json).map_err(|rule| of_document(&Header::default(), rule))?;
    let list_of = match header.sort(None) {
        Ok(Sort::List(kind)) => kind,
        _ => return Ok(vec![header.item(json, String::new(), None)]),
    };
    let Some(items) = header.items else { return Ok(Vec::new()) };
    let items: Vec<&'a RawValue> = from_json(items.get())
        .map_err(|rule| of_document(&header, Invalid { field: format!("items{}", rule.field), ..rule }))?;
    let item = |(index, json): (usize, &&'a RawValue)| {
        let prefix = format!("items[{index}].");
        match Header::read(json.get()) {
            Ok(header) => header.item(json.get(), prefix, Some(list_of)),
            Err(rule) => Err(of_document(&Header::default(), within(&prefix, rule))),
        }
    };
    Ok(items.iter().enumerate().map(item).collect())
}

/// Turns a field path of the object into one of the document.
pub(super) fn within(prefix: &str, Invalid { field, message }: Invalid) -> Invalid {
    let field = format!("{prefix}{field}");
    Invalid { field: field.trim_end_matches('.').into(), message }
}

impl<'a> Header<'a> {
    fn read(json: &'a str) -> Result<Self, Invalid> {
        // serde can also read a struct from a list. No Kubernetes object is a list.
        if json.starts_with('[') {
            let message = "this is a list, not a Kubernetes object with fields such as apiVersion, kind and metadata";
            return Err(Invalid { field: String::new(), message: message.into() });
        }
        from_json(json)
    }

    /// `list_of` is the list around the object: of one kind, or of any kind.
    fn item(&self, json: &'a str, prefix: String, list_of: Option<Option<Kind>>) -> Result<Item<'a>, Broken> {
        let broken = |rule| Broken { object: self.describe(), rule: within(&prefix, rule) };
        let kind = match self.sort(list_of.flatten()).map_err(broken)? {
            Sort::Known(kind) => Ok(kind),
            Sort::List(_) if list_of.is_some() => {
                return Err(broken(invalid("kind", "a list cannot contain a list")));
            }
            _ => Err(self.kind.as_deref().unwrap_or_default().into()),
        };
        Ok(Item { json, name: self.describe(), prefix, kind })
    }

    fn sort(&self, list_of: Option<Kind>) -> Result<Sort, Invalid> {
        match (&self.api_version, &self.kind, list_of) {
            // The API server omits both in a list of one kind.
            (None, None, Some(kind)) => Ok(Sort::Known(kind)),
            (_, None, _) => Err(invalid("kind", "is missing")),
            (None, ..) => Err(invalid("apiVersion", "is missing")),
            (Some(version), Some(kind), _) => match sort(version, kind) {
                Sort::WrongVersion(right) => {
                    Err(invalid("apiVersion", &format!("{version:?} is not supported: for {kind}, use {right}")))
                }
                sort => Ok(sort),
            },
        }
    }

    fn describe(&self) -> Option<Box<str>> {
        let kind = self.kind.as_deref()?;
        let Some(HeaderMeta { name: Some(name), namespace }) = &self.metadata else {
            return Some(kind.into());
        };
        let namespace = namespace.as_deref().unwrap_or("default");
        Some(match kind {
            _ if is_cluster_wide(kind) => format!("{kind} {name}").into(),
            _ => format!("{kind} {namespace}/{name}").into(),
        })
    }
}

fn invalid(field: &str, message: &str) -> Invalid {
    Invalid { field: field.into(), message: message.into() }
}
