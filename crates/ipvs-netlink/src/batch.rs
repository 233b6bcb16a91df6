use crate::{Daemon, DaemonRole, Destination, DestinationKey, Request, Timeouts, VirtualServer, VirtualServerKey};

/// Requests that [`Client::execute`](crate::Client::execute) sends together.
///
/// A batch is plain data: a program can build it without a socket, print it, compare it and execute it again. Requests
/// are numbered from 0 in the order in which they were added. The kernel executes them in that order, so a batch can
/// add a virtual server and its destinations. A batch is no transaction: if the kernel rejects a request, the requests
/// after it still run.
///
/// ```
/// use ipvs_netlink::{Batch, Destination, Protocol, Scheduler, VirtualServer, VirtualServerKey};
///
/// let web = VirtualServerKey::new(Protocol::Tcp, "10.0.0.1:80".parse()?);
/// let mut batch = Batch::new();
/// batch.add_service(web, VirtualServer::new(Scheduler::RR));
/// let number = batch.add_destination(web, "10.1.1.1:8080".parse::<std::net::SocketAddr>()?.into(),
///     Destination::default());
/// assert_eq!(batch.requests()[number].to_string(), "add destination 10.1.1.1:8080 to TCP 10.0.0.1:80");
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    requests: Vec<Request>,
}

impl Batch {
    /// An empty batch.
    pub const fn new() -> Self {
        Self { requests: Vec::new() }
    }

    /// An empty batch with room for this many requests.
    pub fn with_capacity(requests: usize) -> Self {
        Self { requests: Vec::with_capacity(requests) }
    }

    /// Adds a request and returns its number.
    pub fn push(&mut self, request: Request) -> usize {
        self.requests.push(request);
        self.requests.len() - 1
    }

    /// The requests, by number.
    pub fn requests(&self) -> &[Request] {
        &self.requests
    }

    /// How many requests there are.
    pub fn len(&self) -> usize {
        self.requests.len()
    }

    /// Whether the batch has no requests.
    pub fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }

    /// Removes all requests and keeps the memory.
    pub fn clear(&mut self) {
        self.requests.clear();
    }

    /// [`Request::AddService`]; returns its number.
    pub fn add_service(&mut self, key: VirtualServerKey, service: VirtualServer) -> usize {
        self.push(Request::AddService { key, service })
    }

    /// [`Request::UpdateService`]; returns its number.
    pub fn update_service(&mut self, key: VirtualServerKey, service: VirtualServer) -> usize {
        self.push(Request::UpdateService { key, service })
    }

    /// [`Request::DeleteService`]; returns its number.
    pub fn delete_service(&mut self, key: VirtualServerKey) -> usize {
        self.push(Request::DeleteService { key })
    }

    /// [`Request::AddDestination`]; returns its number.
    pub fn add_destination(
        &mut self,
        service: VirtualServerKey,
        key: DestinationKey,
        destination: Destination,
    ) -> usize {
        self.push(Request::AddDestination { service, key, destination })
    }

    /// [`Request::UpdateDestination`]; returns its number.
    pub fn update_destination(
        &mut self,
        service: VirtualServerKey,
        key: DestinationKey,
        destination: Destination,
    ) -> usize {
        self.push(Request::UpdateDestination { service, key, destination })
    }

    /// [`Request::DeleteDestination`]; returns its number.
    pub fn delete_destination(&mut self, service: VirtualServerKey, key: DestinationKey) -> usize {
        self.push(Request::DeleteDestination { service, key })
    }

    /// [`Request::Zero`]; returns its number.
    pub fn zero(&mut self, service: Option<VirtualServerKey>) -> usize {
        self.push(Request::Zero(service))
    }

    /// [`Request::Flush`]; returns its number.
    pub fn flush(&mut self) -> usize {
        self.push(Request::Flush)
    }

    /// [`Request::SetTimeouts`]; returns its number.
    pub fn set_timeouts(&mut self, timeouts: Timeouts) -> usize {
        self.push(Request::SetTimeouts(timeouts))
    }

    /// [`Request::StartDaemon`]; returns its number.
    pub fn start_daemon(&mut self, daemon: Daemon) -> usize {
        self.push(Request::StartDaemon(daemon))
    }

    /// [`Request::StopDaemon`]; returns its number.
    pub fn stop_daemon(&mut self, role: DaemonRole) -> usize {
        self.push(Request::StopDaemon(role))
    }
}

impl FromIterator<Request> for Batch {
    fn from_iter<I: IntoIterator<Item = Request>>(requests: I) -> Self {
        Self { requests: requests.into_iter().collect() }
    }
}

impl Extend<Request> for Batch {
    fn extend<I: IntoIterator<Item = Request>>(&mut self, requests: I) {
        self.requests.extend(requests);
    }
}
