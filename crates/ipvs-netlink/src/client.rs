use std::{collections::HashSet, os::fd::AsFd};

use netlink_batch::{Protocol, Socket};
use netlink_packet_core::DecodeError;
use netlink_packet_generic::GenlMessage;

use crate::{
    Daemon, DaemonRole, Destination, DestinationEntry, DestinationKey, Error, Info, Request, RequestFailure,
    ServiceEntry, Timeouts, VirtualServer, VirtualServerKey, family,
    message::{Command, Message},
};

/// How many requests are encoded before a send. It bounds the memory of a large batch and still fills the transport's
/// largest send (5,000 virtual servers take 520 KB).
const REQUESTS: usize = 8192;
/// Approximate size of a request in bytes.
const REQUEST: usize = 128;

/// A connection to the IPVS of one network namespace.
///
/// All methods block while the kernel works: microseconds for each request. Reads and changes both need CAP_NET_ADMIN.
///
/// Lists are not snapshots. The kernel answers in parts of about 100 virtual servers, resumes by position, and does not
/// report changes in between (`ip_vs_genl_dump_services`). So a list can miss entries, even if the caller is the only
/// writer in the namespace. On most kernels the position counts in one table that *all* network namespaces share.
/// Kernels with a table for each namespace resize it some time after it has grown. If a list lacks an entry, ask
/// [`Client::service`] whether the virtual server exists. The client removes repeated entries.
///
/// ```no_run
/// use ipvs_netlink::{Client, Protocol, Scheduler, VirtualServer, VirtualServerKey};
///
/// let mut client = Client::open()?;
/// let web = VirtualServerKey::new(Protocol::Tcp, "10.0.0.1:80".parse()?);
/// client.add_service(web, VirtualServer::new(Scheduler::RR))?;
/// for entry in client.services()? {
///     println!("{} {} {} connections", entry.key, entry.service.scheduler, entry.stats.connections);
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Client {
    socket: Socket,
    family: u16,
}

impl Client {
    /// Opens the IPVS of the calling thread's network namespace. If necessary, the kernel loads the module `ip_vs`.
    ///
    /// # Errors
    ///
    /// [`Error::NoIpvs`] if the kernel has no IPVS, [`Error::Transport`] if no socket can be opened.
    pub fn open() -> Result<Self, Error> {
        Self::with_socket(Socket::open(Protocol::Generic)?)
    }

    /// Opens the IPVS of another network namespace, given an open file of that namespace, such as `/run/netns/NAME` or
    /// `/proc/PID/ns/net`. Needs CAP_SYS_ADMIN. The calling thread stays in its namespace.
    ///
    /// ```no_run
    /// let namespace = std::fs::File::open("/run/netns/blue")?;
    /// let client = ipvs_netlink::Client::open_in(&namespace)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`Client::open`].
    pub fn open_in(namespace: impl AsFd) -> Result<Self, Error> {
        Self::with_socket(Socket::open_in(Protocol::Generic, namespace)?)
    }

    /// Looks up the kernel's family number of IPVS again. When the module `ip_vs` is reloaded, the number changes, and
    /// the kernel rejects requests with the old one.
    ///
    /// # Errors
    ///
    /// Those of [`Client::open`].
    pub fn refresh(&mut self) -> Result<(), Error> {
        self.family = family::resolve(&mut self.socket)?;
        Ok(())
    }

    fn with_socket(mut socket: Socket) -> Result<Self, Error> {
        let family = family::resolve(&mut socket)?;
        Ok(Self { socket, family })
    }

    /// Calls `observer` with every datagram before it is sent: for traces, and for benchmarks that replay datagrams.
    pub fn observe_sends(&mut self, observer: impl FnMut(&[u8]) + Send + 'static) {
        self.socket.observe_sends(observer);
    }

    /// Executes a batch in as few sends as the socket's buffers allow. The result lists the requests that the kernel
    /// rejected, by ascending number. The kernel executed all others.
    ///
    /// Requests are numbered from 0. The kernel executes them in order, so a batch can add a virtual server and its
    /// destinations. A batch is no transaction: if the kernel rejects a request, the requests after it still run.
    ///
    /// ```no_run
    /// # use ipvs_netlink::{Client, Protocol, Request, Scheduler, VirtualServer, VirtualServerKey};
    /// # let mut client = Client::open()?;
    /// let key = |port| VirtualServerKey::new(Protocol::Tcp, ([10, 0, 0, 1], port).into());
    /// let service = VirtualServer::new(Scheduler::RR);
    /// let batch: Vec<_> = (1..=5000).map(|port| Request::AddService { key: key(port), service }).collect();
    /// for failure in client.execute(&batch)? {
    ///     eprintln!("request {}: {failure}", failure.number);
    /// }
    /// # Ok::<(), ipvs_netlink::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Transport`] if it is unknown which requests the kernel executed: read the state again.
    pub fn execute(&mut self, batch: &[Request]) -> Result<Vec<RequestFailure>, Error> {
        let mut failures = Vec::new();
        let mut first = 0;
        for requests in batch.chunks(REQUESTS) {
            let mut encoded = netlink_batch::Batch::with_capacity(requests.len(), REQUEST);
            for request in requests {
                encoded.push_with(self.family, 0, |payload| request.append_to(payload));
            }
            let refused = self.socket.execute(encoded)?;
            failures.extend(refused.into_iter().filter_map(|failure| {
                let request = *requests.get(failure.request)?;
                Some(RequestFailure { number: first + failure.request, request, error: failure.error })
            }));
            first += requests.len();
        }
        failures.sort_by_key(|failure| failure.number);
        Ok(failures)
    }

    /// Executes one request.
    ///
    /// # Errors
    ///
    /// [`Error::Rejected`] if the kernel rejects it; otherwise those of [`Client::execute`].
    pub fn request(&mut self, request: Request) -> Result<(), Error> {
        match self.socket.request(self.address((&request).into()), 0) {
            Ok(()) => Ok(()),
            Err(netlink_batch::Error::Rejected(error)) => Err(RequestFailure { number: 0, request, error }.into()),
            Err(error) => Err(error.into()),
        }
    }

    /// Adds a virtual server.
    ///
    /// # Errors
    ///
    /// Those of [`Request::AddService`] and [`Client::request`].
    pub fn add_service(&mut self, key: VirtualServerKey, service: VirtualServer) -> Result<(), Error> {
        self.request(Request::AddService { key, service })
    }

    /// Changes a virtual server. It keeps its connections, destinations and counters.
    ///
    /// # Errors
    ///
    /// Those of [`Request::UpdateService`] and [`Client::request`].
    pub fn update_service(&mut self, key: VirtualServerKey, service: VirtualServer) -> Result<(), Error> {
        self.request(Request::UpdateService { key, service })
    }

    /// Deletes a virtual server with its destinations.
    ///
    /// # Errors
    ///
    /// Those of [`Request::DeleteService`] and [`Client::request`].
    pub fn delete_service(&mut self, key: VirtualServerKey) -> Result<(), Error> {
        self.request(Request::DeleteService { key })
    }

    /// Reads one virtual server; `None` if it does not exist.
    ///
    /// # Errors
    ///
    /// [`Error::Read`] if it is unknown whether the virtual server exists.
    pub fn service(&mut self, key: VirtualServerKey) -> Result<Option<ServiceEntry>, Error> {
        let attributes = vec![key.attribute()];
        let answers = self.socket.query(self.address(Message::new(Command::GetService, attributes)));
        match answers {
            Err(error) if error.kernel().is_some_and(netlink_batch::KernelError::is_not_found) => Ok(None),
            answers => read(answers, |message| ServiceEntry::try_from(message))
                .map(|entries| entries.into_iter().next())
                .map_err(|error| Error::Read { what: format!("read service {key}"), error }),
        }
    }

    /// Lists the virtual servers of both families and of all kinds. The list is no snapshot: see [`Client`].
    ///
    /// # Errors
    ///
    /// [`Error::Read`].
    pub fn services(&mut self) -> Result<Vec<ServiceEntry>, Error> {
        let answers = self.socket.dump(self.address(Message::empty(Command::GetService)));
        let mut entries = read(answers, |message| ServiceEntry::try_from(message))
            .map_err(|error| Error::Read { what: "list services".into(), error })?;
        let mut seen = HashSet::with_capacity(entries.len());
        entries.retain(|entry| seen.insert(entry.key));
        Ok(entries)
    }

    /// Adds a destination to a virtual server.
    ///
    /// # Errors
    ///
    /// Those of [`Request::AddDestination`] and [`Client::request`].
    pub fn add_destination(
        &mut self,
        service: VirtualServerKey,
        key: DestinationKey,
        destination: Destination,
    ) -> Result<(), Error> {
        self.request(Request::AddDestination { service, key, destination })
    }

    /// Changes a destination. It keeps its connections and counters.
    ///
    /// # Errors
    ///
    /// Those of [`Request::UpdateDestination`] and [`Client::request`].
    pub fn update_destination(
        &mut self,
        service: VirtualServerKey,
        key: DestinationKey,
        destination: Destination,
    ) -> Result<(), Error> {
        self.request(Request::UpdateDestination { service, key, destination })
    }

    /// Deletes a destination.
    ///
    /// # Errors
    ///
    /// Those of [`Request::DeleteDestination`] and [`Client::request`].
    pub fn delete_destination(&mut self, service: VirtualServerKey, key: DestinationKey) -> Result<(), Error> {
        self.request(Request::DeleteDestination { service, key })
    }

    /// Lists the destinations of a virtual server. The list is no snapshot either; only changes of this virtual server
    /// can disturb it.
    ///
    /// If the virtual server does not exist, the kernel answers with an empty list. [`Client::service`] distinguishes
    /// the two cases.
    ///
    /// # Errors
    ///
    /// [`Error::Read`].
    pub fn destinations(&mut self, service: VirtualServerKey) -> Result<Vec<DestinationEntry>, Error> {
        let mut query = Vec::new();
        Message::new(Command::GetDestination, vec![service.attribute()]).append_to(&mut query);
        let read = |_, answer: &[u8]| Some(DestinationEntry::from_bytes(answer, service.family()));
        let answers = self.socket.dump_with(self.family, &query, read);
        answers
            .and_then(|entries| entries.into_iter().map(|entry| entry.map_err(netlink_batch::Error::from)).collect())
            .map_err(|error| Error::Read { what: format!("list destinations of {service}"), error })
    }

    /// Deletes all virtual servers of the network namespace.
    ///
    /// # Errors
    ///
    /// Those of [`Client::request`].
    pub fn flush(&mut self) -> Result<(), Error> {
        self.request(Request::Flush)
    }

    /// Sets the counters of a virtual server and of its destinations to zero; `None` resets all virtual servers.
    ///
    /// # Errors
    ///
    /// [`Error::Rejected`] if the virtual server does not exist; otherwise those of [`Client::request`].
    pub fn zero(&mut self, service: Option<VirtualServerKey>) -> Result<(), Error> {
        self.request(Request::Zero(service))
    }

    /// Reads the timeouts.
    ///
    /// # Errors
    ///
    /// [`Error::Read`].
    pub fn timeouts(&mut self) -> Result<Timeouts, Error> {
        self.one("read the timeouts", Command::GetConfig, |message| Ok(Timeouts::from(message)))
    }

    /// Sets the timeouts that are not 0.
    ///
    /// # Errors
    ///
    /// Those of [`Client::request`].
    pub fn set_timeouts(&mut self, timeouts: Timeouts) -> Result<(), Error> {
        self.request(Request::SetTimeouts(timeouts))
    }

    /// Reads the version of IPVS and the size of its connection table.
    ///
    /// # Errors
    ///
    /// [`Error::Read`].
    pub fn info(&mut self) -> Result<Info, Error> {
        self.one("read the version of IPVS", Command::GetInfo, |message| Info::try_from(message))
    }

    /// Lists the running synchronisation daemons.
    ///
    /// # Errors
    ///
    /// [`Error::Read`].
    pub fn daemons(&mut self) -> Result<Vec<Daemon>, Error> {
        let answers = self.socket.dump(self.address(Message::empty(Command::GetDaemon)));
        read(answers, |message| Daemon::try_from(message))
            .map_err(|error| Error::Read { what: "list daemons".into(), error })
    }

    /// Starts a synchronisation daemon.
    ///
    /// # Errors
    ///
    /// Those of [`Request::StartDaemon`] and [`Client::request`].
    pub fn start_daemon(&mut self, daemon: Daemon) -> Result<(), Error> {
        self.request(Request::StartDaemon(daemon))
    }

    /// Stops a synchronisation daemon.
    ///
    /// # Errors
    ///
    /// Those of [`Request::StopDaemon`] and [`Client::request`].
    pub fn stop_daemon(&mut self, role: DaemonRole) -> Result<(), Error> {
        self.request(Request::StopDaemon(role))
    }

    /// Sends a query that has exactly one answer.
    fn one<T>(
        &mut self,
        what: &str,
        command: Command,
        decode: impl Fn(&Message) -> Result<T, DecodeError>,
    ) -> Result<T, Error> {
        let answers = self.socket.query(self.address(Message::empty(command)));
        read(answers, decode)
            .and_then(|answers| answers.into_iter().next().ok_or(netlink_batch::Error::NoReply))
            .map_err(|error| Error::Read { what: what.into(), error })
    }

    fn address(&self, message: Message) -> GenlMessage<Message> {
        let mut message = GenlMessage::from_payload(message);
        message.set_resolved_family_id(self.family);
        message
    }
}

fn read<T>(
    answers: Result<Vec<GenlMessage<Message>>, netlink_batch::Error>,
    decode: impl Fn(&Message) -> Result<T, DecodeError>,
) -> Result<Vec<T>, netlink_batch::Error> {
    answers?.iter().map(|answer| decode(&answer.payload).map_err(netlink_batch::Error::from)).collect()
}
