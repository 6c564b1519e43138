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

/// The upper 24 bits of a word as a number in [0, 1), exact in f32.
#[inline]
#[must_use]
pub fn unit_f32(word: u32) -> f32 {
    (word >> 8) as f32 * (1.0 / 16_777_216.0)
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
    fn unit_stays_below_one() {
        assert_eq!(unit_f32(0), 0.0);
        assert!(unit_f32(u32::MAX) < 1.0);
    }
}
