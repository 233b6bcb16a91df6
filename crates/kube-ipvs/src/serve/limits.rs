use std::time::Duration;

/// How long those are waited for who keep others waiting. The defaults are for the field; tests have all the time.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// How long a caller may take to say what it wants, and be silent after it was answered: places are few, and
    /// probes are quick.
    pub caller: Duration,
    /// How long the owner of the kernel is waited for. If it is busy for longer, what it measured last is told.
    pub owner: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { caller: Duration::from_secs(5), owner: Duration::from_secs(2) }
    }
}
