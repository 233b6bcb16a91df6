use std::time::Duration;

/// How long things may take. The defaults are for the field; tests are in more of a hurry.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// How long a watch lasts before it is made anew; up to a quarter more, so that the nodes of a cluster do not all
    /// do it at once. A connection that died behind a proxy that keeps it open is noticed then, and not before.
    pub watch: Duration,
    /// By how much a watch may outlast what was asked for before its connection counts as dead.
    pub overtime: Duration,
    /// How long an answer may take, but for its body.
    pub answer: Duration,
    /// How long the body of a list may take.
    pub list: Duration,
    /// How long a streaming list may say nothing.
    pub silence: Duration,
    /// How long everything else may wait for a list of the other Nodes.
    pub nodes: Duration,
    /// How long the API server may take to store an Event. Events are posted on a task of their own, so nothing else
    /// waits.
    pub event: Duration,
    /// For up to how long, by chance, an Event waits that all nodes would post: one of them is first, and the requests
    /// of the others, which store nothing, are spread.
    pub event_spread: Duration,
    /// The first pause after a failure. Each is twice as long as the one before, and up to as much again by chance.
    pub first_pause: Duration,
    /// The longest pause between two attempts, but for what chance adds.
    pub longest_pause: Duration,
    /// After such a time without an API server nothing is resumed, and all is listed: it may have come back with an
    /// older state, restored from a backup, which would accept our version and yet never tell what has changed.
    pub stale: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            watch: Duration::from_secs(120),
            overtime: Duration::from_secs(10),
            answer: Duration::from_secs(30),
            list: Duration::from_secs(120),
            silence: Duration::from_secs(15),
            nodes: Duration::from_secs(10),
            event: Duration::from_secs(10),
            event_spread: Duration::from_secs(30),
            first_pause: Duration::from_millis(250),
            longest_pause: Duration::from_secs(15),
            stale: Duration::from_secs(300),
        }
    }
}
