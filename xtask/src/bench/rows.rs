//! The rows of the benchmarks: lines of the benchmark's output that a program reads.

use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::testbench::Output;

/// A line that starts with this byte is a row as JSON. The others are for the user.
const ROW: u8 = 1;

pub(super) struct Rows {
    file: Option<PathBuf>,
    rows: Vec<Value>,
    /// The start of a line whose end has not arrived.
    line: Vec<u8>,
}

impl Rows {
    pub(super) fn new(file: Option<PathBuf>) -> Self {
        Self { file, rows: Vec::new(), line: Vec::new() }
    }

    /// Adds a row and writes the file, so that an interrupted run leaves its figures. Each row is one line.
    pub(super) fn push(&mut self, row: Value) -> Result<()> {
        self.rows.push(row);
        let Some(file) = &self.file else { return Ok(()) };
        let rows: Vec<String> = self.rows.iter().map(Value::to_string).collect();
        let text = format!("[\n{}\n]\n", rows.join(",\n"));
        fs::write(file, text).with_context(|| format!("writing {}", file.display()))
    }

    /// Stores the rows of an output, and returns the other lines.
    fn take(&mut self, bytes: &[u8]) -> Result<Vec<u8>> {
        let mut others = Vec::new();
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.line.extend(piece);
            if !piece.ends_with(b"\n") {
                break;
            }
            let line = std::mem::take(&mut self.line);
            match line.strip_prefix(&[ROW]) {
                Some(row) => self.push(serde_json::from_slice(row).context("reading a row of the benchmark")?)?,
                None => others.extend(line),
            }
        }
        Ok(others)
    }
}

impl Output for Rows {
    fn stdout(&mut self, bytes: &[u8]) -> Result<()> {
        let others = self.take(bytes)?;
        let mut out = io::stdout();
        out.write_all(&others)?;
        Ok(out.flush()?)
    }

    fn stderr(&mut self, bytes: &[u8]) -> Result<()> {
        Ok(io::stderr().write_all(bytes)?)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn rows_are_taken_out_of_the_output_however_it_is_cut() {
        let output = b"first-sync\n\x01{\"name\":\"a\"}\n  a 1\n\x01{\"name\":\"b\"}\n";
        for size in 1..output.len() {
            let mut rows = Rows::new(None);
            let others = output.chunks(size).flat_map(|chunk| rows.take(chunk).unwrap());
            assert_eq!(others.collect::<Vec<u8>>(), b"first-sync\n  a 1\n");
            assert_eq!(rows.rows, [json!({"name": "a"}), json!({"name": "b"})]);
        }
    }
}
