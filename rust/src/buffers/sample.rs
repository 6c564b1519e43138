//! Samples of the ring.

use std::ops::Range;

use super::draw::{self, Draw};
use super::gather::{BLOCK, Slots};
use super::records::Fetched;
use super::replay::{Part, Replay};
use super::{NONE, TERMINATED, TRUNCATED};
use crate::pool::{self, PoolError};

/// Bytes of a sample from which threads share the work, and the least that one of them gets.
const SHARED_FROM: usize = 1 << 20;
const SHARE: usize = 1 << 18;

/// Room for a sample, as bytes.
pub struct Batch<'a> {
    /// Observations and next observations, part by part.
    pub obs: Vec<[&'a mut [u8]; 2]>,
    pub actions: &'a mut [u8],
    pub rewards: &'a mut [f32],
    pub terminated: &'a mut [u8],
    pub truncated: &'a mut [u8],
    /// What the value of the next observation is worth; with several steps only.
    pub discounts: Option<&'a mut [f32]>,
}

impl Replay {
    /// Write the slots of a uniform sample.
    ///
    /// # Panics
    /// If there is none to sample.
    pub fn draw(&self, slots: &mut [u32], draw: Draw) {
        draw::uniform(slots, self.len as u64, draw);
    }

    /// Write the transitions at `slots` to `out`.
    ///
    /// # Errors
    /// If the thread pool cannot be had.
    ///
    /// # Panics
    /// If a slot holds no transition, or `out` has room for another number of them.
    pub fn gather(&mut self, slots: &[u32], mut out: Batch) -> Result<(), PoolError> {
        let mut scratch = std::mem::take(&mut self.scratch);
        let last = match &mut out.discounts {
            Some(discounts) => {
                scratch.resize(slots.len(), NONE);
                self.add_up(slots, &mut scratch, out.rewards, discounts);
                scratch.as_slice()
            }
            None => slots,
        };
        let done = self.gather_shared(slots, last, out);
        self.scratch = scratch;
        done
    }

    /// Rewards of up to `n_step` transitions, and the last of those.
    fn add_up(&self, slots: &[u32], last: &mut [u32], rewards: &mut [f32], discounts: &mut [f32]) {
        let (field, records) = self.rewards();
        let reward = records.numbers(field);
        for (i, &slot) in slots.iter().enumerate() {
            let mut at = slot;
            let mut sum = f64::from(reward(at));
            let mut discount = self.layout.gamma;
            for _ in 1..self.layout.n_step {
                let next = self.links.next(at);
                if next == NONE {
                    break;
                }
                at = next;
                sum += discount * f64::from(reward(at));
                discount *= self.layout.gamma;
            }
            last[i] = at;
            rewards[i] = sum as f32;
            discounts[i] = discount as f32;
        }
    }

    fn gather_shared(&self, slots: &[u32], last: &[u32], out: Batch) -> Result<(), PoolError> {
        let bytes = slots.len() * self.row_bytes();
        if bytes < SHARED_FROM {
            self.gather_rows(slots, last, out);
            return Ok(());
        }
        let pool = pool::current()?;
        let shares = (bytes / SHARE).clamp(1, 4 * pool.num_threads());
        let rows = slots.len().div_ceil(shares);
        let mut jobs = Vec::with_capacity(shares);
        let mut rest = out;
        for (slots, last) in slots.chunks(rows).zip(last.chunks(rows)) {
            let (batch, others) = self.split(rest, slots.len());
            jobs.push((slots, last, batch));
            rest = others;
        }
        pool.for_each_item(jobs, |(slots, last, batch)| {
            self.gather_rows(slots, last, batch);
        });
        Ok(())
    }

    /// The first `count` rows of a batch, and the others.
    fn split<'a>(&self, batch: Batch<'a>, count: usize) -> (Batch<'a>, Batch<'a>) {
        let mut heads = Vec::with_capacity(batch.obs.len());
        let mut tails = Vec::with_capacity(batch.obs.len());
        for ([obs, next], width) in batch.obs.into_iter().zip(&self.layout.obs) {
            let (obs, later_obs) = obs.split_at_mut(count * width);
            let (next, later_next) = next.split_at_mut(count * width);
            heads.push([obs, next]);
            tails.push([later_obs, later_next]);
        }
        let actions = batch.actions.split_at_mut(count * self.layout.action);
        let rewards = batch.rewards.split_at_mut(count);
        let terminated = batch.terminated.split_at_mut(count);
        let truncated = batch.truncated.split_at_mut(count);
        let discounts = batch
            .discounts
            .map(|discounts| discounts.split_at_mut(count));
        let (first, second) = discounts.map_or((None, None), |(a, b)| (Some(a), Some(b)));
        let of = |obs, actions, rewards, terminated, truncated, discounts| Batch {
            obs,
            actions,
            rewards,
            terminated,
            truncated,
            discounts,
        };
        (
            of(
                heads,
                actions.0,
                rewards.0,
                terminated.0,
                truncated.0,
                first,
            ),
            of(
                tails,
                actions.1,
                rewards.1,
                terminated.1,
                truncated.1,
                second,
            ),
        )
    }

    /// What comes after a transition is taken from the slots `last`.
    fn gather_rows(&self, slots: &[u32], last: &[u32], mut out: Batch) {
        let count = slots.len();
        let (slots, last) = (Slots::new(slots, self.len), Slots::new(last, self.len));
        let block = |start: usize| start.min(count)..(start + BLOCK).min(count);
        let (mut now, mut ahead) = (&mut Block::new(slots, last), &mut Block::new(slots, last));
        self.fetch(slots.part(block(0)), last.part(block(0)), now);
        for start in (0..count).step_by(BLOCK) {
            let next = block(start + BLOCK);
            self.fetch(slots.part(next.clone()), last.part(next), ahead);
            self.copy(now, block(start), &mut out);
            std::mem::swap(&mut now, &mut ahead);
        }
    }

    /// Ask for transitions.
    fn fetch<'a>(&'a self, slots: Slots<'a>, last: Slots<'a>, block: &mut Block<'a>) {
        for part in &self.parts {
            if let Part::Once(frames) = part {
                frames.fetch(slots, false);
                frames.fetch(last, true);
            }
        }
        (block.slots, block.last) = (slots, last);
        let [first_span, last_span] = self.spans;
        self.records.fetch(first_span, slots, &mut block.records);
        if self.several() {
            self.records.fetch(last_span, last, &mut block.last_records);
        }
    }

    /// Whether what comes after a transition is another one's.
    fn several(&self) -> bool {
        self.layout.n_step > 1
    }

    /// Copy a block to these rows of `out`.
    fn copy(&self, block: &Block, rows: Range<usize>, out: &mut Batch) {
        let bytes = |width: usize| rows.start * width..rows.end * width;
        let first = &block.records;
        let last = if self.several() {
            &block.last_records
        } else {
            first
        };
        for (part, [obs, next]) in self.parts.iter().zip(&mut out.obs) {
            match part {
                Part::Twice {
                    obs: from,
                    next: then,
                } => {
                    first.copy(*from, &mut obs[bytes(from.width)]);
                    last.copy(*then, &mut next[bytes(then.width)]);
                }
                Part::Once(frames) => {
                    frames.gather(block.slots, false, &mut obs[bytes(frames.width())]);
                    frames.gather(block.last, true, &mut next[bytes(frames.width())]);
                }
            }
        }
        let actions = bytes(self.actions.width);
        first.copy(self.actions, &mut out.actions[actions]);
        if out.discounts.is_none() {
            let (field, records) = self.rewards();
            let rewards = &mut out.rewards[rows.clone()];
            if self.several() {
                let reward = records.numbers(field);
                for (i, to) in rewards.iter_mut().enumerate() {
                    *to = reward(block.slots.at(i) as u32);
                }
            } else {
                first.copy(field, rewards);
            }
        }
        let terminated = &mut out.terminated[rows.clone()];
        last.copy(self.flags, terminated);
        for (terminated, truncated) in terminated.iter_mut().zip(&mut out.truncated[rows]) {
            let flags = *terminated;
            *terminated = u8::from(flags & TERMINATED != 0);
            *truncated = u8::from(flags & TRUNCATED != 0);
        }
    }
}

/// Transitions that have been asked for.
struct Block<'a> {
    slots: Slots<'a>,
    last: Slots<'a>,
    records: Fetched<'a>,
    /// With several steps, those of `last`.
    last_records: Fetched<'a>,
}

impl<'a> Block<'a> {
    fn new(slots: Slots<'a>, last: Slots<'a>) -> Self {
        Self {
            slots,
            last,
            records: Fetched::new(),
            last_records: Fetched::new(),
        }
    }
}
