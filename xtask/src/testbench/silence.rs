//! How long a file of the virtual machine has not grown.

use std::time::Duration;

#[derive(Default)]
pub(super) struct Silence {
    size: u64,
    lasts: Duration,
}

impl Silence {
    /// The file has this size, `since` after the last observation. Another size ends the silence: the file grew, or
    /// another file is observed from now on.
    pub(super) fn observe(&mut self, since: Duration, size: u64) {
        self.lasts = if size == self.size { self.lasts + since } else { Duration::ZERO };
        self.size = size;
    }

    pub(super) fn lasts(&self) -> Duration {
        self.lasts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_lasts_until_the_file_grows() {
        let mut silence = Silence::default();
        let observed: Vec<u64> = [(1, 10), (1, 10), (2, 10), (1, 11), (1, 11)]
            .into_iter()
            .map(|(since, size)| {
                silence.observe(Duration::from_secs(since), size);
                silence.lasts().as_secs()
            })
            .collect();
        assert_eq!(observed, [0, 1, 3, 0, 1]);
    }
}
