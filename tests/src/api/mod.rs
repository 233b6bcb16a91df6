//! A small API server over real HTTP: lists, watches, bookmarks, streaming lists, and their failures.

mod http;
mod serve;
mod store;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Display;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::namespace::Namespace;
use crate::wait::eventually;
use store::Store;

pub use store::Kind;

/// A failure to inject into the next request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Refuses the request with this HTTP status.
    Status(u16),
    /// Closes the connection without an answer.
    Close,
    /// Never answers, and keeps the connection open.
    Silence,
    /// Answers as a watch that ends at once.
    EmptyWatch,
    /// Starts the next streaming list and then stalls. Other requests get answers.
    Stalled,
    /// Refuses the request in plain text with 429 and this `Retry-After`, in seconds.
    Busy(u32),
    /// A gateway in front of the server refuses the request, with a JSON body that is not a Status.
    Gateway,
}

/// How the server handles streaming lists (`sendInitialEvents`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamingLists {
    /// It serves them, the default since Kubernetes 1.34.
    Served,
    /// It refuses them, as since 1.27 with the feature gate off.
    Refused,
    /// It ignores the parameter, as an older server.
    Unknown,
}

#[derive(Debug)]
struct State {
    store: Store,
    requests: Vec<(String, BTreeMap<String, String>)>,
    events: Vec<serde_json::Value>,
    faults: VecDeque<Fault>,
    streaming: StreamingLists,
    bookmark_every: Duration,
    /// The accepted bearer tokens. If the set is empty, the server accepts every client.
    tokens: BTreeSet<String>,
    forbidden: BTreeSet<Kind>,
    absent: BTreeSet<Kind>,
    /// How often all connections were cut, all watches went silent, and all watches were ended.
    cuts: u64,
    silences: u64,
    ends: u64,
    /// Whether a watch from a revision later than the server's gets bookmarks with the server's revision.
    tells_of_restore: bool,
    /// The pause after each KiB of a list.
    drip: Duration,
    /// How many of the next events are cut off in the middle.
    half_events: u32,
    slowness: Duration,
    doubled: bool,
    open: BTreeMap<u64, TcpStream>,
    accepted: u64,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>, time: Duration) -> MutexGuard<'a, State> {
        self.changed.wait_timeout(state, time).unwrap_or_else(PoisonError::into_inner).0
    }

    fn take_half(&self) -> bool {
        let mut state = self.lock();
        let is_left = state.half_events > 0;
        state.half_events = state.half_events.saturating_sub(1);
        is_left
    }
}

/// A running API server. Dropping it stops it.
#[derive(Debug)]
pub struct ApiServer {
    shared: Arc<Shared>,
    namespace: Option<Arc<Namespace>>,
    address: SocketAddr,
    listener: Option<Listener>,
}

#[derive(Debug)]
struct Listener {
    socket: TcpListener,
    thread: thread::JoinHandle<()>,
}

impl ApiServer {
    /// Starts the server in this process's network namespace, on a free port of 127.0.0.1.
    pub fn start() -> Result<Self> {
        Self::start_at(None, "127.0.0.1:0".parse()?)
    }

    /// Starts the server in a network namespace.
    pub fn start_in(namespace: &Arc<Namespace>, address: SocketAddr) -> Result<Self> {
        Self::start_at(Some(Arc::clone(namespace)), address)
    }

    fn start_at(namespace: Option<Arc<Namespace>>, address: SocketAddr) -> Result<Self> {
        let state = State {
            store: Store::default(),
            requests: Vec::new(),
            events: Vec::new(),
            faults: VecDeque::new(),
            streaming: StreamingLists::Served,
            bookmark_every: Duration::from_secs(1),
            tokens: BTreeSet::new(),
            forbidden: BTreeSet::new(),
            absent: BTreeSet::new(),
            cuts: 0,
            silences: 0,
            ends: 0,
            tells_of_restore: false,
            drip: Duration::ZERO,
            half_events: 0,
            slowness: Duration::ZERO,
            doubled: false,
            open: BTreeMap::new(),
            accepted: 0,
        };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() });
        let mut server = Self { shared, namespace, address, listener: None };
        server.back()?;
        Ok(server)
    }

    /// The address on which the server listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The server's URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Returns a kubeconfig for this server. The client reads its token from `token_file`, if given.
    pub fn kubeconfig(&self, token_file: Option<&str>) -> String {
        let user = token_file.map_or("{}".to_owned(), |file| format!("{{ tokenFile: {file} }}"));
        format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: test\ncontexts:\n- name: test\n  context: {{ cluster: test, user: \
             test }}\nclusters:\n- name: test\n  cluster: {{ server: \"{}\" }}\nusers:\n- name: test\n  user: {user}\n",
            self.url()
        )
    }

    /// Creates or replaces the objects of a manifest.
    pub fn apply(&self, manifest: &impl Display) -> Result<()> {
        let text = manifest.to_string();
        let objects = serde_saphyr::from_multiple(&text).with_context(|| format!("reading the manifest\n{text}"))?;
        self.put(objects).with_context(|| format!("of the manifest\n{text}"))
    }

    /// Creates or replaces objects.
    pub fn put(&self, objects: Vec<serde_json::Value>) -> Result<()> {
        let mut state = self.shared.lock();
        objects.into_iter().try_for_each(|object| state.store.apply(object))?;
        drop(state);
        self.shared.changed.notify_all();
        Ok(())
    }

    /// Deletes an object, which is in the namespace `default` if it is namespaced.
    pub fn delete(&self, kind: Kind, name: &str) -> Result<()> {
        let namespace = if matches!(kind, Kind::Service | Kind::EndpointSlice) { "default" } else { "" };
        let was_there = self.shared.lock().store.delete((kind, namespace.into(), name.into()));
        ensure!(was_there, "there is no {kind:?} {name}");
        self.shared.changed.notify_all();
        Ok(())
    }

    /// Compacts the history. If a client resumes a watch from an earlier version, the server answers 410 Gone.
    pub fn compact(&self) {
        let mut state = self.shared.lock();
        state.store.compacted = state.store.revision();
    }

    /// Compacts the history before the newest `kept` changes and frees its memory. A watch that has not received an
    /// earlier change gets 410 Gone.
    pub fn forget(&self, kept: u64) {
        self.shared.lock().store.forget(kept);
    }

    /// The current resource version.
    pub fn revision(&self) -> u64 {
        self.shared.lock().store.revision()
    }

    /// Returns to an earlier version, as after a restore of etcd. A watch from a later version gets no events until the
    /// server has passed that version, as on a real server. If `tells` is set, such a watch gets bookmarks.
    pub fn restore(&self, revision: u64, tells: bool) {
        self.set(|state| {
            state.store.restore(revision);
            state.tells_of_restore = tells;
        });
    }

    /// Ends all watches cleanly.
    pub fn end_watches(&self) {
        self.set(|state| state.ends += 1);
    }

    /// Pauses after each KiB of a list.
    pub fn drip(&self, pause: Duration) {
        self.set(|state| state.drip = pause);
    }

    /// Injects these faults into the next requests, and discards the faults left from an earlier call.
    pub fn fault(&self, faults: &[Fault]) {
        self.set(|state| state.faults = faults.iter().copied().collect());
    }

    /// Closes all connections.
    pub fn cut(&self) {
        self.set(|state| {
            state.cuts += 1;
            std::mem::take(&mut state.open).values().for_each(|stream| drop(stream.shutdown(Shutdown::Both)));
        });
    }

    /// Sends nothing more on the open watches and keeps their connections open.
    pub fn fall_silent(&self) {
        self.set(|state| state.silences += 1);
    }

    /// Breaks the connection in the middle of each of the next `count` events.
    pub fn half_events(&self, count: u32) {
        self.set(|state| state.half_events = count);
    }

    /// Pauses before each event.
    pub fn slow(&self, pause: Duration) {
        self.set(|state| state.slowness = pause);
    }

    /// Sends bookmarks so rarely. The default is each second, and a real server sends one a minute.
    pub fn bookmark_every(&self, pause: Duration) {
        self.set(|state| state.bookmark_every = pause);
    }

    /// Sends each event twice.
    pub fn double(&self, doubled: bool) {
        self.set(|state| state.doubled = doubled);
    }

    /// Sets how the server handles streaming lists.
    pub fn streaming(&self, streaming: StreamingLists) {
        self.set(|state| state.streaming = streaming);
    }

    /// Answers 404 for these kinds, as an older server.
    pub fn without(&self, kinds: &[Kind]) {
        self.set(|state| state.absent = kinds.iter().copied().collect());
    }

    /// Answers 403 for these kinds.
    pub fn forbid(&self, kinds: &[Kind]) {
        self.set(|state| state.forbidden = kinds.iter().copied().collect());
    }

    /// Accepts only these tokens.
    pub fn tokens(&self, tokens: &[&str]) {
        self.set(|state| state.tokens = tokens.iter().map(|token| (*token).to_owned()).collect());
    }

    fn set(&self, set: impl FnOnce(&mut State)) {
        set(&mut self.shared.lock());
        self.shared.changed.notify_all();
    }

    /// The Events posted so far.
    pub fn events(&self) -> Vec<serde_json::Value> {
        self.shared.lock().events.clone()
    }

    /// The requests so far, as `path?parameters`. A POST is prefixed with `POST `.
    pub fn requests(&self) -> Vec<String> {
        self.shared.lock().requests.iter().map(|(line, _)| line.clone()).collect()
    }

    /// The value of this header in each request so far. `name` is in lower case.
    pub fn headers(&self, name: &str) -> Vec<Option<String>> {
        self.shared.lock().requests.iter().map(|(_, headers)| headers.get(name).cloned()).collect()
    }

    /// The value of this header in the last request.
    pub fn last_header(&self, name: &str) -> Option<String> {
        self.headers(name).pop().flatten()
    }

    /// The token of the last request.
    pub fn last_token(&self) -> Option<String> {
        self.last_header("authorization")?.strip_prefix("Bearer ").map(str::to_owned)
    }

    /// Closes all connections and stops listening.
    pub fn away(&mut self) {
        let Some(listener) = self.listener.take() else { return };
        // The shutdown wakes the thread from `accept`. The port is free when the thread has ended.
        let _ = rustix::net::shutdown(&listener.socket, rustix::net::Shutdown::Both);
        drop(listener.socket);
        let _ = listener.thread.join();
        self.cut();
    }

    /// Listens again, with the same objects.
    pub fn back(&mut self) -> Result<()> {
        ensure!(self.listener.is_none(), "it is not away");
        let bind = || TcpListener::bind(self.address).with_context(|| format!("listening at {}", self.address));
        // Connections from before can still hold the port for a moment.
        let socket = eventually(|| match &self.namespace {
            Some(namespace) => namespace.enter(bind),
            None => bind(),
        })?;
        self.address = socket.local_addr()?;
        let (accepting, shared) = (socket.try_clone()?, Arc::clone(&self.shared));
        let thread = thread::Builder::new().name("api".into()).spawn(move || {
            while let Ok((stream, _)) = accepting.accept() {
                let _ = stream.set_nodelay(true);
                // A client that disconnects is no failure: it repeats its request.
                let Ok(number) = serve::register(&shared, &stream) else { continue };
                let shared = Arc::clone(&shared);
                thread::spawn(move || serve::connection(&shared, number, stream));
            }
        })?;
        self.listener = Some(Listener { socket, thread });
        Ok(())
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        self.away();
    }
}
