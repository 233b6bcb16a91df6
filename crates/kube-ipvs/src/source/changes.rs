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
    /// What is different in the world now.
    pub events: Vec<Event>,
    /// What is wrong since now; what was wrong before is not said again.
    pub problems: Vec<Problem>,
    /// What an operator must know of it.
    pub event_notes: Vec<EventNote>,
    /// The UIDs of the Services that are new; none of those that are gone.
    pub uids: Vec<(ServiceId, Option<Box<str>>)>,
    /// The first of the objects because of which not all that exists is known, as messages name them.
    pub unread: Vec<Box<str>>,
    /// What is as it should be and yet may surprise.
    pub notes: Vec<Note>,
    /// Whether all that exists is known: the folder can be read and each of its files could be followed at some time;
    /// or the API server has listed everything, and each object could be followed at some time.
    pub complete: Completeness,
    /// When that changed in the world from which changes of EndpointSlices follow, as far as these say so, and of which
    /// family they are.
    pub triggers: Vec<(Family, Timestamp)>,
}

impl Changes {
    /// Whether there is nothing to do and nothing to say.
    pub fn is_empty(&self) -> bool {
        self.events.is_empty() && self.problems.is_empty() && self.notes.is_empty()
    }
}

/// Something that cannot be followed, and where it stands.
///
/// ```text
/// services.yaml:12:13: Service default/web: spec.ports[0].port: 70000 is not a port: 1 to 65535
/// https://10.0.0.1:6443/: Service default/web: spec.ports[0].port: 70000 is not a port: 1 to 65535
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Problem {
    /// The file, by its name in the folder; or the folder itself; or the URL of the API server.
    pub path: Arc<str>,
    /// The place within the file, where there is one.
    pub place: Option<Place>,
    /// The object, such as `Service default/web`, as far as it is known.
    pub object: Option<Box<str>>,
    /// The path of the field within the object, such as `spec.ports[0].port`.
    pub field: Option<Box<str>>,
    /// What is wrong.
    pub message: Box<str>,
}

/// A place in a file. All count from 1, lines from the start of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// Which of the file's YAML documents.
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

    /// An object, or a part of it, breaks this rule.
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

/// Something that is no error and yet may surprise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Note {
    /// A file holds no object at all (worth an info).
    Empty {
        /// The file.
        path: Arc<str>,
    },
    /// A file holds objects that a proxy has nothing to do with, such as a Deployment (worth a debug).
    Ignored {
        /// The file.
        path: Arc<str>,
        /// Their kinds, each once.
        kinds: Vec<Box<str>>,
    },
    /// A Service has no ClusterIP and is not headless: only an API server would give it one (worth an info).
    NoClusterIp {
        /// The file.
        path: Arc<str>,
        /// The Service.
        service: ServiceId,
    },
}

impl Note {
    /// Whether users should see it without asking for details.
    pub fn is_prominent(&self) -> bool {
        !matches!(self, Self::Ignored { .. })
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty { path } => write!(f, "{path}: holds no objects"),
            Self::Ignored { path, kinds } => {
                write!(f, "{path}: left aside, no business of a proxy: {}", kinds.join(", "))
            }
            Self::NoClusterIp { path, service } => write!(
                f,
                "{path}: Service {service}: has no spec.clusterIP, and there is no API server here to give it one"
            ),
        }
    }
}
