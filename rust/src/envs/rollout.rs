//! Several steps in one call: each chunk of environments takes all its steps while its state is in
//! the processor's own cache.
#![allow(unsafe_code)]

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::batch::{Batch, Outputs, State};
use super::chunk::GROUP;
use super::lanes;
use super::step::{CHUNK, InstructionSet, Part};
use super::task::{ActionOf, Task};
use crate::philox::{philox, philox_lanes, stream};
use crate::pool::{self, PoolError};

/// Rollouts of this many environment steps are shared among threads.
const PARALLEL_FROM: usize = 32_768;

/// A thread gets at least so many environments: whole cache lines of every array.
const LANES_PER_THREAD: usize = 64;

/// Where the actions of a rollout are, step after step.
pub enum Actions<'a, E> {
    Given(&'a [E]),
    /// Drawn from the environments' own streams, and written here if wanted.
    Drawn(Option<&'a mut [E]>),
}

/// Takes `num_steps` steps with all environments of `state`; row t of actions and outputs belongs
/// to step t. Gives the number of episodes that ended.
pub(super) fn rollout<T: Task>(
    batch: &Batch<T>,
    state: State<'_, T::State>,
    num_steps: usize,
    actions: Actions<'_, ActionOf<T>>,
    outputs: Outputs<'_, T::Obs>,
) -> Result<usize, PoolError> {
    let num_envs = state.state.len();
    let whole = Strip {
        batch,
        first: 0,
        state,
        rows: rows(num_envs, num_steps, actions, outputs),
    };
    let count = num_envs / LANES_PER_THREAD;
    if count < 2 || num_envs * num_steps < PARALLEL_FROM {
        return Ok(whole.roll());
    }
    let pool = pool::current()?;
    let strips: Vec<_> = whole.split_into(count.min(pool.num_threads()));
    let strips: Vec<_> = strips
        .into_iter()
        .map(|strip| Mutex::new(Some(strip)))
        .collect();
    let num_ended = AtomicUsize::new(0);
    pool.for_each(strips.len(), |i| {
        let strip = strips[i].lock().ok().and_then(|mut strip| strip.take());
        num_ended.fetch_add(strip.map_or(0, Strip::roll), Ordering::Relaxed);
    });
    Ok(num_ended.into_inner())
}

/// One step of a strip.
struct Row<'a, T: Task> {
    actions: Actions<'a, ActionOf<T>>,
    outputs: Outputs<'a, T::Obs>,
}

/// Cuts arrays of `num_steps` rows into their rows.
fn rows<'a, T: Task>(
    num_envs: usize,
    num_steps: usize,
    mut actions: Actions<'a, ActionOf<T>>,
    mut outputs: Outputs<'a, T::Obs>,
) -> Vec<Row<'a, T>> {
    let mut rows = Vec::with_capacity(num_steps);
    for _ in 0..num_steps {
        let (row_actions, rest_actions) = actions.split_at(num_envs);
        let (row_outputs, rest_outputs) = outputs.split_at(num_envs);
        rows.push(Row {
            actions: row_actions,
            outputs: row_outputs,
        });
        (actions, outputs) = (rest_actions, rest_outputs);
    }
    rows
}

impl<'a, E> Actions<'a, E> {
    fn split_at(self, middle: usize) -> (Actions<'a, E>, Actions<'a, E>) {
        match self {
            Self::Given(actions) => {
                let (head, rest) = actions.split_at(middle);
                (Actions::Given(head), Actions::Given(rest))
            }
            Self::Drawn(None) => (Actions::Drawn(None), Actions::Drawn(None)),
            Self::Drawn(Some(actions)) => {
                let (head, rest) = actions.split_at_mut(middle);
                (Actions::Drawn(Some(head)), Actions::Drawn(Some(rest)))
            }
        }
    }
}

/// Consecutive environments of a batch, and all their steps.
struct Strip<'a, T: Task> {
    batch: &'a Batch<T>,
    /// Index of the first of them in the batch.
    first: u64,
    state: State<'a, T::State>,
    rows: Vec<Row<'a, T>>,
}

impl<T: Task> Strip<'_, T> {
    /// Strips of nearly equal width.
    fn split_into(self, count: usize) -> Vec<Self> {
        let width = self.state.state.len().div_ceil(count);
        let width = width.next_multiple_of(LANES_PER_THREAD);
        let mut strips = Vec::with_capacity(count);
        let mut rest = self;
        while rest.state.state.len() > width {
            let (state, rest_state) = rest.state.split_at(width);
            let mut head_rows = Vec::with_capacity(rest.rows.len());
            let mut rest_rows = Vec::with_capacity(rest.rows.len());
            for row in rest.rows {
                let (actions, rest_actions) = row.actions.split_at(width);
                let (outputs, rest_outputs) = row.outputs.split_at(width);
                head_rows.push(Row { actions, outputs });
                rest_rows.push(Row {
                    actions: rest_actions,
                    outputs: rest_outputs,
                });
            }
            strips.push(Strip {
                batch: rest.batch,
                first: rest.first,
                state,
                rows: head_rows,
            });
            rest = Strip {
                batch: rest.batch,
                first: rest.first + width as u64,
                state: rest_state,
                rows: rest_rows,
            };
        }
        strips.push(rest);
        strips
    }

    fn roll(mut self) -> usize {
        let set = InstructionSet::<T>::best(self.state.columns.is_some());
        let len = self.state.state.len();
        let mut num_ended = 0;
        for start in (0..len).step_by(CHUNK) {
            let end = len.min(start + CHUNK);
            num_ended += self.roll_chunk(&set, start, end);
        }
        num_ended
    }

    fn roll_chunk(&mut self, set: &InstructionSet<T>, start: usize, end: usize) -> usize {
        let first = self.first + start as u64;
        let mut unwanted = [ActionOf::<T>::default(); CHUNK];
        let mut num_ended = 0;
        for row in &mut self.rows {
            let state = self.state.part(start, end);
            let actions = match &mut row.actions {
                Actions::Given(actions) => &actions[start..end],
                Actions::Drawn(wanted) => {
                    let drawn = match wanted {
                        Some(wanted) => &mut wanted[start..end],
                        None => &mut unwanted[..end - start],
                    };
                    // SAFETY: `best` has asked the processor.
                    unsafe { (set.draw_actions)(self.batch, first, &state, drawn) };
                    &*drawn
                }
            };
            let mut part = Part {
                batch: self.batch,
                first,
                state,
                actions,
                outputs: row.outputs.part(start, end),
            };
            // SAFETY: as above.
            num_ended += unsafe { (set.step_chunk)(&mut part) };
        }
        num_ended
    }
}

/// The next action of every environment from its own stream: a draw depends on its seed, index,
/// episode and elapsed steps. `first` is the index of the first.
#[inline(always)]
pub(super) fn draw_actions<T: Task>(
    batch: &Batch<T>,
    first: u64,
    state: &State<'_, T::State>,
    actions: &mut [ActionOf<T>],
) {
    if let Some(columns) = state.columns {
        let choose = |i, word| columns.task_of::<T>(i).random_action(word);
        draw_with(choose, first, state, actions);
    } else {
        draw_with(
            |_, word| batch.task.random_action(word),
            first,
            state,
            actions,
        );
    }
}

#[inline(always)]
fn draw_with<S: lanes::Row, E>(
    choose: impl Fn(usize, u32) -> E,
    first: u64,
    state: &State<'_, S>,
    actions: &mut [E],
) {
    let draw = |i: usize| (first + i as u64) | u64::from(state.episode[i]) << 32;
    let (groups, rest) = actions.as_chunks_mut::<GROUP>();
    let whole = GROUP * groups.len();
    let (seeds, _) = state.seed.as_chunks::<GROUP>();
    let (episodes, _) = state.episode.as_chunks::<GROUP>();
    let (elapsed, _) = state.elapsed.as_chunks::<GROUP>();
    for (group, actions) in groups.iter_mut().enumerate() {
        let at = group * GROUP;
        let (mut index, mut step) = ([0; GROUP], [0; GROUP]);
        for lane in 0..GROUP {
            let env = first + (at + lane) as u64;
            index[lane] = env | u64::from(episodes[group][lane]) << 32;
            step[lane] = elapsed[group][lane] as u32;
        }
        let [words, ..] = philox_lanes::<GROUP>(&seeds[group], &index, &step, stream::ACTION);
        for lane in 0..GROUP {
            actions[lane] = choose(at + lane, words[lane]);
        }
    }
    for (i, action) in (whole..).zip(rest) {
        let step = state.elapsed[i] as u32;
        let words = philox(state.seed[i], draw(i), step, stream::ACTION);
        *action = choose(i, words[0]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envs::{Autoreset, CartPole, Params, first_invalid_action};

    const NUM_ENVS: usize = 333;
    const NUM_STEPS: usize = 30;

    #[derive(Clone, PartialEq, Debug)]
    struct Owned {
        state: Vec<[f32; 4]>,
        elapsed: Vec<i32>,
        episode: Vec<u32>,
        ended: Vec<u8>,
        episode_return: Vec<f32>,
        obs: Vec<[f32; 4]>,
        rewards: Vec<f32>,
        terminated: Vec<u8>,
        truncated: Vec<u8>,
        actions: Vec<i64>,
    }

    fn owned() -> Owned {
        let entries = NUM_ENVS * NUM_STEPS;
        Owned {
            state: vec![[0.0, 0.0, 0.1, 0.0]; NUM_ENVS],
            elapsed: vec![0; NUM_ENVS],
            episode: (0..NUM_ENVS as u32).collect(),
            ended: vec![0; NUM_ENVS],
            episode_return: vec![0.0; NUM_ENVS],
            obs: vec![[9.0; 4]; entries],
            rewards: vec![9.0; entries],
            terminated: vec![9; entries],
            truncated: vec![9; entries],
            actions: vec![9; entries],
        }
    }

    fn batch() -> Batch<CartPole> {
        let params = [
            9.8, 0.1, 1.1, 0.5, 0.05, 10.0, 0.02, 0.3, 2.4, 1.0, -1.0, -0.05, 0.05,
        ];
        Batch {
            task: CartPole::from_params(&params).unwrap(),
            autoreset: Autoreset::SameStep,
            max_episode_steps: 12,
        }
    }

    const SEED: [u64; NUM_ENVS] = [77; NUM_ENVS];

    fn strip<'a>(batch: &'a Batch<CartPole>, owned: &'a mut Owned) -> Strip<'a, CartPole> {
        let outputs = Outputs {
            obs: &mut owned.obs,
            rewards: &mut owned.rewards,
            terminated: &mut owned.terminated,
            truncated: &mut owned.truncated,
            final_obs: None,
            final_return: None,
            final_length: None,
        };
        let actions = Actions::Drawn(Some(&mut owned.actions));
        Strip {
            batch,
            first: 0,
            state: State {
                state: &mut owned.state,
                elapsed: &mut owned.elapsed,
                episode: &mut owned.episode,
                seed: &SEED,
                ended: &mut owned.ended,
                episode_return: &mut owned.episode_return,
                columns: None,
            },
            rows: rows(NUM_ENVS, NUM_STEPS, actions, outputs),
        }
    }

    #[test]
    fn splitting_a_rollout_changes_nothing() {
        let batch = batch();
        let mut whole = owned();
        let num_ended = strip(&batch, &mut whole).roll();
        assert!(num_ended >= 2 * NUM_ENVS);
        assert_eq!(first_invalid_action::<CartPole>(&whole.actions), None);
        for count in [1, 2, 3, 5, 100] {
            let mut split = owned();
            let strips = strip(&batch, &mut split).split_into(count);
            assert!(strips.len() <= count);
            assert_eq!(
                strips.into_iter().map(Strip::roll).sum::<usize>(),
                num_ended
            );
            assert_eq!(split, whole);
        }
    }

    #[test]
    fn given_actions_are_taken_as_drawn_ones() {
        let batch = batch();
        let mut drawn = owned();
        strip(&batch, &mut drawn).roll();
        let mut given = owned();
        given.actions.clone_from(&drawn.actions);
        let actions = given.actions.clone();
        let mut strip = strip(&batch, &mut given);
        for (row, actions) in strip.rows.iter_mut().zip(actions.chunks(NUM_ENVS)) {
            row.actions = Actions::Given(actions);
        }
        strip.roll();
        assert_eq!(given, drawn);
    }
}
