//! A file's content to objects and problems.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    sync::Arc,
};

use serde::de::DeserializeSeed;
use serde_saphyr::{Error, Location, Options};

use super::{
    Note, Place, Problem,
    document::{Document, documents},
    kind::{Kind, Sort, sort},
    locate::{Step, locate, path_of, steps},
    message::{is_about_a_value, message_of},
    object::{Key, Object},
    read::{self, Found, Header, HeaderSeed, Plan},
};
use crate::{config::AnnotationPolicy, source::wire::Invalid};

/// A file with more problems than this needs no longer list.
const MAX_PROBLEMS: usize = 20;

/// The field of a problem deeper than this says nothing to anybody.
const MAX_STEPS: usize = 16;

/// What a file says.
#[derive(Debug, Default)]
pub(super) struct Parsed {
    /// Its objects. Those of a file with errors are not to be used.
    pub(super) objects: BTreeMap<Key, Arc<Object>>,
    /// Why it cannot be followed.
    pub(super) errors: Vec<Problem>,
    /// What is wrong although it can be followed.
    pub(super) warnings: Vec<Problem>,
    /// What may surprise.
    pub(super) notes: Vec<Note>,
}

/// Reads a file, all or nothing: half a file is never in force.
pub(super) fn parse(path: &Arc<str>, content: &[u8], annotations: &AnnotationPolicy) -> Parsed {
    let mut parsed = Parsed::default();
    let text = match text_of(content) {
        Ok(text) => text,
        Err((place, message)) => {
            let problem = Problem { place, ..Problem::of_file(path, message) };
            parsed.errors.push(problem);
            return parsed;
        }
    };
    let mut foreign: Vec<Box<str>> = Vec::new();
    let documents = documents(text);
    for document in &documents {
        let reader = Reader { path, document, annotations, options: options() };
        reader.read(&mut parsed, &mut foreign);
        if parsed.errors.len() >= MAX_PROBLEMS {
            parsed.errors.truncate(MAX_PROBLEMS);
            break;
        }
    }
    if !foreign.is_empty() {
        foreign.sort();
        foreign.dedup();
        parsed.notes.push(Note::Ignored { path: path.clone(), kinds: foreign });
    } else if text.trim().is_empty() {
        // As a file is for a moment while something writes it.
        parsed.errors.push(Problem::of_file(path, "is empty; to remove what it held, remove the file"));
    } else if parsed.objects.is_empty() && parsed.errors.is_empty() {
        parsed.notes.push(Note::Empty { path: path.clone() });
    }
    parsed
}

/// Aliases can make little text into much data, so they are bounded tightly; all else is bounded by the size
/// of the file.
fn options() -> Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_events: usize::MAX,
            max_nodes: usize::MAX,
            max_total_scalar_bytes: usize::MAX,
            max_total_comment_bytes: usize::MAX,
            max_buffered_comment_events: 10_000,
            max_aliases: 1_000,
            max_anchors: 1_000,
            max_merge_keys: 1_000,
            max_recorded_anchor_events: 100_000,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: 100_000,
            max_replay_stack_depth: 8,
        },
        with_snippet: false,
    }
}

fn text_of(content: &[u8]) -> Result<&str, (Option<Place>, String)> {
    if content.contains(&0) {
        return Err((None, "is not a text file: it holds NUL bytes".into()));
    }
    str::from_utf8(content).map_err(|error| {
        let (valid, rest) = content.split_at(error.valid_up_to());
        let valid = String::from_utf8_lossy(valid);
        let line_start = valid.rfind('\n').map_or(0, |end| end + 1);
        let place = Place {
            document: 1,
            line: valid.matches('\n').count() + 1,
            column: valid[line_start..].chars().count() + 1,
        };
        let byte = rest.first().copied().unwrap_or_default();
        (Some(place), format!("is not UTF-8 text: byte 0x{byte:02x} cannot stand here"))
    })
}

/// Reads one document.
struct Reader<'a> {
    path: &'a Arc<str>,
    document: &'a Document<'a>,
    annotations: &'a AnnotationPolicy,
    options: Options,
}

impl Reader<'_> {
    fn read(&self, parsed: &mut Parsed, foreign: &mut Vec<Box<str>>) {
        let header = match self.header() {
            Ok(header) => header,
            Err(problem) => return parsed.errors.push(*problem),
        };
        if header.is_null {
            return;
        }
        let plan = match self.plan(&header, foreign) {
            Ok(Some(plan)) => plan,
            Ok(None) => return,
            Err(problem) => return parsed.errors.push(*problem),
        };
        let mut found: Vec<Found> = Vec::new();
        let result = self.parse(|deserializer| read::objects(&plan, deserializer, &mut found));
        if let Err(error) = result {
            return parsed.errors.push(self.refused(&plan, &header, &error));
        }
        for (item, result) in found {
            let (about, prefix) = about(&header, item);
            let problem = |Invalid { field, message }| {
                self.broken_rule(describe(about), format!("{prefix}{field}"), message)
            };
            match result {
                // Each costs another look at the text, for its place.
                Err(_) if parsed.errors.len() >= MAX_PROBLEMS => break,
                Err(invalid) => parsed.errors.push(problem(invalid)),
                Ok((mut object, ignored)) => {
                    let refused = object.restrict(self.annotations);
                    let room = MAX_PROBLEMS.saturating_sub(parsed.warnings.len());
                    parsed.warnings.extend(ignored.told().chain(refused).take(room).map(problem));
                    self.take(object, problem, parsed);
                }
            }
        }
    }

    /// Adds an object to what the file holds.
    fn take(&self, object: Object, problem: impl Fn(Invalid) -> Problem, parsed: &mut Parsed) {
        if let Object::Service(service) = &object
            && service.lacks_cluster_ip
        {
            let (path, service) = (self.path.clone(), service.service.id.clone());
            parsed.notes.push(Note::NoClusterIp { path, service });
        }
        match parsed.objects.entry(object.key()) {
            Entry::Vacant(entry) => {
                entry.insert(Arc::new(object));
            }
            Entry::Occupied(_) => parsed.errors.push(problem(Invalid {
                field: "metadata.name".into(),
                message: "this object stands in this file already".into(),
            })),
        }
    }

    /// What is wrong with a field that reads well by itself.
    fn broken_rule(&self, object: Option<Box<str>>, field: String, message: String) -> Problem {
        let place = locate(self.document.text, &steps(&field), &self.options);
        Problem {
            path: self.path.clone(),
            place: place.and_then(|location| self.place(location)),
            object,
            field: Some(field.into()),
            message: message.into(),
        }
    }

    fn parse<'de, R>(
        &'de self,
        read: impl for<'e> FnOnce(serde_saphyr::Deserializer<'de, 'e>) -> Result<R, Error>,
    ) -> Result<R, Error> {
        serde_saphyr::with_deserializer_from_str_with_options(self.document.text, self.options.clone(), read)
    }

    fn header(&self) -> Result<Header, Box<Problem>> {
        let mut header = Header::default();
        let seed = HeaderSeed { header: &mut header, may_stop: true };
        match self.parse(|deserializer| seed.deserialize(deserializer)) {
            Err(error) if !header.is_complete() => {
                let path = self.path_of_error(|tracked| {
                    let seed = HeaderSeed { header: &mut Header::default(), may_stop: true };
                    seed.deserialize(tracked)
                });
                Err(Box::new(self.problem(&header, None, &path, &error)))
            }
            _ => Ok(header),
        }
    }

    /// What to read of a document with this header; `None` if nothing.
    fn plan(&self, header: &Header, foreign: &mut Vec<Box<str>>) -> Result<Option<Plan>, Box<Problem>> {
        let list_of = match self.sort(header, "", None)? {
            Sort::Known(kind) => return Ok(Some(Plan::One(kind))),
            Sort::List(kind) => kind,
            _ => {
                foreign.extend(header.kind.as_deref().map(Box::from));
                return Ok(None);
            }
        };
        let mut kinds = Vec::with_capacity(header.items.len());
        for (index, item) in header.items.iter().enumerate() {
            kinds.push(match self.sort(item, &format!("items[{index}]."), list_of)? {
                Sort::Known(kind) => Some(kind),
                _ => {
                    foreign.extend(item.kind.as_deref().map(Box::from));
                    None
                }
            });
        }
        Ok(Some(Plan::List(kinds)))
    }

    fn sort(&self, header: &Header, prefix: &str, list_of: Option<Kind>) -> Result<Sort, Box<Problem>> {
        let refuse = |field: &str, message: String| {
            Err(Box::new(self.broken_rule(describe(header), format!("{prefix}{field}"), message)))
        };
        match (&header.api_version, &header.kind, list_of) {
            // Lists of one kind, as the API server writes them, leave both out.
            (None, None, Some(kind)) => Ok(Sort::Known(kind)),
            (_, None, _) => refuse("kind", "is missing".into()),
            (None, ..) => refuse("apiVersion", "is missing".into()),
            (Some(version), Some(kind), _) => match sort(version, kind) {
                Sort::WrongVersion(right) => {
                    refuse("apiVersion", format!("{version:?} is not supported: {kind} is of {right}"))
                }
                Sort::List(_) if !prefix.is_empty() => refuse("kind", "a list cannot be in a list".into()),
                sort => Ok(sort),
            },
        }
    }

    fn refused(&self, plan: &Plan, header: &Header, error: &Error) -> Problem {
        let path = self.path_of_error(|tracked| read::objects(plan, tracked, &mut Vec::new()));
        let item = match path[..] {
            [Step::Key(_), Step::Index(index), ..] if matches!(plan, Plan::List(_)) => Some(index),
            _ => None,
        };
        self.problem(header, item, &path, error)
    }

    /// Reads once more, this time keeping track of the path to where it fails. That costs too much to do it always.
    fn path_of_error<R>(
        &self,
        read: impl for<'a, 'b, 'de, 'e> FnOnce(
            serde_path_to_error::Deserializer<'a, 'b, serde_saphyr::Deserializer<'de, 'e>>,
        ) -> Result<R, Error>,
    ) -> Vec<Step> {
        let mut track = serde_path_to_error::Track::new();
        let result = self.parse(|deserializer| {
            read(serde_path_to_error::Deserializer::new(deserializer, &mut track)).map(drop)
        });
        // It fails as it did before: nothing has changed since.
        debug_assert!(result.is_err());
        track.path().iter().filter_map(step).collect()
    }

    fn problem(&self, header: &Header, item: Option<usize>, path: &[Step], error: &Error) -> Problem {
        let error = error.without_snippet();
        // A value that is wrong stands where its field does; the parser may have read on a little.
        let of_field =
            if is_about_a_value(error) { locate(self.document.text, path, &self.options) } else { None };
        Problem {
            path: self.path.clone(),
            place: of_field.or(error.location()).and_then(|location| self.place(location)),
            object: describe(about(header, item).0),
            field: Some(path_of(path))
                .filter(|field| !field.is_empty() && path.len() <= MAX_STEPS)
                .map(Into::into),
            message: message_of(error).into(),
        }
    }

    fn place(&self, location: Location) -> Option<Place> {
        let line = usize::try_from(location.line()).ok().filter(|line| *line > 0)?;
        let column = usize::try_from(location.column()).ok()?;
        Some(Place { document: self.document.number, line: line + self.document.lines_before, column })
    }
}

/// The header of an item, or of the document where it is no list, and the path of its fields.
fn about(header: &Header, item: Option<usize>) -> (&Header, String) {
    match item.and_then(|index| Some((index, header.items.get(index)?))) {
        Some((index, item)) => (item, format!("items[{index}].")),
        None => (header, String::new()),
    }
}

/// As messages name it: `Service default/web`.
fn describe(header: &Header) -> Option<Box<str>> {
    let kind = header.kind.as_deref()?;
    let Some(name) = &header.name else { return Some(kind.into()) };
    let namespace = header.namespace.as_deref().unwrap_or("default");
    Some(match kind {
        _ if Kind::is_cluster_wide(kind) => format!("{kind} {name}").into(),
        _ => format!("{kind} {namespace}/{name}").into(),
    })
}

fn step(segment: &serde_path_to_error::Segment) -> Option<Step> {
    use serde_path_to_error::Segment;
    match segment {
        Segment::Seq { index } => Some(Step::Index(*index)),
        Segment::Map { key } => Some(Step::Key(key.clone())),
        Segment::Enum { .. } | Segment::Unknown => None,
    }
}
