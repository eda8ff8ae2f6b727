//! Tells what is compressed already from its bytes alone, for a tenth of what trying to compress it costs.
//!
//! Two things make bytes smaller: that some are more frequent than others, and that they repeat. The first is
//! looked at in the whole block, the second in a piece from its middle.

/// How far back deflate finds what repeats.
const WINDOW: usize = 32 << 10;
/// How many bytes are searched for repetitions: twice the window, so that half of them have all of it behind them.
const SAMPLE: usize = 2 * WINDOW;
const TABLE_BITS: u32 = 15;

/// Looks at one block after the other.
pub(crate) struct Detector {
    /// Four bytes that were seen, by their hash.
    seen: Vec<u32>,
}

impl Detector {
    pub(crate) fn new() -> Self {
        Self { seen: vec![0; 1 << TABLE_BITS] }
    }

    /// Tells whether compressing is of no use: every byte is about as frequent as every other, and less than a
    /// hundredth of them repeats what came before. Of less than a sample it is not known.
    pub(crate) fn is_dense(&mut self, data: &[u8]) -> bool {
        if data.len() < SAMPLE || !is_even(data) {
            return false;
        }
        let start = (data.len() - SAMPLE) / 2;
        self.repetitions(&data[start..start + SAMPLE]) < SAMPLE / 100
    }

    /// Counts the places whose four bytes were seen before.
    fn repetitions(&mut self, sample: &[u8]) -> usize {
        self.seen.fill(0);
        let mut count = 0;
        for bytes in sample.windows(4) {
            let word = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
            // Fibonacci hashing; the table has room for every hash.
            let slot = &mut self.seen[(word.wrapping_mul(0x9e37_79b1) >> (32 - TABLE_BITS)) as usize];
            count += usize::from(*slot == word);
            *slot = word;
        }
        count
    }
}

/// Tells whether every byte is about as frequent as every other.
fn is_even(data: &[u8]) -> bool {
    // Several counters, as equal bytes in a row would wait for each other.
    let mut counts = [[0_u32; 256]; 4];
    let groups = data.chunks_exact(4);
    for byte in groups.remainder() {
        counts[0][usize::from(*byte)] += 1;
    }
    for group in groups {
        for (counts, byte) in counts.iter_mut().zip(group) {
            counts[usize::from(*byte)] += 1;
        }
    }
    let expected = data.len() / 256;
    // A quarter off is seven standard deviations of a fair draw of 256 KiB.
    let fair = expected * 3 / 4..=expected * 5 / 4;
    (0..256).all(|byte| fair.contains(&counts.iter().map(|counts| counts[byte] as usize).sum()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCK: usize = 256 << 10;

    fn random(length: usize) -> Vec<u8> {
        let mut state = 7_u64;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as u8
        };
        (0..length).map(|_| next()).collect()
    }

    /// Says by how much, in hundredths, the quickest level of deflate makes a block smaller.
    fn gain(data: &[u8]) -> usize {
        let mut deflate = flate2::Compress::new(flate2::Compression::fast(), false);
        let mut out = Vec::with_capacity(data.len() * 2);
        deflate.compress_vec(data, &mut out, flate2::FlushCompress::Finish).unwrap();
        100 - (100 * out.len() / data.len()).min(100)
    }

    #[test]
    fn only_what_deflate_cannot_shorten_is_dense() {
        let noise = random(BLOCK);
        let text: Vec<u8> = (0..BLOCK / 8)
            .flat_map(|number| format!("{:08}", number * 77_777 % 99_999_999).into_bytes())
            .collect();
        let mut partly = noise.clone();
        partly[BLOCK / 2..][..16 << 10].copy_from_slice(&noise[BLOCK / 2 - (16 << 10)..BLOCK / 2]);
        let mut zeros = noise.clone();
        zeros[..BLOCK / 8].fill(0);
        let words: Vec<u8> =
            random(BLOCK / 8).into_iter().flat_map(|byte| [byte, !byte, byte, 7, 1, 2, 3, 4]).collect();
        let far: Vec<u8> = random(30 << 10).into_iter().cycle().take(BLOCK).collect();
        let cases: [(&str, &[u8], bool); 7] = [
            ("noise", &noise, true),
            ("text", &text[..BLOCK], false),
            ("a repeated part", &partly, false),
            ("zeros", &zeros, false),
            ("words", &words[..BLOCK], false),
            ("a long period", &far, false),
            ("little", &noise[..1000], false),
        ];
        let mut detector = Detector::new();
        for (name, data, dense) in cases {
            assert_eq!(detector.is_dense(data), dense, "{name}");
            assert!(!dense || gain(data) == 0, "{name}");
        }
    }
}
