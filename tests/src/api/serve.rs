//! One client connection: lists, watches, and injected faults.

use std::io::{self, BufReader};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::http::{self, Request};
use super::store::{Event, Kind, Selection, index};
use super::{Fault, Shared, State, StreamingLists};

pub(super) fn register(shared: &Shared, stream: &TcpStream) -> io::Result<u64> {
    let mut state = shared.lock();
    state.accepted += 1;
    let number = state.accepted;
    state.open.insert(number, stream.try_clone()?);
    Ok(number)
}

/// Answers requests until the connection ends or falls silent for good.
pub(super) fn connection(shared: &Shared, number: u64, stream: TcpStream) -> io::Result<()> {
    let outcome = answer_all(shared, stream);
    if !matches!(outcome, Ok(Next::Silence)) {
        let open = shared.lock().open.remove(&number);
        open.map_or(Ok(()), |stream| stream.shutdown(Shutdown::Both))?;
    }
    outcome.map(drop)
}

fn answer_all(shared: &Shared, mut stream: TcpStream) -> io::Result<Next> {
    let mut reader = BufReader::new(stream.try_clone()?);
    while let Some(request) = http::read(&mut reader)? {
        let fault = {
            let mut state = shared.lock();
            let verb = if request.posted.is_some() { "POST " } else { "" };
            let line = format!("{verb}{}?{}", request.path, join(&request));
            state.requests.push((line, request.headers.clone()));
            let is_hit = state.faults.front() != Some(&Fault::Stalled) || request.is_set("sendInitialEvents");
            if is_hit { state.faults.pop_front() } else { None }
        };
        let next = match fault {
            Some(Fault::Status(code)) => {
                http::answer(&mut stream, code, &status(code, "as the test wants").to_string())?;
                Next::Request
            }
            Some(Fault::Close) => Next::Cut,
            Some(Fault::Silence) => Next::Silence,
            Some(Fault::EmptyWatch) => {
                http::begin(&mut stream)?;
                http::end(&mut stream)?;
                Next::Request
            }
            Some(Fault::Stalled) => {
                http::begin(&mut stream)?;
                Next::Silence
            }
            Some(Fault::Busy(seconds)) => {
                let headers = format!("Content-Type: text/plain\r\nRetry-After: {seconds}");
                http::answer_with(&mut stream, 429, &headers, "Too many requests, please try again later.\n")?;
                Next::Request
            }
            Some(Fault::Gateway) => {
                http::answer(&mut stream, 503, "{\"message\": \"no healthy upstream\"}")?;
                Next::Request
            }
            None => answer(shared, &request, &mut stream)?,
        };
        if !matches!(next, Next::Request) {
            return Ok(next);
        }
    }
    Ok(Next::Cut)
}

enum Next {
    Request,
    Cut,
    /// The connection stays open, and the server sends nothing more.
    Silence,
}

fn join(request: &Request) -> String {
    let pairs: Vec<String> = request.query.iter().map(|(name, value)| format!("{name}={value}")).collect();
    pairs.join("&")
}

fn status(code: u16, message: &str) -> Value {
    let reason = match code {
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "NotFound",
        409 => "AlreadyExists",
        410 => "Expired",
        422 => "Invalid",
        429 => "TooManyRequests",
        _ => "InternalError",
    };
    let metadata = json!({});
    json!({ "kind": "Status", "apiVersion": "v1", "metadata": metadata, "status": "Failure", "message": message,
        "reason": reason, "code": code })
}

fn answer(shared: &Shared, request: &Request, stream: &mut TcpStream) -> io::Result<Next> {
    if let Some(body) = &request.posted {
        return take_event(shared, request, body, stream);
    }
    if request.path == "/version" {
        let version = json!({ "major": "1", "minor": "36", "gitVersion": "v1.36.0", "gitCommit": "", "gitTreeState": "",
            "buildDate": "", "goVersion": "", "compiler": "", "platform": "" });
        http::answer(stream, 200, &version.to_string())?;
        return Ok(Next::Request);
    }
    let refused = {
        let state = shared.lock();
        let known = |token: &str| state.tokens.contains(token);
        let kind = Kind::of_path(&request.path);
        match kind {
            _ if !state.tokens.is_empty() && !request.token().is_some_and(known) => Some(401),
            None => Some(404),
            Some(kind) if state.absent.contains(&kind) => Some(404),
            Some(kind) if state.forbidden.contains(&kind) => Some(403),
            Some(_) => None,
        }
    };
    if let Some(code) = refused {
        http::answer(stream, code, &status(code, &format!("{} is not for you", request.path)).to_string())?;
        return Ok(Next::Request);
    }
    let kind = Kind::of_path(&request.path).ok_or_else(|| io::Error::other("checked above"))?;
    if request.is_set("watch") { watch(shared, kind, request, stream) } else { list(shared, kind, request, stream) }
}

/// Accepts an Event, the only object that the daemon creates.
fn take_event(shared: &Shared, request: &Request, body: &[u8], stream: &mut TcpStream) -> io::Result<Next> {
    let namespace =
        request.path.strip_prefix("/apis/events.k8s.io/v1/namespaces/").and_then(|rest| rest.strip_suffix("/events"));
    let event = serde_json::from_slice::<Value>(body).map_err(|error| error.to_string());
    let (code, answer) = match (namespace, event) {
        (None, _) => (404, status(404, "only Events are made here")),
        (Some(_), Err(error)) => (400, status(400, &error)),
        (Some(namespace), Ok(event)) if let Some(wrong) = wrong_with_event(&event, namespace) => {
            (422, status(422, wrong))
        }
        (Some(_), Ok(event)) => {
            let mut state = shared.lock();
            let metadata = &event["metadata"];
            let of_name =
                |other: &Value| ["namespace", "name"].iter().all(|field| other["metadata"][field] == metadata[field]);
            if state.events.iter().any(of_name) {
                (409, status(409, &format!("events.events.k8s.io {} already exists", metadata["name"])))
            } else {
                state.events.push(event.clone());
                (201, event)
            }
        }
    };
    http::answer(stream, code, &answer.to_string())?;
    Ok(Next::Request)
}

/// Returns why an API server would reject an Event (`ValidateEventCreate` in Kubernetes).
fn wrong_with_event(event: &Value, namespace: &str) -> Option<&'static str> {
    let text = |name: &str| event[name].as_str().unwrap_or_default();
    let is_short = |name: &str, longest: usize| (1..=longest).contains(&text(name).len());
    let name = event["metadata"]["name"].as_str().unwrap_or_default();
    let is_alphanumeric = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let is_label = |label: &str| {
        label.starts_with(is_alphanumeric)
            && label.ends_with(is_alphanumeric)
            && label.chars().all(|c| is_alphanumeric(c) || c == '-')
    };
    let of_object = event["regarding"]["namespace"].as_str().unwrap_or("default");
    let checks = [
        (name.len() <= 253 && name.split('.').all(is_label), "metadata.name: is no DNS subdomain"),
        (event["metadata"]["namespace"] == namespace, "metadata.namespace: is not that of the request"),
        (of_object == namespace, "regarding.namespace: is not that of the Event"),
        (text("eventTime").ends_with('Z'), "eventTime: required"),
        (is_short("reportingController", 128), "reportingController: required, 128 characters at most"),
        (is_short("reportingInstance", 128), "reportingInstance: required, 128 characters at most"),
        (is_short("action", 128), "action: required, 128 characters at most"),
        (is_short("reason", 128), "reason: required, 128 characters at most"),
        (text("note").len() <= 1024, "note: 1024 characters at most"),
        (matches!(text("type"), "Normal" | "Warning"), "type: Normal or Warning"),
    ];
    checks.into_iter().find(|(holds, _)| !holds).map(|(_, wrong)| wrong)
}

fn list(shared: &Shared, kind: Kind, request: &Request, stream: &mut TcpStream) -> io::Result<Next> {
    let selection = Selection::of(request);
    let (body, drip) = {
        let state = shared.lock();
        let version = request.parameter("resourceVersion").and_then(|version| version.parse::<u64>().ok());
        let current = state.store.revision();
        if let Some(version) = version.filter(|version| *version > current) {
            drop(state);
            let message = format!("Too large resource version: {version}, current: {current}");
            http::answer(stream, 504, &status(504, &message).to_string())?;
            return Ok(Next::Request);
        }
        let from_cache = version == Some(0);
        let limit = request.parameter("limit").and_then(|limit| limit.parse().ok()).filter(|_| !from_cache);
        let token = request.parameter("continue").and_then(|token| token.split_once('/'));
        let (revision, skip) = match token {
            Some((revision, skip)) => (revision.parse().unwrap_or_default(), skip.parse().unwrap_or_default()),
            None => (state.store.revision(), 0_usize),
        };
        if revision < state.store.compacted {
            drop(state);
            http::answer(stream, 410, &status(410, "The provided continue parameter is too old").to_string())?;
            return Ok(Next::Request);
        }
        let all = state.store.all_at(kind, revision);
        let selected: Vec<_> = all.into_iter().filter(|(_, object)| selection.has(object)).collect();
        let end = limit.map_or(selected.len(), |limit: usize| selected.len().min(skip + limit));
        let items: Vec<&Value> = selected[skip..end].iter().map(|(_, object)| &**object).collect();
        let mut metadata = json!({ "resourceVersion": revision.to_string() });
        if end < selected.len() {
            metadata["continue"] = json!(format!("{revision}/{end}"));
        }
        let (name, version, _) = kind.words();
        let list = format!("{name}List");
        (json!({ "kind": list, "apiVersion": version, "metadata": metadata, "items": items }), state.drip)
    };
    let body = body.to_string();
    if drip.is_zero() {
        http::answer(stream, 200, &body)?;
        return Ok(Next::Request);
    }
    http::begin(stream)?;
    for piece in body.as_bytes().chunks(1024) {
        http::chunk(stream, &String::from_utf8_lossy(piece))?;
        // A test asked for a slow list.
        std::thread::sleep(drip);
    }
    http::end(stream)?;
    Ok(Next::Request)
}

fn watch(shared: &Shared, kind: Kind, request: &Request, stream: &mut TcpStream) -> io::Result<Next> {
    let selection = Selection::of(request);
    let with_list = request.is_set("sendInitialEvents");
    let from = request.parameter("resourceVersion").and_then(|version| version.parse::<u64>().ok()).unwrap_or(0);
    let streaming = shared.lock().streaming;
    if with_list && streaming == StreamingLists::Refused {
        let message = "sendInitialEvents: Forbidden: sendInitialEvents is forbidden for watch unless the WatchList feature \
                       gate is enabled";
        http::answer(stream, 422, &status(422, message).to_string())?;
        return Ok(Next::Request);
    }
    let limit = request.parameter("timeoutSeconds").and_then(|seconds| seconds.parse().ok()).unwrap_or(3600);
    // API servers honour the client's `timeoutSeconds`.
    let deadline = Instant::now() + Duration::from_secs(limit);
    let (mut seen, first, gone, cuts, silences, ends, slowness) = {
        let state = shared.lock();
        let now = state.store.revision();
        let gone = from != 0 && from < state.store.compacted;
        let first = if from == 0 || with_list { state.store.all(kind) } else { Vec::new() };
        let seen = if from == 0 || with_list { now } else { from };
        (seen, first, gone, state.cuts, state.silences, state.ends, state.slowness)
    };
    http::begin(stream)?;
    if with_list && streaming == StreamingLists::Failing {
        let message = "a watch stream was requested by the client but the required storage feature RequestWatchProgress \
                       is disabled";
        http::chunk(stream, &line("ERROR", &status(500, message)))?;
        http::end(stream)?;
        return Ok(Next::Request);
    }
    if gone {
        http::chunk(stream, &line("ERROR", &status(410, "too old resource version")))?;
        http::end(stream)?;
        return Ok(Next::Request);
    }
    for (_, object) in first.iter().filter(|(_, object)| selection.has(object)) {
        if Instant::now() >= deadline {
            http::end(stream)?;
            return Ok(Next::Request);
        }
        http::chunk(stream, &line("ADDED", object))?;
        std::thread::sleep(slowness);
    }
    if with_list && streaming == StreamingLists::Served {
        let annotations = json!({ "k8s.io/initial-events-end": "true" });
        http::chunk(stream, &bookmark(kind, seen, &annotations))?;
    }
    let mut marked = Instant::now();
    loop {
        let (events, mishap) = {
            let mut state = shared.lock();
            let mut pause = state.bookmark_every;
            loop {
                let now = Instant::now();
                let is_new = state.store.revision() > seen;
                if state.silences != silences {
                    return Ok(Next::Silence);
                }
                if state.cuts != cuts {
                    return Ok(Next::Cut);
                }
                if seen < state.store.forgotten {
                    drop(state);
                    http::chunk(stream, &line("ERROR", &status(410, "the requested history has been compacted")))?;
                    http::end(stream)?;
                    return Ok(Next::Request);
                }
                if now >= deadline || state.ends != ends {
                    drop(state);
                    http::end(stream)?;
                    return Ok(Next::Request);
                }
                if is_new || marked.elapsed() >= state.bookmark_every {
                    break;
                }
                pause = pause.min(deadline - now);
                state = shared.wait(state, pause);
            }
            (new_events(&state, kind, &selection, seen), (state.half_events, state.slowness, state.doubled))
        };
        let (half, slowness, doubled) = mishap;
        let revision = events.last().map_or(seen, |(revision, _)| *revision);
        for (kind, object) in events.iter().filter_map(|(_, event)| event.as_ref()) {
            let line = line(kind, object);
            if half > 0 && shared.take_half() {
                http::half_a_chunk(stream, &line)?;
                return Ok(Next::Cut);
            }
            std::thread::sleep(slowness);
            http::chunk(stream, &line)?;
            if doubled {
                http::chunk(stream, &line)?;
            }
        }
        seen = revision;
        let (bookmark_every, revision, tells) = {
            let state = shared.lock();
            (state.bookmark_every, state.store.revision(), state.tells_of_restore)
        };
        if marked.elapsed() >= bookmark_every {
            marked = Instant::now();
            if request.is_set("allowWatchBookmarks") && (seen <= revision || tells) {
                http::chunk(stream, &bookmark(kind, seen.min(revision), &json!({})))?;
            }
        }
    }
}

fn new_events(state: &State, kind: Kind, selection: &Selection, seen: u64) -> Vec<(u64, Option<Event>)> {
    let new = state.store.history.iter().skip(index(seen));
    new.map(|change| (change.revision, change.event(selection).filter(|_| change.key.0 == kind))).collect()
}

/// An event as one line. The type comes first, as API servers write it.
fn line(kind: &str, object: &Value) -> String {
    format!("{{\"type\":\"{kind}\",\"object\":{object}}}\n")
}

fn bookmark(kind: Kind, revision: u64, annotations: &Value) -> String {
    let (name, version, _) = kind.words();
    let metadata = json!({ "resourceVersion": revision.to_string(), "annotations": annotations });
    let object = json!({ "kind": name, "apiVersion": version, "metadata": metadata });
    line("BOOKMARK", &object)
}
