//! The user data format of `nft` for tables, sets, rules and elements: a byte for the type, a byte for the length, and
//! the value. The kernel does not interpret it.

/// The types of comments. Sets have another type than tables, rules and elements.
pub(super) const COMMENT: u8 = 0;
pub(super) const SET_COMMENT: u8 = 7;
/// `nft` skips this type because it does not know it.
const FINGERPRINT: u8 = 200;
/// The longest comment that `nft` accepts, with its final NUL.
const LONGEST: usize = 128;

pub(super) fn comment(kind: u8, text: &str) -> Vec<u8> {
    let end = (0..=text.len().min(LONGEST - 1)).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    let mut bytes = vec![kind, end as u8 + 1];
    bytes.extend_from_slice(&text.as_bytes()[..end]);
    bytes.push(0);
    bytes
}

pub(super) fn rule(text: &str, fingerprint: u64) -> Vec<u8> {
    let mut bytes = comment(COMMENT, text);
    bytes.extend_from_slice(&[FINGERPRINT, 8]);
    bytes.extend_from_slice(&fingerprint.to_be_bytes());
    bytes
}

pub(super) fn element_comment(mut bytes: &[u8]) -> Option<&str> {
    while let [kind, length, rest @ ..] = bytes {
        let value = rest.get(..usize::from(*length))?;
        if *kind == COMMENT {
            return std::str::from_utf8(value.strip_suffix(&[0]).unwrap_or(value)).ok();
        }
        bytes = &rest[value.len()..];
    }
    None
}

/// FNV-1a, 64 bits.
pub(super) fn fingerprint(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn element_comment_round_trips_through_user_data() {
        assert_eq!(element_comment(&comment(COMMENT, "default/web:http")), Some("default/web:http"));
        let both = [&[9, 2, 1, 1][..], &rule("why", 7)].concat();
        assert_eq!(element_comment(&both), Some("why"));
    }

    #[test]
    fn long_comment_is_cut_between_characters() {
        let long = comment(COMMENT, &"ä".repeat(100));
        assert_eq!(element_comment(&long).unwrap(), "ä".repeat(63));
    }

    #[test]
    fn malformed_user_data_has_no_comment() {
        for bytes in [&[][..], &[0], &[0, 9, 1], &[1, 1, 1, 0], &[0, 1, 0xff]] {
            assert_eq!(element_comment(bytes), None, "{bytes:?}");
        }
    }
}
