//! Mutations of bytes, words and lines.

use std::ops::Range;

/// Xorshift spreads inputs well enough, and gives the same sequence on every machine.
pub(crate) struct Random(u64);

/// FNV-1a, 64 bits.
pub(crate) fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}

/// Values at the limits of types.
const WORDS: [&[u8]; 12] = [
    b"0",
    b"1",
    b"-1",
    b"65535",
    b"65536",
    b"4294967296",
    b"18446744073709551615",
    b"1e400",
    b"null",
    b"true",
    b"\"\"",
    b"[]",
];

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(hash(&seed.to_le_bytes()) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() >> 16) as usize % limit.max(1)
    }

    fn any<'a>(&mut self, all: &'a [Vec<u8>]) -> &'a [u8] {
        all.get(self.below(all.len())).map(Vec::as_slice).unwrap_or_default()
    }

    pub(crate) fn input(&mut self, corpus: &[Vec<u8>]) -> Vec<u8> {
        let mut input = self.any(corpus).to_vec();
        let is_text = std::str::from_utf8(&input).is_ok_and(|text| !text.contains('\0'));
        for _ in 0..=self.below(8) {
            match is_text && self.below(4) > 0 {
                true => self.mutate_text(&mut input, corpus),
                false => self.mutate_bytes(&mut input, corpus),
            }
        }
        input
    }

    fn mutate_bytes(&mut self, input: &mut Vec<u8>, corpus: &[Vec<u8>]) {
        let at = self.below(input.len());
        let count = 1 + self.below(8);
        let small = self.next() as u8 % 32;
        match self.below(7) {
            0 => input.truncate(at),
            1 => input.extend((0..count).map(|_| self.next() as u8)),
            2 => {
                let other = self.any(corpus);
                input.truncate(at);
                input.extend_from_slice(&other[self.below(other.len())..]);
            }
            3 => drop(input.drain(at..(at + count).min(input.len()))),
            // Small numbers in the places of lengths and kinds of attributes.
            4 => replace(input, at & !1, small),
            5 => replace(input, at, [0, 1, 3, 4, 0x7f, 0x80, 0xff][usize::from(small) % 7]),
            _ => {
                let bit = 1 << self.below(8);
                let old = input.get(at).copied().unwrap_or_default();
                replace(input, at, old ^ bit);
            }
        }
    }

    /// Keeps most of the syntax, so that the input gets past the parser.
    fn mutate_text(&mut self, input: &mut Vec<u8>, corpus: &[Vec<u8>]) {
        let other = self.any(corpus);
        let at = self.below(input.len());
        let words = |bytes: &[u8], at| part(bytes, at, |byte| byte.is_ascii_alphanumeric() || b".-_/".contains(&byte));
        let lines = |bytes: &[u8], at| part(bytes, at, |byte| byte != b'\n');
        let (word, line) = (words(input, at), lines(input, at));
        match self.below(6) {
            0 => drop(input.splice(word, WORDS[self.below(WORDS.len())].iter().copied())),
            1 | 2 => {
                let from = words(other, self.below(other.len()));
                drop(input.splice(word, other[from].iter().copied()));
            }
            3 => drop(input.drain(line)),
            4 => {
                let copy = [b"\n", &input[line.clone()]].concat();
                drop(input.splice(line.end..line.end, copy));
            }
            _ => {
                let from = lines(other, self.below(other.len()));
                let copy = [&other[from], b"\n"].concat();
                drop(input.splice(line.start..line.start, copy));
            }
        }
    }
}

fn replace(input: &mut [u8], at: usize, value: u8) {
    if let Some(byte) = input.get_mut(at) {
        *byte = value;
    }
}

/// The longest part around `at` whose bytes all belong to it.
fn part(bytes: &[u8], at: usize, belongs: impl Fn(u8) -> bool) -> Range<usize> {
    let start = bytes[..at].iter().rposition(|byte| !belongs(*byte)).map_or(0, |before| before + 1);
    let end = bytes[at..].iter().position(|byte| !belongs(*byte)).map_or(bytes.len(), |after| at + after);
    start..end
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seed_repeats_its_inputs_and_mutations_reach_words_and_lines() {
        let corpus = [b"port: 80\nname: web\n".to_vec(), b"name: api\n".to_vec()];
        let inputs = |seed| {
            let mut random = Random::new(seed);
            (0..50_000).map(|_| random.input(&corpus)).collect::<Vec<_>>()
        };
        assert_eq!(inputs(7), inputs(7));
        assert_ne!(inputs(7), inputs(8));
        let has = |wanted: &str| inputs(7).iter().any(|input| input == wanted.as_bytes());
        for wanted in ["port: 65536\nname: web\n", "port: 80\nname: api\n", "\nname: web\n", "name: api\nname: api\n"] {
            assert!(has(wanted), "{wanted:?}");
        }
    }
}
