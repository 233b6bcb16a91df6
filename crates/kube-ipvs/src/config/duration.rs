use std::time::Duration;

use super::GoDuration;

pub(super) fn parse_positive(text: &str) -> Result<GoDuration, String> {
    match text.parse()? {
        GoDuration(Duration::ZERO) => Err(format!("{text:?} is too short: it must be greater than 0")),
        duration => Ok(duration),
    }
}
