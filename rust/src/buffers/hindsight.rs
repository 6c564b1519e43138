//! Goals that were reached later in the same episode (Andrychowicz et al., "Hindsight experience
//! replay", NIPS 2017).

use super::NONE;
use super::draw::{Draw, hindsight};
use super::replay::Replay;

impl Replay {
    /// For each of `slots`, with probability `share`, a transition of the same episode from it on,
    /// each as likely as the others; else the slot itself. `chosen` says which of the two. An
    /// episode is walked from the slot to its end.
    pub fn draw_later(
        &self,
        slots: &[u32],
        later: &mut [u32],
        chosen: &mut [u8],
        share: f32,
        draw: Draw,
    ) {
        for (i, &slot) in slots.iter().enumerate() {
            let (u, place) = hindsight(i, draw);
            chosen[i] = u8::from(u < share);
            later[i] = slot;
            if u < share {
                let steps = place(self.follow_ups(slot).count() as u64);
                later[i] = self.follow_ups(slot).nth(steps as usize).unwrap_or(slot);
            }
        }
    }

    /// The transitions of an episode from `slot` on.
    fn follow_ups(&self, slot: u32) -> impl Iterator<Item = u32> {
        std::iter::successors(Some(slot), |&at| {
            Some(self.links.next(at)).filter(|&next| next != NONE)
        })
    }
}
