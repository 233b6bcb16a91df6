use std::time::Duration;

/// How long things may take. The defaults are for the field; tests are in more of a hurry.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// How long a watch lasts before kube-ipvs starts a new one. Up to a quarter is added, so that the nodes of a
    /// cluster do not all do it at once. If a connection died behind a proxy that keeps it open, kube-ipvs notices that
    /// then, and not before.
    pub watch: Duration,
    /// By how much a watch may outlast what was asked for before its connection counts as dead.
    pub overtime: Duration,
    /// How long the answer to a watch may take to begin.
    pub answer: Duration,
    /// How long the API server may take to make a list, until the answer begins.
    pub list: Duration,
    /// How long nothing of a list may come. As long as anything comes, a list takes as long as it likes.
    pub body: Duration,
    /// How long a streaming list may say nothing.
    pub silence: Duration,
    /// After such a time without a sign of life on an HTTP/2 connection it is asked for one.
    pub ping: Duration,
    /// How long the sign may take.
    pub pong: Duration,
    /// How long the first delivery may wait for a list of the other Nodes.
    pub nodes: Duration,
    /// How long the kubeconfig's exec plugin may take before kube-ipvs reports that it does not answer.
    pub plugin: Duration,
    /// By how much a list of the other Nodes is put off at most. How much it is, chance decides: the nodes of a cluster
    /// must not all ask at once.
    pub spread: Duration,
    /// How long the API server may take to store an Event. Events are posted on a task of their own, so nothing else
    /// waits.
    pub event: Duration,
    /// For up to how long, by chance, an Event waits that all nodes would post: one of them is first, and the requests
    /// of the others, which store nothing, are spread.
    pub event_spread: Duration,
    /// The first pause after a failure. Each is twice as long as the one before, and up to as much again by chance.
    pub first_pause: Duration,
    /// The longest pause between two attempts, without the random part.
    pub longest_pause: Duration,
    /// After such a time without an API server nothing is resumed, and all is listed: it may have come back with an
    /// older state, restored from a backup, which would accept our version and yet never tell what has changed.
    pub stale: Duration,
    /// How often the log says again that there is no contact with the API server.
    pub repeat: Duration,
    /// After such a time without contact an Event says so; none: never.
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
            // With what chance adds, an API server that comes back is asked within 20 s.
            longest_pause: Duration::from_secs(10),
            // A restore by a script takes 30 to 90 s.
            stale: Duration::from_secs(60),
            repeat: Duration::from_secs(300),
            contact: None,
        }
    }
}
