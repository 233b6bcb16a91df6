//! Mutates messages without compiler instrumentation: `messages [--seconds N] [--seed N]`.

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use crate::check::check;

pub(crate) fn run() -> ExitCode {
    let mut seconds = 60;
    let mut seed = 1;
    let mut arguments = std::env::args().skip(1);
    while let Some(option) = arguments.next() {
        let value = arguments.next().and_then(|value| value.parse().ok());
        match (option.as_str(), value) {
            ("--seconds", Some(value)) => seconds = value,
            ("--seed", Some(value)) => seed = value,
            _ => {
                eprintln!("usage: messages [--seconds N] [--seed N]");
                return ExitCode::FAILURE;
            }
        }
    }
    let corpus = corpus();
    println!("{} captured messages, seed {seed}, {seconds} s", corpus.len());

    let (start, limit) = (Instant::now(), Duration::from_secs(seconds));
    let mut random = Random(seed.max(1));
    let mut inputs: u64 = 0;
    while start.elapsed() < limit {
        for _ in 0..10_000 {
            let input = random.input(&corpus);
            if std::panic::catch_unwind(|| check(&input)).is_err() {
                eprintln!("after {inputs} inputs of seed {seed} this one panicked: {}", hex(&input));
                return ExitCode::FAILURE;
            }
            inputs += 1;
        }
    }
    let rate = inputs as f64 / start.elapsed().as_secs_f64();
    println!("{inputs} inputs, {rate:.0} a second, no panic");
    ExitCode::SUCCESS
}

/// The captured messages as command number and attributes.
fn corpus() -> Vec<Vec<u8>> {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/captured");
    let files = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let mut corpus: Vec<Vec<u8>> = files
        .filter_map(|file| std::fs::read_to_string(file.path()).ok())
        .flat_map(|text| text.lines().filter_map(message).collect::<Vec<_>>())
        .collect();
    corpus.sort();
    corpus.dedup();
    corpus.push(Vec::new());
    corpus
}

/// The command and the attributes of a captured line, without the netlink header and the rest of the generic one.
fn message(line: &str) -> Option<Vec<u8>> {
    let text = line.strip_prefix("> ").or(line.strip_prefix("< "))?.as_bytes();
    let digits = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    let bytes: Vec<u8> = text.chunks(2).filter_map(digits).collect();
    Some([bytes.get(16..17)?, bytes.get(20..)?].concat())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Xorshift spreads inputs well enough, and gives the same sequence on every machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() >> 16) as usize % limit.max(1)
    }

    fn input(&mut self, corpus: &[Vec<u8>]) -> Vec<u8> {
        let mut input = corpus.get(self.below(corpus.len())).cloned().unwrap_or_default();
        for _ in 0..=self.below(8) {
            self.mutate(&mut input, corpus);
        }
        input
    }

    fn mutate(&mut self, input: &mut Vec<u8>, corpus: &[Vec<u8>]) {
        let at = self.below(input.len());
        let count = 1 + self.below(8);
        match self.below(7) {
            0 => input.truncate(at),
            1 => input.extend((0..count).map(|_| self.next() as u8)),
            2 => {
                let other = &corpus[self.below(corpus.len())];
                input.truncate(at);
                input.extend_from_slice(other.get(self.below(other.len())..).unwrap_or_default());
            }
            3 => drop(input.drain(at..(at + count).min(input.len()))),
            // Small numbers in the places of lengths, which follow the command's byte.
            4 => self.replace(input, at & !3 | 1, self.0 as u8 % 32),
            5 => self.replace(input, at, [0, 1, 3, 4, 0x7f, 0x80, 0xff][self.0 as usize % 7]),
            _ => {
                let bit = 1 << self.below(8);
                let old = input.get(at).copied().unwrap_or_default();
                self.replace(input, at, old ^ bit);
            }
        }
    }

    fn replace(&self, input: &mut [u8], at: usize, value: u8) {
        if let Some(byte) = input.get_mut(at) {
            *byte = value;
        }
    }
}
