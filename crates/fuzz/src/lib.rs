//! Feeds mutated inputs to decoders. Each decoder has a test with a call of [`fuzz`], beside its other tests, so that
//! decoders stay private. `cargo test` tries a thousand inputs, and `cargo xtask fuzz` as many as you like.
//!
//! An input that once failed stays in `corpus/TARGET`, and every run tries it first.

mod random;

use std::{
    env, fs,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    path::Path,
    time::{Duration, Instant},
};

use random::Random;

/// How many inputs `cargo test` tries: all decoders together take less than a minute.
const INPUTS: u64 = 1_000;

/// Feeds the inputs in `corpus/TARGET`, the seeds and mutations of them to `check`, which must not panic. Writes an
/// input that fails into the corpus.
///
/// `KUBE_IPVS_FUZZ_SECONDS` sets how long it goes on, and `KUBE_IPVS_FUZZ_SEED` another sequence of inputs.
pub fn fuzz<T: Into<Vec<u8>>>(target: &str, seeds: impl IntoIterator<Item = T>, check: impl Fn(&[u8])) {
    let number = |name| env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let (seconds, seed) = (number("KUBE_IPVS_FUZZ_SECONDS"), number("KUBE_IPVS_FUZZ_SEED").unwrap_or(1));
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    let files = fs::read_dir(&folder).into_iter().flatten().flatten();
    let mut corpus: Vec<Vec<u8>> = files.filter_map(|file| fs::read(file.path()).ok()).collect();
    corpus.sort();
    corpus.extend(seeds.into_iter().map(Into::into));
    assert!(!corpus.is_empty(), "{target} has no seed");
    // A stack overflow ends the process at once. Then the seed repeats the run.
    println!("{target}: {} inputs to mutate, seed {seed}", corpus.len());
    let run = |input: &[u8]| {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| check(input))) {
            let path = folder.join(format!("{:016x}", random::hash(input)));
            let written = fs::create_dir_all(&folder).and_then(|()| fs::write(&path, input));
            eprintln!("{target} fails for this input: {} ({written:?})", path.display());
            resume_unwind(panic);
        }
    };
    corpus.iter().for_each(|input| run(input));
    let (start, mut random, mut inputs) = (Instant::now(), Random::new(seed), 0);
    let goes_on = |inputs: u64| match seconds {
        Some(seconds) => start.elapsed() < Duration::from_secs(seconds),
        None => inputs < INPUTS,
    };
    while goes_on(inputs) {
        for _ in 0..100 {
            run(&random.input(&corpus));
            inputs += 1;
        }
    }
    println!("{target}: {inputs} inputs in {:.1?}, no panic", start.elapsed());
}

/// The bytes of hexadecimal digits. Other characters are left out.
pub fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.chars().filter_map(|digit| Some(digit.to_digit(16)? as u8)).collect();
    digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}
