//! Philox4x32-10, the counter-based generator behind every random draw of the project
//! (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011).
//!
//! The key is the seed; the counter is (index, step, stream): a draw depends on what it is for,
//! never on the device, the launch shape or the number of threads.

/// What a draw is for: the last word of the counter.
pub mod stream {
    pub const ENV_RESET: u32 = 0;
    pub const ACTION: u32 = 1;
    pub const PERMUTATION: u32 = 2;
    pub const CATEGORICAL: u32 = 3;
    pub const GAUSSIAN: u32 = 4;
    pub const REPLAY: u32 = 5;
    pub const REPLAY_PRIORITY: u32 = 6;
    pub const REPLAY_SEQUENCE: u32 = 7;
    pub const REPLAY_HINDSIGHT: u32 = 8;
    pub const ENV_STEP: u32 = 9;
}

const MULTIPLIERS: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
const KEY_STEPS: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];

/// Four words for the draw `(index, step, stream)` under `seed`.
#[inline]
#[must_use]
pub fn philox(seed: u64, index: u64, step: u32, stream: u32) -> [u32; 4] {
    let mut counter = [index as u32, (index >> 32) as u32, step, stream];
    let mut key = [seed as u32, (seed >> 32) as u32];
    for _ in 0..10 {
        let product = [
            u64::from(MULTIPLIERS[0]) * u64::from(counter[0]),
            u64::from(MULTIPLIERS[1]) * u64::from(counter[2]),
        ];
        counter = [
            (product[1] >> 32) as u32 ^ counter[1] ^ key[0],
            product[1] as u32,
            (product[0] >> 32) as u32 ^ counter[3] ^ key[1],
            product[0] as u32,
        ];
        key = [
            key[0].wrapping_add(KEY_STEPS[0]),
            key[1].wrapping_add(KEY_STEPS[1]),
        ];
    }
    counter
}

/// `philox` for `N` draws of one stream, written so that it runs in vector registers.
#[inline(always)]
#[must_use]
pub fn philox_lanes<const N: usize>(
    seed: &[u64; N],
    index: &[u64; N],
    step: &[u32; N],
    stream: u32,
) -> [[u32; N]; 4] {
    // Words sit in the low halves of 64-bit lanes; what the high halves hold is ignored, as the
    // widening multiplication of vector units ignores it.
    let low = |lane: u64| lane & 0xFFFF_FFFF;
    let mut c0 = *index;
    let mut c1 = index.map(|index| index >> 32);
    let mut c2 = step.map(u64::from);
    let mut c3 = [u64::from(stream); N];
    let mut k0 = *seed;
    let mut k1 = seed.map(|seed| seed >> 32);
    for _ in 0..10 {
        for i in 0..N {
            let product0 = u64::from(MULTIPLIERS[0]) * low(c0[i]);
            let product1 = u64::from(MULTIPLIERS[1]) * low(c2[i]);
            c0[i] = (product1 >> 32) ^ c1[i] ^ k0[i];
            c1[i] = product1;
            c2[i] = (product0 >> 32) ^ c3[i] ^ k1[i];
            c3[i] = product0;
            k0[i] = k0[i].wrapping_add(u64::from(KEY_STEPS[0]));
            k1[i] = k1[i].wrapping_add(u64::from(KEY_STEPS[1]));
        }
    }
    [c0, c1, c2, c3].map(|word| word.map(|lane| lane as u32))
}

/// The upper 24 bits of a word as a number in [0, 1), exact in f32.
#[inline]
#[must_use]
pub fn unit_f32(word: u32) -> f32 {
    (word >> 8) as f32 * (1.0 / 16_777_216.0)
}

/// The number in `[low, high)` that a word stands for.
#[inline(always)]
#[must_use]
pub fn uniform(word: u32, low: f32, high: f32) -> f32 {
    low + unit_f32(word) * (high - low)
}

#[cfg(test)]
mod tests {
    use super::*;

    // The known-answer vectors published with Random123.
    #[test]
    fn known_answers() {
        assert_eq!(
            philox(0, 0, 0, 0),
            [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]
        );
        assert_eq!(
            philox(u64::MAX, u64::MAX, u32::MAX, u32::MAX),
            [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]
        );
        assert_eq!(
            philox(
                0x299f_31d0_a409_3822,
                0x85a3_08d3_243f_6a88,
                0x1319_8a2e,
                0x0370_7344
            ),
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
        );
    }

    #[test]
    fn lanes_equal_single_draws() {
        let seed: [u64; 5] = [0, 1, u64::MAX, 0x299f_31d0_a409_3822, 1 << 40];
        let index = [3, u64::MAX, 0, 1 << 33, 7];
        let step = [0, 1, u32::MAX, 9, 1 << 31];
        let words = philox_lanes(&seed, &index, &step, stream::ENV_RESET);
        for i in 0..5 {
            let single = philox(seed[i], index[i], step[i], stream::ENV_RESET);
            assert_eq!(words.map(|word| word[i]), single);
        }
    }

    #[test]
    fn unit_stays_below_one() {
        assert_eq!(unit_f32(0), 0.0);
        assert!(unit_f32(u32::MAX) < 1.0);
    }
}
