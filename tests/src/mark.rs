//! Marks for `cargo xtask test`, which shows when a scenario begins, and at once why it fails.
//!
//! They go to standard error past libtest, which keeps what a test prints until its end.

use std::any::Any;
use std::io::Write;
use std::thread;

use anyhow::Error;

/// Set where the marks are read.
const WANTED: &str = "KUBE_IPVS_MARKS";

fn mark(text: &str) {
    if std::env::var_os(WANTED).is_some() {
        // One write, so that no other line comes in between.
        let _ = std::io::stderr().write_all(format!("\u{1}{text}\n").as_bytes());
    }
}

/// The test's name, as libtest gives it to its thread.
fn name() -> String {
    thread::current().name().unwrap_or("a test").to_owned()
}

/// The test of this thread has begun.
pub(crate) fn begun() {
    mark(&format!("begun {}", name()));
}

/// Why the test of this thread fails.
pub(crate) fn failed(error: &Error) {
    why(&format!("{error:#}"));
}

/// What the test of this thread panicked with.
pub(crate) fn panicked(payload: &(dyn Any + Send)) {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    why(text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("it panicked"));
}

/// A mark is one line, so line breaks become \u{1}; the reader splits them again. The log has the complete text.
fn why(text: &str) {
    const LINES: usize = 20;
    let lines: Vec<&str> = text.lines().take(LINES).collect();
    mark(&format!("why {} {}", name(), lines.join("\u{1}")));
}
