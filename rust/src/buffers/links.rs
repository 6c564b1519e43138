//! Which transition follows which: several environments push into one ring, in any order.

use super::NONE;
use super::state::{Section, Sections, check_below, fill, owned, section};

/// For each slot, its successor in the same episode, and how far into the episode it is.
pub(super) struct Links {
    next: Vec<u32>,
    step: Vec<u32>,
    /// For each environment, the transition that the next one of it will follow.
    tails: Vec<Tail>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Tail {
    /// Its number in the order of pushes, by which an overwritten one is recognised.
    number: u64,
    slot: u32,
    step: u32,
}

const NO_TAIL: Tail = Tail {
    number: 0,
    slot: NONE,
    step: 0,
};

impl Links {
    pub(super) fn new(capacity: usize, num_envs: usize) -> Self {
        Self {
            next: vec![0; capacity],
            step: vec![0; capacity],
            tails: vec![NO_TAIL; num_envs],
        }
    }

    /// Note the transition `number`, counted from zero, of `env` in `slot`.
    #[inline]
    pub(super) fn push(&mut self, slot: u32, number: u64, env: usize, ends: bool) {
        let capacity = self.next.len() as u64;
        let tail = self.tails[env];
        let mut step = 0;
        if tail.slot != NONE {
            step = tail.step.wrapping_add(1);
            if number - tail.number < capacity {
                self.next[tail.slot as usize] = slot;
            }
        }
        self.next[slot as usize] = NONE;
        self.step[slot as usize] = step;
        self.tails[env] = if ends {
            NO_TAIL
        } else {
            Tail { number, slot, step }
        };
    }

    /// Note consecutive transitions of the only environment, in slots that do not wrap around; it
    /// ends where flags are not zero.
    pub(super) fn push_run(&mut self, slot: usize, number: u64, flags: &[u8]) {
        let Some((&last, others)) = flags.split_last() else {
            return;
        };
        self.push(slot as u32, number, 0, flags[0] != 0);
        let mut step = self.step[slot];
        let next = &mut self.next[slot..slot + flags.len()];
        let steps = &mut self.step[slot + 1..slot + flags.len()];
        for (i, &flag) in others.iter().enumerate() {
            let ends = flag != 0;
            next[i] = if ends { NONE } else { (slot + i + 1) as u32 };
            step = if ends { 0 } else { step.wrapping_add(1) };
            steps[i] = step;
        }
        next[others.len()] = NONE;
        self.tails[0] = if last != 0 {
            NO_TAIL
        } else {
            Tail {
                number: number + others.len() as u64,
                slot: (slot + others.len()) as u32,
                step,
            }
        };
    }

    /// The transition after the one in `slot`, or [`NONE`] at an episode's end and at its newest.
    #[inline]
    pub(super) fn next(&self, slot: u32) -> u32 {
        self.next[slot as usize]
    }

    /// Steps of the episode before this transition.
    #[inline]
    pub(super) fn step(&self, slot: u32) -> u32 {
        self.step[slot as usize]
    }

    pub(super) fn clear(&mut self) {
        self.tails.fill(NO_TAIL);
    }

    pub(super) fn sections<'a>(&'a self, len: usize, all: &mut Vec<Section<'a>>) {
        let numbers = |tail: &Tail| [tail.number, u64::from(tail.slot), u64::from(tail.step)];
        let tails: Vec<[u64; 3]> = self.tails.iter().map(numbers).collect();
        all.push(section("links.next", &self.next[..len]));
        all.push(section("links.step", &self.step[..len]));
        all.push(owned("links.tails", &tails));
    }

    pub(super) fn restore(
        &mut self,
        len: usize,
        pushed: u64,
        sections: Sections,
    ) -> Result<(), String> {
        fill(sections, "links.next", &mut self.next[..len])?;
        fill(sections, "links.step", &mut self.step[..len])?;
        check_below("links.next", self.next[..len].iter().copied(), len, true)?;
        let mut tails = vec![[0; 3]; self.tails.len()];
        fill(sections, "links.tails", &mut tails)?;
        for (tail, [number, slot, step]) in self.tails.iter_mut().zip(tails) {
            let (slot, step) = (slot as u32, step as u32);
            check_below("links.tails", [slot].into_iter(), len, true)?;
            if slot != NONE && number >= pushed {
                return Err(format!("links.tails holds {number} of {pushed} pushes"));
            }
            *tail = Tail { number, slot, step };
        }
        Ok(())
    }
}
