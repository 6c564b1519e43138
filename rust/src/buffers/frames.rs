//! Observations that are stored once: the next observation of a transition usually is the
//! observation of the environment's next transition.
//!
//! Whether it is, the bytes decide, not the flags: what is sampled is what was pushed, whatever the
//! order of the pushes. A frame is free again when no transition and no environment refers to it,
//! so as many frames are kept as transitions, and one more for each break and each environment.

#![allow(unsafe_code)]

use super::NONE;
use super::gather::{Slots, copy_rows, fetch};
use super::state::{Section, Sections, check_below, fill, owned, section};
use super::table::Table;

/// Bytes by which memory grows.
const CHUNK: usize = 1 << 22;

/// The frames of all transitions.
pub(super) struct Frames {
    width: usize,
    /// Frames of a chunk are two to this power.
    shift: u32,
    chunks: Vec<Table>,
    /// How many transitions and environments refer to each frame.
    users: Vec<u8>,
    free: Vec<u32>,
    /// The two frames of each transition.
    pairs: Vec<[u32; 2]>,
    /// The frame that each environment's next transition is expected to begin with.
    tails: Vec<u32>,
}

impl Frames {
    pub(super) fn new(capacity: usize, num_envs: usize, width: usize) -> Self {
        Self {
            width,
            shift: (CHUNK / width).max(1).ilog2(),
            chunks: Vec::new(),
            users: Vec::new(),
            free: Vec::new(),
            pairs: vec![[NONE; 2]; capacity],
            tails: vec![NONE; num_envs],
        }
    }

    pub(super) fn width(&self) -> usize {
        self.width
    }

    /// Store a transition of `env`; without a next observation it is zeros.
    pub(super) fn write(&mut self, slot: usize, obs: &[u8], next: Option<&[u8]>, env: usize) {
        for frame in std::mem::replace(&mut self.pairs[slot], [NONE; 2]) {
            self.release(frame);
        }
        let tail = self.tails[env];
        let first = if tail != NONE && self.frame(tail) == obs {
            tail
        } else {
            self.store(Some(obs))
        };
        self.users[first as usize] += 1;
        let second = self.store(next);
        self.users[second as usize] += 2;
        self.release(tail);
        self.tails[env] = second;
        self.pairs[slot] = [first, second];
    }

    fn store(&mut self, contents: Option<&[u8]>) -> u32 {
        let frame = self.free.pop().unwrap_or_else(|| self.grow());
        let row = frame & ((1 << self.shift) - 1);
        let width = self.width;
        let chunk = self.chunks[(frame >> self.shift) as usize].bytes_mut();
        let to = &mut chunk[row as usize * width..][..width];
        match contents {
            Some(from) => to.copy_from_slice(from),
            None => to.fill(0),
        }
        frame
    }

    /// A frame that was never used.
    fn grow(&mut self) -> u32 {
        let frame = self.users.len() as u32;
        assert_ne!(frame, NONE, "too many frames");
        if (frame >> self.shift) as usize == self.chunks.len() {
            self.chunks.push(Table::new(1 << self.shift, self.width));
        }
        self.users.push(0);
        frame
    }

    fn release(&mut self, frame: u32) {
        if frame == NONE {
            return;
        }
        let users = &mut self.users[frame as usize];
        *users -= 1;
        if *users == 0 {
            self.free.push(frame);
        }
    }

    #[inline]
    fn frame(&self, frame: u32) -> &[u8] {
        self.chunks[(frame >> self.shift) as usize].row(frame & ((1 << self.shift) - 1))
    }

    /// Ask for the frames that will be gathered.
    pub(super) fn fetch(&self, slots: Slots, next: bool) {
        for i in 0..slots.len() {
            fetch(self.frame_at(slots.at(i), next).as_ptr(), self.width);
        }
    }

    /// The observations of the transitions at `slots`, the next ones if `next`.
    pub(super) fn gather(&self, slots: Slots, next: bool, out: &mut [u8]) {
        let (count, width) = (slots.len(), self.width);
        assert_eq!(out.len(), count * width, "room for the frames");
        let from = |i: usize| self.frame_at(slots.at(i), next).as_ptr();
        let to = out.as_mut_ptr();
        // SAFETY: frames are of this width, and there is room for all of them.
        unsafe { copy_rows(count, width, from, |i| to.wrapping_add(i * width)) };
    }

    /// The observation of the transition in a slot, the next one if `next`.
    fn frame_at(&self, slot: usize, next: bool) -> &[u8] {
        self.frame(self.pairs[slot][usize::from(next)])
    }

    pub(super) fn clear(&mut self) {
        self.chunks.clear();
        self.users.clear();
        self.free.clear();
        self.pairs.fill([NONE; 2]);
        self.tails.fill(NONE);
    }

    /// The part `at` of observations.
    pub(super) fn sections<'a>(&'a self, at: usize, len: usize, all: &mut Vec<Section<'a>>) {
        all.push(owned(format!("frames.{at}"), &[self.users.len() as u64]));
        for (number, chunk) in self.chunks.iter().enumerate() {
            all.push(section(format!("frames.{at}.{number}"), chunk.bytes()));
        }
        all.push(section(format!("pairs.{at}"), &self.pairs[..len]));
        all.push(section(format!("tails.{at}"), &self.tails));
    }

    pub(super) fn restore(
        &mut self,
        at: usize,
        len: usize,
        sections: Sections,
    ) -> Result<(), String> {
        let mut count = [0_u64];
        fill(sections, &format!("frames.{at}"), &mut count)?;
        let most = (2 * self.pairs.len() + self.tails.len() + 1) as u64;
        if count[0] > most {
            return Err(format!(
                "frames.{at} are {}, expected at most {most}",
                count[0]
            ));
        }
        let count = count[0] as usize;
        for number in 0..count.div_ceil(1 << self.shift) {
            let mut chunk = Table::new(1 << self.shift, self.width);
            fill(
                sections,
                &format!("frames.{at}.{number}"),
                chunk.bytes_mut(),
            )?;
            self.chunks.push(chunk);
        }
        fill(sections, &format!("pairs.{at}"), &mut self.pairs[..len])?;
        fill(sections, &format!("tails.{at}"), &mut self.tails)?;
        let pairs = || self.pairs[..len].iter().flatten().copied();
        check_below(&format!("pairs.{at}"), pairs(), count, false)?;
        check_below(
            &format!("tails.{at}"),
            self.tails.iter().copied(),
            count,
            true,
        )?;
        let mut users = vec![0_u8; count];
        for frame in pairs().chain(self.tails.iter().copied()) {
            if frame != NONE {
                // More than a buffer ever has: a damaged file, whose frames then are never freed.
                users[frame as usize] = users[frame as usize].saturating_add(1);
            }
        }
        self.free = (0..count as u32)
            .filter(|&frame| users[frame as usize] == 0)
            .collect();
        self.users = users;
        Ok(())
    }

    /// Frames that are referred to.
    #[cfg(test)]
    pub(super) fn in_use(&self) -> usize {
        self.users.len() - self.free.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(frames: &Frames, slot: u32) -> [Vec<u8>; 2] {
        [false, true].map(|next| {
            let mut out = vec![0; frames.width];
            let slots = [slot];
            frames.gather(Slots::new(&slots, frames.pairs.len()), next, &mut out);
            out
        })
    }

    #[test]
    fn a_trajectory_is_stored_once() {
        let mut frames = Frames::new(4, 1, 2);
        for t in 0..100_u8 {
            frames.write(usize::from(t % 4), &[t, t], Some(&[t + 1, t + 1]), 0);
            assert_eq!(pair(&frames, u32::from(t % 4)), [[t, t], [t + 1, t + 1]]);
            assert!(frames.in_use() <= 5);
        }
        assert_eq!(frames.users.len(), 5);
    }

    // Interleaved environments, breaks that no flag announces, equal frames, a stalling environment:
    // every transition that the ring holds reads back as it was pushed.
    #[test]
    fn what_is_read_is_what_was_written() {
        let (capacity, envs) = (13, 3);
        let mut frames = Frames::new(capacity, envs, 1);
        let mut kept = vec![[0_u8; 2]; capacity];
        let mut last = vec![0_u8; envs];
        let mut state = 1_u32;
        let mut random = |n: u32| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 16) % n
        };
        for t in 0..5000 {
            let env = if t / 500 % 2 == 0 {
                0
            } else {
                random(envs as u32) as usize
            };
            if random(5) == 0 {
                last[env] = random(4) as u8;
            }
            let (obs, next) = (last[env], random(4) as u8);
            frames.write(t % capacity, &[obs], Some(&[next]), env);
            kept[t % capacity] = [obs, next];
            last[env] = next;
            for (slot, pushed) in kept.iter().enumerate().take(t + 1) {
                assert_eq!(pair(&frames, slot as u32).concat(), pushed);
            }
            assert!(frames.users.len() <= 2 * capacity + envs + 1);
        }
        frames.clear();
        assert_eq!(frames.in_use(), 0);
    }
}
