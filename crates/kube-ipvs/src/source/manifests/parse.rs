//! Parses the content of a file into objects and problems.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    sync::Arc,
};

use proxier::model::ServiceId;
use proxier_kubernetes::{AnnotationPolicy, Invalid, Key, Object, Remarks};
use serde_saphyr::Location;

use super::{
    Note, Place, Problem,
    document::{Document, documents},
    header::{Broken, Item, items, within},
    locate::{locate, steps},
    yaml,
};

/// How many problems kube-ipvs reports per file.
const MAX_PROBLEMS: usize = 20;

#[derive(Debug, Default)]
pub(super) struct Parsed {
    /// Not to be used if the file has errors.
    pub(super) objects: BTreeMap<Key, Arc<Object>>,
    pub(super) errors: Vec<Problem>,
    pub(super) warnings: Vec<Problem>,
    pub(super) notes: Vec<Note>,
}

/// Accepts a file completely or not at all: half a file is never in force.
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
        let reader = Reader { path, document, annotations };
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
        // A file is empty for a moment while a program writes it.
        parsed.errors.push(Problem::of_file(path, "is empty. To remove its objects, remove the file"));
    } else if parsed.objects.is_empty() && parsed.errors.is_empty() {
        parsed.notes.push(Note::Empty { path: path.clone() });
    }
    parsed
}

fn text_of(content: &[u8]) -> Result<&str, (Option<Place>, String)> {
    if content.contains(&0) {
        return Err((None, "is not a text file: it has NUL bytes".into()));
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
        (Some(place), format!("is not UTF-8 text: byte 0x{byte:02x} is invalid here"))
    })
}

struct Reader<'a> {
    path: &'a Arc<str>,
    document: &'a Document<'a>,
    annotations: &'a AnnotationPolicy,
}

impl Reader<'_> {
    fn read(&self, parsed: &mut Parsed, foreign: &mut Vec<Box<str>>) {
        let json = match yaml::to_json(self.document.text) {
            Ok(json) if json == "null" => return,
            Ok(json) => json,
            Err(error) => return parsed.errors.push(self.malformed(&error)),
        };
        let items = match items(&json) {
            Ok(items) => items,
            Err(broken) => return parsed.errors.push(self.problem(broken)),
        };
        for item in items {
            // Each problem parses the text once more for its position.
            if parsed.errors.len() >= MAX_PROBLEMS {
                break;
            }
            match item {
                Ok(Item { kind: Err(kind), .. }) => foreign.push(kind),
                Ok(Item { kind: Ok(kind), json, name, prefix }) => {
                    let problem = |rule| self.problem(Broken { object: name.clone(), rule: within(&prefix, rule) });
                    match Object::read(kind, json, self.annotations) {
                        Ok((object, remarks)) => self.take(object, remarks, problem, parsed),
                        Err(rule) => parsed.errors.push(problem(rule)),
                    }
                }
                Err(broken) => parsed.errors.push(self.problem(broken)),
            }
        }
    }

    fn take(&self, object: Object, remarks: Remarks, problem: impl Fn(Invalid) -> Problem, parsed: &mut Parsed) {
        // kube-ipvs applies no object of a file in part. The last good content stays in force.
        if let Some(rule) = remarks.left_out.into_messages().next() {
            return parsed.errors.push(problem(rule));
        }
        let room = MAX_PROBLEMS.saturating_sub(parsed.warnings.len());
        parsed.warnings.extend(remarks.ignored.into_messages().take(room).map(&problem));
        if object.lacks_cluster_ip {
            let Key { namespace, name, .. } = object.key.clone();
            let (path, service) = (self.path.clone(), ServiceId { namespace, name });
            parsed.notes.push(Note::NoClusterIp { path, service });
        }
        match parsed.objects.entry(object.key.clone()) {
            Entry::Vacant(entry) => {
                entry.insert(Arc::new(object));
            }
            Entry::Occupied(_) => parsed.errors.push(problem(Invalid {
                field: "metadata.name".into(),
                message: "the file has this object already".into(),
            })),
        }
    }

    fn problem(&self, Broken { object, rule }: Broken) -> Problem {
        let place = locate(self.document.text, &steps(&rule.field));
        let place = place.and_then(|location| self.place(location));
        Problem { place, ..Problem::of_object(self.path, object, rule) }
    }

    fn malformed(&self, error: &serde_saphyr::Error) -> Problem {
        let (location, message) = yaml::reason(error);
        let place = location.and_then(|location| self.place(location));
        Problem { place, ..Problem::of_file(self.path, message) }
    }

    fn place(&self, location: Location) -> Option<Place> {
        let line = usize::try_from(location.line()).ok().filter(|line| *line > 0)?;
        let column = usize::try_from(location.column()).ok()?;
        Some(Place { document: self.document.number, line: line + self.document.lines_before, column })
    }
}
