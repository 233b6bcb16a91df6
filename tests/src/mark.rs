//! Progress marks for `cargo xtask test`, which shows the start of each scenario and the reason of a failure at once.
//!
//! They go directly to standard error, because libtest holds back a test's output until the test ends.

use std::any::Any;
use std::io::Write;
use std::thread;

use anyhow::Error;

/// `cargo xtask test` sets this variable.
const WANTED: &str = "KUBE_IPVS_MARKS";

fn mark(text: &str) {
    if std::env::var_os(WANTED).is_some() {
        // A single write, so that no other line comes in between.
        let _ = std::io::stderr().write_all(format!("\u{1}{text}\n").as_bytes());
    }
}

/// libtest names each thread after its test.
fn name() -> String {
    thread::current().name().unwrap_or("a test").to_owned()
}

pub(crate) fn begun() {
    mark(&format!("begun {}", name()));
}

pub(crate) fn failed(error: &Error) {
    why(&format!("{error:#}"));
}

pub(crate) fn panicked(payload: &(dyn Any + Send)) {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    why(text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("it panicked"));
}

/// A mark is one line, so line breaks become \u{1}, which the reader splits again. The log has the complete text.
fn why(text: &str) {
    const LINES: usize = 20;
    let lines: Vec<&str> = text.lines().take(LINES).collect();
    mark(&format!("why {} {}", name(), lines.join("\u{1}")));
}
