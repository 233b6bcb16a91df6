//! A small API server over real HTTP: lists, watches, bookmarks, streaming lists, and everything that goes wrong with
//! them.

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

/// What goes wrong with the next request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It is refused with this HTTP status.
    Status(u16),
    /// Its connection is closed without an answer.
    Close,
    /// It is never answered, and its connection stays open.
    Silence,
    /// It is answered as a watch that ends at once.
    EmptyWatch,
    /// The next streaming list begins and then says nothing. Other requests are answered.
    Stalled,
    /// It is refused in plain text, and may be tried again after so many seconds (429 with `Retry-After`).
    Busy(u32),
    /// A gateway before the server refuses it, in JSON of its own.
    Gateway,
}

/// What the server knows of streaming lists (`sendInitialEvents`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamingLists {
    /// They are served, as by default since Kubernetes 1.34.
    Served,
    /// They are refused, as since 1.27 where the feature gate is off.
    Refused,
    /// The server does not know the word and passes over it.
    Unknown,
}

#[derive(Debug)]
struct State {
    store: Store,
    /// Every request so far, with its headers.
    requests: Vec<(String, BTreeMap<String, String>)>,
    /// The Events that were made.
    events: Vec<serde_json::Value>,
    faults: VecDeque<Fault>,
    streaming: StreamingLists,
    bookmark_every: Duration,
    /// The tokens that the server accepts. If there are none, it accepts every client.
    tokens: BTreeSet<String>,
    forbidden: BTreeSet<Kind>,
    absent: BTreeSet<Kind>,
    /// How often all connections were cut, all watches have fallen silent, and all watches were ended.
    cuts: u64,
    silences: u64,
    ends: u64,
    /// Whether bookmarks of watches from a later version than the server's say that version.
    tells_of_restore: bool,
    /// How long lists pause after each kibibyte.
    drip: Duration,
    /// How many of the next events are sent by half.
    half_events: u32,
    slowness: Duration,
    doubled: bool,
    /// The connections that are open, by numbers.
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

/// A running API server. Dropped, it is away.
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
    /// Starts it here, at a port of 127.0.0.1.
    pub fn start() -> Result<Self> {
        Self::start_at(None, "127.0.0.1:0".parse()?)
    }

    /// Starts it in a namespace.
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

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it is.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// A kubeconfig for it. The token is read from a file, if one is given.
    pub fn kubeconfig(&self, token_file: Option<&str>) -> String {
        let user = token_file.map_or("{}".to_owned(), |file| format!("{{ tokenFile: {file} }}"));
        format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: test\ncontexts:\n- name: test\n  context: {{ cluster: test, user: \
             test }}\nclusters:\n- name: test\n  cluster: {{ server: \"{}\" }}\nusers:\n- name: test\n  user: {user}\n",
            self.url()
        )
    }

    /// Makes or replaces the objects of a manifest.
    pub fn apply(&self, manifest: &impl Display) -> Result<()> {
        let text = manifest.to_string();
        let objects = serde_saphyr::from_multiple(&text).with_context(|| format!("reading the manifest\n{text}"))?;
        self.put(objects).with_context(|| format!("of the manifest\n{text}"))
    }

    /// Makes or replaces objects.
    pub fn put(&self, objects: Vec<serde_json::Value>) -> Result<()> {
        let mut state = self.shared.lock();
        objects.into_iter().try_for_each(|object| state.store.apply(object))?;
        drop(state);
        self.shared.changed.notify_all();
        Ok(())
    }

    /// Deletes an object of the namespace `default`, or of none.
    pub fn delete(&self, kind: Kind, name: &str) -> Result<()> {
        let namespace = if matches!(kind, Kind::Service | Kind::EndpointSlice) { "default" } else { "" };
        let was_there = self.shared.lock().store.delete((kind, namespace.into(), name.into()));
        ensure!(was_there, "there is no {kind:?} {name}");
        self.shared.changed.notify_all();
        Ok(())
    }

    /// Forgets all that has happened so far. If a client goes on from an earlier version, the server answers that the
    /// version is gone.
    pub fn compact(&self) {
        let mut state = self.shared.lock();
        state.store.compacted = state.store.revision();
    }

    /// The version of all that happened so far.
    pub fn revision(&self) -> u64 {
        self.shared.lock().store.revision()
    }

    /// Goes back to what it was at a version, as after a restore of etcd. Watches from a later version hear nothing
    /// until its own is later still, as on real servers; if `tells`, they hear bookmarks.
    pub fn restore(&self, revision: u64, tells: bool) {
        self.set(|state| {
            state.store.restore(revision);
            state.tells_of_restore = tells;
        });
    }

    /// Ends all watches in good order.
    pub fn end_watches(&self) {
        self.set(|state| state.ends += 1);
    }

    /// Sends lists slowly: pauses after each kibibyte.
    pub fn drip(&self, pause: Duration) {
        self.set(|state| state.drip = pause);
    }

    /// Lets this happen to the next requests, in the place of what else was to happen to them.
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

    /// Says nothing more on the watches that are open, and does not close them either.
    pub fn fall_silent(&self) {
        self.set(|state| state.silences += 1);
    }

    /// Breaks off in the middle of the next events.
    pub fn half_events(&self, count: u32) {
        self.set(|state| state.half_events = count);
    }

    /// Waits before each event.
    pub fn slow(&self, pause: Duration) {
        self.set(|state| state.slowness = pause);
    }

    /// Sends each event twice.
    pub fn double(&self, doubled: bool) {
        self.set(|state| state.doubled = doubled);
    }

    /// What it knows of streaming lists.
    pub fn streaming(&self, streaming: StreamingLists) {
        self.set(|state| state.streaming = streaming);
    }

    /// Has no objects of these kinds, as an older server.
    pub fn without(&self, kinds: &[Kind]) {
        self.set(|state| state.absent = kinds.iter().copied().collect());
    }

    /// Forbids these kinds.
    pub fn forbid(&self, kinds: &[Kind]) {
        self.set(|state| state.forbidden = kinds.iter().copied().collect());
    }

    /// Lets only these tokens in.
    pub fn tokens(&self, tokens: &[&str]) {
        self.set(|state| state.tokens = tokens.iter().map(|token| (*token).to_owned()).collect());
    }

    fn set(&self, set: impl FnOnce(&mut State)) {
        set(&mut self.shared.lock());
        self.shared.changed.notify_all();
    }

    /// The Events that were made so far.
    pub fn events(&self) -> Vec<serde_json::Value> {
        self.shared.lock().events.clone()
    }

    /// The requests so far, as `path?parameters`, after `POST ` where something was made.
    pub fn requests(&self) -> Vec<String> {
        self.shared.lock().requests.iter().map(|(line, _)| line.clone()).collect()
    }

    /// A header of each request so far, by its name in lower case.
    pub fn headers(&self, name: &str) -> Vec<Option<String>> {
        self.shared.lock().requests.iter().map(|(_, headers)| headers.get(name).cloned()).collect()
    }

    /// The same of the last request.
    pub fn last_header(&self, name: &str) -> Option<String> {
        self.headers(name).pop().flatten()
    }

    /// The token of the last request.
    pub fn last_token(&self) -> Option<String> {
        self.last_header("authorization")?.strip_prefix("Bearer ").map(str::to_owned)
    }

    /// Goes away: closes all connections and no longer listens.
    pub fn away(&mut self) {
        let Some(listener) = self.listener.take() else { return };
        // Wakes the thread from `accept`; the port is free when it has ended.
        let _ = rustix::net::shutdown(&listener.socket, rustix::net::Shutdown::Both);
        drop(listener.socket);
        let _ = listener.thread.join();
        self.cut();
    }

    /// Comes back, with all that it had.
    pub fn back(&mut self) -> Result<()> {
        ensure!(self.listener.is_none(), "it is not away");
        let bind = || TcpListener::bind(self.address).with_context(|| format!("listening at {}", self.address));
        // Connections of before may hold the port for a moment.
        let socket = eventually(|| match &self.namespace {
            Some(namespace) => namespace.enter(bind),
            None => bind(),
        })?;
        self.address = socket.local_addr()?;
        let (accepting, shared) = (socket.try_clone()?, Arc::clone(&self.shared));
        let thread = thread::Builder::new().name("api".into()).spawn(move || {
            while let Ok((stream, _)) = accepting.accept() {
                let _ = stream.set_nodelay(true);
                // A client that goes is no failure, and what it misses it asks for again.
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
