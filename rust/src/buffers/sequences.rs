//! Samples of consecutive transitions of one episode.

use super::NONE;
use super::draw::{Draw, attempt};
use super::replay::Replay;

/// Attempts at an element before all starts are listed.
const ATTEMPTS: u32 = 64;

impl Replay {
    /// Draw `slots.len() / length` sequences of `length` transitions each, every possible start as
    /// likely as the others: one that lies a multiple of `stride` steps behind its episode's first
    /// transition, and whose sequence neither leaves the episode nor what has been pushed. False
    /// if there is none.
    ///
    /// # Panics
    /// If `length` or `stride` is 0.
    #[must_use]
    pub fn draw_sequences(
        &self,
        slots: &mut [u32],
        length: usize,
        stride: u32,
        draw: Draw,
    ) -> bool {
        let mut starts: Option<Vec<u32>> = None;
        for (i, sequence) in slots.chunks_exact_mut(length).enumerate() {
            let any = |attempt_number| attempt(i, attempt_number, self.len() as u64, draw);
            let found = starts.is_none()
                && !self.is_empty()
                && (0..ATTEMPTS).any(|number| self.follow(any(number), stride, sequence));
            if found {
                continue;
            }
            // Few starts, if any: the rest of the sample is drawn from a list of them.
            let starts = starts.get_or_insert_with(|| {
                let mut scratch = vec![NONE; length];
                (0..self.len() as u32)
                    .filter(|&slot| self.follow(slot, stride, &mut scratch))
                    .collect()
            });
            if starts.is_empty() {
                return false;
            }
            let at = attempt(i, ATTEMPTS, starts.len() as u64, draw);
            self.follow(starts[at as usize], stride, sequence);
        }
        true
    }

    /// Write the slots of the sequence that starts at `slot`; false if there is none.
    fn follow(&self, slot: u32, stride: u32, sequence: &mut [u32]) -> bool {
        if !self.links.step(slot).is_multiple_of(stride) {
            return false;
        }
        let mut at = slot;
        for to in sequence {
            if at == NONE {
                return false;
            }
            *to = at;
            at = self.links.next(at);
        }
        true
    }
}
