use std::{collections::HashMap, time::Duration};

use super::Announcement;

/// How long something is not said again.
const PAUSE: Duration = Duration::from_secs(3600);
/// The most that is remembered; beyond it nothing new is said until some of it is forgotten.
const MOST: usize = 1000;

/// What was said not long ago.
#[derive(Debug, Default)]
pub(super) struct Recent {
    said: HashMap<Announcement, Duration>,
}

impl Recent {
    /// Whether something is to be said, which is then taken as said.
    pub(super) fn is_new(&mut self, announcement: &Announcement, now: Duration) -> bool {
        self.said.retain(|_, at| now.saturating_sub(*at) < PAUSE);
        if self.said.len() >= MOST || self.said.contains_key(announcement) {
            return false;
        }
        self.said.insert(announcement.clone(), now);
        true
    }
}
