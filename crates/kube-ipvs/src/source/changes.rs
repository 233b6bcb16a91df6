use std::{fmt, sync::Arc};

use jiff::Timestamp;
use proxier::{
    Completeness,
    model::{Event, Family, ServiceId},
};
use proxier_kubernetes::Invalid;

use crate::events::EventNote;

/// The differences since the source last delivered changes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// Changes of the state, in order.
    pub events: Vec<Event>,
    /// New problems. kube-ipvs does not report a problem again while it lasts.
    pub problems: Vec<Problem>,
    /// Facts that kube-ipvs records as Events.
    pub event_notes: Vec<EventNote>,
    /// The UIDs of applied Services. `None` for a Service that is gone or has no UID.
    pub uids: Vec<(ServiceId, Option<Box<str>>)>,
    /// The first objects that kube-ipvs could never read, as messages name them. They keep the state incomplete.
    pub unread: Vec<Box<str>>,
    /// Valid input that may surprise an operator.
    pub notes: Vec<Note>,
    /// Whether the state is complete. A folder is complete if every file could be read and parsed at least once. An API
    /// server is complete if it listed all Services and EndpointSlices, and each of them could be parsed at least once.
    pub complete: Completeness,
    /// When the changes behind EndpointSlice updates happened, and the family of each slice. Slices without that
    /// annotation have no entry.
    pub triggers: Vec<(Family, Timestamp)>,
}

impl Changes {
    /// Whether there is no event, no problem and no note.
    pub fn is_empty(&self) -> bool {
        self.events.is_empty() && self.problems.is_empty() && self.notes.is_empty()
    }
}

/// A file or object that kube-ipvs cannot follow, and its place.
///
/// ```text
/// services.yaml:12:13: Service default/web: spec.ports[0].port: 70000 is not a port: 1 to 65535
/// https://10.0.0.1:6443/: Service default/web: spec.ports[0].port: 70000 is not a port: 1 to 65535
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Problem {
    /// The name of the file in the folder, the folder itself, or the URL of the API server.
    pub path: Arc<str>,
    /// The place within a file.
    pub place: Option<Place>,
    /// The object, such as `Service default/web`, if it is known.
    pub object: Option<Box<str>>,
    /// The path of the field within the object, such as `spec.ports[0].port`.
    pub field: Option<Box<str>>,
    /// The reason, for the log.
    pub message: Box<str>,
}

/// A place in a file. All numbers count from 1, and lines from the start of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The number of the YAML document in the file.
    pub document: usize,
    /// The line.
    pub line: usize,
    /// The column, in characters.
    pub column: usize,
}

impl Problem {
    pub(super) fn of_file(path: &Arc<str>, message: impl Into<Box<str>>) -> Self {
        Self { path: path.clone(), place: None, object: None, field: None, message: message.into() }
    }

    pub(super) fn of_object(path: &Arc<str>, object: Option<Box<str>>, rule: Invalid) -> Self {
        let field = Some(rule.field).filter(|field| !field.is_empty()).map(Into::into);
        Self { object, field, ..Self::of_file(path, rule.message) }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path)?;
        if let Some(place) = self.place {
            write!(f, ":{}:{}", place.line, place.column)?;
        }
        for part in [&self.object, &self.field].into_iter().flatten() {
            write!(f, ": {part}")?;
        }
        write!(f, ": {}", self.message)
    }
}

/// A fact that is no error and may surprise an operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Note {
    /// A file holds no object at all. Logged as info.
    Empty {
        /// The file.
        path: Arc<str>,
    },
    /// A file holds objects that a proxy ignores, such as a Deployment. Logged as debug.
    Ignored {
        /// The file.
        path: Arc<str>,
        /// The kinds of these objects, each once.
        kinds: Vec<Box<str>>,
    },
    /// A Service has no ClusterIP and is not headless. Only an API server would allocate one. Logged as info.
    NoClusterIp {
        /// The file.
        path: Arc<str>,
        /// The Service.
        service: ServiceId,
    },
}

impl Note {
    /// Whether an operator should see the note at the default log level.
    pub fn is_prominent(&self) -> bool {
        !matches!(self, Self::Ignored { .. })
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty { path } => write!(f, "{path}: has no objects"),
            Self::Ignored { path, kinds } => {
                write!(f, "{path}: kube-ipvs ignores objects that a proxy does not use: {}", kinds.join(", "))
            }
            Self::NoClusterIp { path, service } => write!(
                f,
                "{path}: Service {service}: has no spec.clusterIP, and only an API server allocates one. Set \
                 spec.clusterIP"
            ),
        }
    }
}
