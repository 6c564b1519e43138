//! The ring of transitions.

use std::ops::Range;

use super::frames::Frames;
use super::links::Links;
use super::raw::bytes_of;
use super::records::{Field, Fields, Records};
use super::{TERMINATED, TRUNCATED};

/// What a buffer holds; sizes in bytes.
#[derive(Clone, Debug)]
pub struct Layout {
    pub capacity: usize,
    pub num_envs: usize,
    /// The parts of an observation.
    pub obs: Vec<usize>,
    pub action: usize,
    /// Whether an observation that is two transitions' is stored once.
    pub deduplicate: bool,
    /// How many rewards are added up, and what each next one is worth.
    pub n_step: u32,
    pub gamma: f64,
}

/// One part of the observations of `count` transitions; zeros where there are no next ones.
#[derive(Clone, Copy)]
pub struct Observation<'a> {
    pub obs: &'a [u8],
    pub next: Option<&'a [u8]>,
}

/// Transitions, as bytes: rewards are f32.
#[derive(Clone, Copy)]
pub struct Rows<'a> {
    pub obs: &'a [Observation<'a>],
    pub actions: &'a [u8],
    pub rewards: &'a [f32],
    /// Bytes that are zero or not, as many as rewards.
    pub terminated: &'a [u8],
    pub truncated: &'a [u8],
    pub envs: Envs<'a>,
}

/// The environments of rows.
#[derive(Clone, Copy)]
pub enum Envs<'a> {
    /// Row i is of environment `i % num_envs`.
    InTurn,
    /// Those below `num_envs`.
    Given(&'a [u32]),
}

pub(super) enum Part {
    Twice { obs: Field, next: Field },
    Once(Frames),
}

/// Rewards that are added up lie apart: those of consecutive transitions share cache lines then.
pub(super) struct Rewards {
    field: Field,
    apart: Option<Records>,
}

/// Transitions in the order of their pushes, the oldest ones overwritten.
pub struct Replay {
    pub(super) layout: Layout,
    pub(super) parts: Vec<Part>,
    /// All but what `parts` and `rewards` have for themselves.
    pub(super) records: Records,
    pub(super) actions: Field,
    rewards: Rewards,
    pub(super) flags: Field,
    /// What a sample takes from the first of several steps, and from the last.
    pub(super) spans: [Field; 2],
    pub(super) links: Links,
    /// Pushes since the buffer was made or cleared.
    pub(super) pushed: u64,
    pub(super) len: usize,
    pub(super) head: usize,
    pub(super) scratch: Vec<u32>,
    /// The flags of what is being pushed.
    ends: Vec<u8>,
}

impl Replay {
    /// # Panics
    /// If there is no memory, or the capacity is 0 or above [`super::MAX_CAPACITY`].
    #[must_use]
    pub fn new(layout: Layout) -> Self {
        let Layout {
            capacity, num_envs, ..
        } = layout;
        assert!((1..=super::MAX_CAPACITY).contains(&capacity), "capacity");
        let mut fields = Fields::default();
        let begin = fields.add(0);
        let twice: &[usize] = if layout.deduplicate { &[] } else { &layout.obs };
        let obs: Vec<Field> = twice.iter().map(|&width| fields.add(width)).collect();
        let actions = fields.add(layout.action);
        let rewards = if layout.n_step > 1 {
            let mut alone = Fields::default();
            Rewards {
                field: alone.add(size_of::<f32>()),
                apart: Some(Records::new(capacity, &alone)),
            }
        } else {
            Rewards {
                field: fields.add(size_of::<f32>()),
                apart: None,
            }
        };
        let middle = fields.add(0);
        let next: Vec<Field> = twice.iter().map(|&width| fields.add(width)).collect();
        let flags = fields.add(1);
        let parts = if layout.deduplicate {
            let frames = |&width: &usize| Part::Once(Frames::new(capacity, num_envs, width));
            layout.obs.iter().map(frames).collect()
        } else {
            let twice = obs.into_iter().zip(next);
            twice.map(|(obs, next)| Part::Twice { obs, next }).collect()
        };
        Self {
            parts,
            actions,
            rewards,
            flags,
            spans: if layout.n_step > 1 {
                [begin.through(actions), middle.through(flags)]
            } else {
                [begin.through(flags), flags]
            },
            records: Records::new(capacity, &fields),
            links: Links::new(capacity, num_envs),
            pushed: 0,
            len: 0,
            head: 0,
            scratch: Vec::new(),
            ends: Vec::new(),
            layout,
        }
    }

    #[must_use]
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Transitions that can be sampled.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The slot that the next push writes.
    #[must_use]
    pub fn head(&self) -> usize {
        self.head
    }

    /// Bytes of one transition in a sample.
    #[must_use]
    pub fn row_bytes(&self) -> usize {
        2 * self.layout.obs.iter().sum::<usize>() + self.layout.action + size_of::<f32>() + 2
    }

    /// Forget all transitions.
    pub fn clear(&mut self) {
        for part in &mut self.parts {
            if let Part::Once(frames) = part {
                frames.clear();
            }
        }
        self.links.clear();
        (self.pushed, self.len, self.head) = (0, 0, 0);
    }

    /// Where rewards are.
    pub(super) fn rewards(&self) -> (Field, &Records) {
        let Rewards { field, apart } = &self.rewards;
        (*field, apart.as_ref().unwrap_or(&self.records))
    }

    pub(super) fn rewards_mut(&mut self) -> (Field, &mut Records) {
        let Rewards { field, apart } = &mut self.rewards;
        (*field, apart.as_mut().unwrap_or(&mut self.records))
    }

    /// Append transitions; of more than fit the last ones stay.
    ///
    /// # Panics
    /// If the rows' sizes differ from the layout's.
    pub fn push(&mut self, rows: &Rows) {
        let (capacity, count) = (self.layout.capacity, rows.rewards.len());
        assert_eq!(rows.obs.len(), self.parts.len(), "parts");
        assert!(rows.terminated.len() == count && rows.truncated.len() == count);
        if count == 1 {
            return self.push_row(rows);
        }
        let mut first = 0;
        while first < count {
            let block = (count - first).min(capacity);
            self.push_block(rows, first, block);
            first += block;
        }
    }

    /// One row, without what only several need.
    fn push_row(&mut self, rows: &Rows) {
        let slot = self.head;
        let env = env_of(rows, 0, self.layout.num_envs);
        let records = &mut self.records;
        for (part, Observation { obs, next }) in self.parts.iter_mut().zip(rows.obs) {
            match part {
                Part::Twice {
                    obs: to,
                    next: then,
                } => {
                    records.get_mut(*to, slot).copy_from_slice(obs);
                    let then = records.get_mut(*then, slot);
                    match next {
                        Some(next) => then.copy_from_slice(next),
                        None => then.fill(0),
                    }
                }
                Part::Once(frames) => frames.write(slot, obs, *next, env),
            }
        }
        let flags = flags_of(rows.terminated[0], rows.truncated[0]);
        records
            .get_mut(self.actions, slot)
            .copy_from_slice(rows.actions);
        records.get_mut(self.flags, slot)[0] = flags;
        let (field, records) = self.rewards_mut();
        records
            .get_mut(field, slot)
            .copy_from_slice(bytes_of(rows.rewards));
        self.links.push(slot as u32, self.pushed, env, flags != 0);
        self.pushed += 1;
        let capacity = self.layout.capacity;
        self.head = if slot + 1 == capacity { 0 } else { slot + 1 };
        self.len = (self.len + 1).min(capacity);
    }

    /// At most as many rows as there are slots.
    fn push_block(&mut self, rows: &Rows, first: usize, count: usize) {
        let (slot, capacity) = (self.head, self.layout.capacity);
        let records = &mut self.records;
        for (part, Observation { obs, next }) in self.parts.iter_mut().zip(rows.obs) {
            match part {
                Part::Twice {
                    obs: to,
                    next: then,
                } => {
                    let bytes = first * to.width..(first + count) * to.width;
                    records.write(*to, slot, &obs[bytes.clone()]);
                    match next {
                        Some(next) => records.write(*then, slot, &next[bytes]),
                        None => records.clear(*then, slot, count),
                    }
                }
                Part::Once(frames) => {
                    let width = frames.width();
                    for i in 0..count {
                        let bytes = (first + i) * width..(first + i + 1) * width;
                        let env = env_of(rows, first + i, self.layout.num_envs);
                        let next = next.map(|next| &next[bytes.clone()]);
                        frames.write((slot + i) % capacity, &obs[bytes], next, env);
                    }
                }
            }
        }
        let (rows_here, width) = (first..first + count, self.actions.width);
        let actions = &rows.actions[first * width..(first + count) * width];
        records.write(self.actions, slot, actions);
        let rewards = bytes_of(&rows.rewards[rows_here.clone()]);
        let (field, records) = self.rewards_mut();
        records.write(field, slot, rewards);
        let ends = rows.terminated[rows_here.clone()]
            .iter()
            .zip(&rows.truncated[rows_here]);
        self.ends.clear();
        self.ends
            .extend(ends.map(|(&terminated, &truncated)| flags_of(terminated, truncated)));
        self.records.write(self.flags, slot, &self.ends);
        let here = count.min(capacity - slot);
        self.push_links(rows, first, slot, 0..here);
        self.push_links(rows, first + here, 0, here..count);
        self.head = (slot + count) % capacity;
        self.len = (self.len + count).min(capacity);
    }

    /// The links of rows whose slots do not wrap around, with the flags `ends[run]`.
    fn push_links(&mut self, rows: &Rows, first: usize, slot: usize, run: Range<usize>) {
        let flags = &self.ends[run];
        if self.layout.num_envs == 1 {
            self.links.push_run(slot, self.pushed, flags);
        } else {
            for (i, &flags) in flags.iter().enumerate() {
                let env = env_of(rows, first + i, self.layout.num_envs);
                let number = self.pushed + i as u64;
                self.links.push((slot + i) as u32, number, env, flags != 0);
            }
        }
        self.pushed += flags.len() as u64;
    }
}

#[inline(always)]
fn flags_of(terminated: u8, truncated: u8) -> u8 {
    (u8::from(terminated != 0) * TERMINATED) | (u8::from(truncated != 0) * TRUNCATED)
}

#[inline(always)]
fn env_of(rows: &Rows, row: usize, num_envs: usize) -> usize {
    match rows.envs {
        Envs::InTurn if num_envs == 1 => 0,
        Envs::InTurn => row % num_envs,
        Envs::Given(envs) => envs[row] as usize,
    }
}
