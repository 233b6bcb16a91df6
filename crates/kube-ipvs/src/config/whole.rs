use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// A whole number from `MIN` to `MAX`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "i64")]
pub struct BoundedInt<const MIN: i32, const MAX: i32>(i32);

impl<const MIN: i32, const MAX: i32> BoundedInt<MIN, MAX> {
    /// The number.
    pub fn get(self) -> i32 {
        self.0
    }
}

impl<const MIN: i32, const MAX: i32> TryFrom<i64> for BoundedInt<MIN, MAX> {
    type Error = String;

    fn try_from(number: i64) -> Result<Self, String> {
        match i32::try_from(number) {
            Ok(number) if (MIN..=MAX).contains(&number) => Ok(Self(number)),
            _ => Err(format!("{number} is not allowed: it must be {}", Self::allowed())),
        }
    }
}

impl<const MIN: i32, const MAX: i32> BoundedInt<MIN, MAX> {
    fn allowed() -> String {
        match MAX {
            i32::MAX => format!("a whole number, {MIN} or more"),
            _ => format!("a whole number from {MIN} to {MAX}"),
        }
    }
}

impl<const MIN: i32, const MAX: i32> FromStr for BoundedInt<MIN, MAX> {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number: i64 = text.trim().parse().map_err(|_| format!("{text:?} is not {}", Self::allowed()))?;
        Self::try_from(number)
    }
}

impl<const MIN: i32, const MAX: i32> fmt::Display for BoundedInt<MIN, MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
