//! Tenants can write texts of any length, so kube-ipvs cuts them.

use std::borrow::Cow;

/// Cuts a text to at most `longest` bytes, including `rest`, which marks the cut. Prefers the end of a line, then of a
/// list item, then of a word.
pub(super) fn cut<'a>(text: &'a str, longest: usize, rest: &str) -> Cow<'a, str> {
    if text.len() <= longest {
        return text.into();
    }
    let start = beginning(text, longest.saturating_sub(rest.len()));
    let end =
        ["\n", ", ", " "].iter().find_map(|separator| start.rfind(separator).filter(|end| *end > start.len() / 2));
    format!("{}{rest}", &start[..end.unwrap_or(start.len())]).into()
}

/// At most `longest` bytes, cut between characters.
pub(super) fn beginning(text: &str, longest: usize) -> &str {
    &text[..text.floor_char_boundary(longest)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_text_is_cut_at_the_end_of_a_line_item_or_word() {
        let cut = |text: &str| {
            let cut = cut(text, 1024, " … more");
            assert!(cut.len() <= 1024, "{}", cut.len());
            cut.into_owned()
        };
        assert_eq!(cut(&"x".repeat(1024)), "x".repeat(1024));
        // Cut after a line, a list item, a word, a character.
        let lines = cut(&"iptables-legacy -t nat -D OUTPUT, and more\n".repeat(50));
        assert!(lines.ends_with("-D OUTPUT, and more … more"), "{lines}");
        let items = cut(&"KUBE-CLUSTER-IP, ".repeat(100));
        assert!(items.ends_with("KUBE-CLUSTER-IP … more"), "{items}");
        let words = cut(&"refused ".repeat(200));
        assert!(words.ends_with("refused … more"), "{words}");
        let letters = cut(&"ä".repeat(2000));
        assert!(letters.strip_suffix(" … more").unwrap().chars().all(|letter| letter == 'ä'), "{letters}");
        // A space near the start is no place to cut.
        assert!(cut(&format!("a {}", "x".repeat(2000))).len() > 1000);
    }
}
