//! Splits a file into its YAML documents.

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Document<'a> {
    pub(super) number: usize,
    /// Lines of the file before the document.
    pub(super) lines_before: usize,
    pub(super) text: &'a str,
}

/// Returns the documents of a text without the empty ones.
///
/// In YAML, three hyphens at the start of a line always start a document. Neither a quoted string nor a block scalar
/// can contain such a line, and neither can JSON.
pub(super) fn documents(text: &str) -> Vec<Document<'_>> {
    let mut documents: Vec<Document<'_>> = Vec::new();
    let (mut start, mut start_line, mut has_content, mut number) = (0, 0, false, 1);
    let mut offset = 0;
    for (index, line) in text.split_inclusive('\n').enumerate() {
        let marker = line.strip_prefix("---").filter(|rest| rest.is_empty() || rest.starts_with(is_space));
        // Comments and directives before a marker belong to the document after it.
        if marker.is_some() && has_content {
            documents.push(Document { number, lines_before: start_line, text: &text[start..offset] });
            (start, start_line, has_content) = (offset, index, false);
            number += 1;
        }
        has_content |= is_content(marker.unwrap_or(line));
        offset += line.len();
    }
    if has_content {
        documents.push(Document { number, lines_before: start_line, text: &text[start..] });
    }
    documents
}

fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\n')
}

fn is_content(line: &str) -> bool {
    let line = line.trim_start_matches('\u{feff}');
    let trimmed = line.trim();
    !trimmed.is_empty() && !trimmed.starts_with('#') && !line.starts_with('%') && trimmed != "..."
}
