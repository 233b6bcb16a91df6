use std::time::Duration;

/// Time limits of the Kubernetes source. The defaults are for production; tests use shorter ones.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// How long a watch lasts before kube-ipvs starts a new one. Up to a quarter is added at random, so that the nodes
    /// of a cluster do not reconnect together. If a connection dies behind a proxy that keeps it open, kube-ipvs
    /// detects that only then.
    pub watch: Duration,
    /// How much longer than requested a watch can last before its connection counts as dead.
    pub overtime: Duration,
    /// How long the API server may take to start answering a watch.
    pub answer: Duration,
    /// How long the API server may take to start answering a list.
    pub list: Duration,
    /// How long the body of a list may stall. A list that makes progress can take any time.
    pub body: Duration,
    /// How long a streaming list may stall.
    pub silence: Duration,
    /// How long an HTTP/2 connection can be idle before kube-ipvs sends a ping.
    pub ping: Duration,
    /// How long the answer to a ping may take.
    pub pong: Duration,
    /// How long the first delivery waits for a list of the other Nodes.
    pub nodes: Duration,
    /// How long the kubeconfig's exec plugin may take before kube-ipvs reports that it does not answer.
    pub plugin: Duration,
    /// The longest random delay of a list of the other Nodes. It keeps the nodes of a cluster from listing together.
    pub spread: Duration,
    /// How long the API server may take to store an Event. A separate task posts Events, so nothing else waits.
    pub event: Duration,
    /// The longest random delay of an Event that all nodes would post. The first node stores it, and the requests of
    /// the others are spread out.
    pub event_spread: Duration,
    /// The first pause after a failure. Each pause doubles the one before, plus up to as much again at random.
    pub first_pause: Duration,
    /// The longest pause between two attempts, without the random part.
    pub longest_pause: Duration,
    /// After an outage of this length kube-ipvs lists everything instead of resuming. The API server may have been
    /// restored from a backup: it would accept the old version and never report the differences.
    pub stale: Duration,
    /// How often the log repeats that contact with the API server is lost.
    pub repeat: Duration,
    /// After this time without contact kube-ipvs posts an Event; `None` for never.
    pub contact: Option<Duration>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            watch: Duration::from_secs(120),
            overtime: Duration::from_secs(10),
            answer: Duration::from_secs(30),
            list: Duration::from_secs(120),
            body: Duration::from_secs(60),
            silence: Duration::from_secs(15),
            ping: Duration::from_secs(12),
            pong: Duration::from_secs(12),
            nodes: Duration::from_secs(10),
            plugin: Duration::from_secs(60),
            spread: Duration::from_secs(30),
            event: Duration::from_secs(10),
            event_spread: Duration::from_secs(30),
            first_pause: Duration::from_millis(250),
            // With the random part, kube-ipvs reaches an API server that comes back within 20 s.
            longest_pause: Duration::from_secs(10),
            // A scripted restore takes 30 to 90 s.
            stale: Duration::from_secs(60),
            repeat: Duration::from_secs(300),
            contact: None,
        }
    }
}
