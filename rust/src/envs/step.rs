//! Stepping a batch: parts for threads, chunks for the cache, and the processor's best
//! instruction set.
#![allow(unsafe_code)]

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::batch::{Batch, Outputs, State};
use super::rollout::draw_actions;
use super::rules::{Columns, Shared};
use super::task::{ActionOf, Task};
use crate::pool::{self, PoolError};

/// Batches from this size on are stepped by several threads.
const PARALLEL_FROM: usize = 32_768;

/// Environments per chunk, whose arrays fit the second-level cache with room to spare.
pub(super) const CHUNK: usize = 1024;

/// Steps all environments of `state`; gives the number of episodes that ended.
pub(super) fn step<T: Task>(
    batch: &Batch<T>,
    state: State<'_, T::State>,
    actions: &[ActionOf<T>],
    outputs: Outputs<'_, T::Obs>,
) -> Result<usize, PoolError> {
    let whole = Part {
        batch,
        first: 0,
        state,
        actions,
        outputs,
    };
    if actions.len() < PARALLEL_FROM {
        return Ok(whole.step());
    }
    let pool = pool::current()?;
    let parts: Vec<_> = whole.split_into(pool.num_threads());
    let parts: Vec<_> = parts
        .into_iter()
        .map(|part| Mutex::new(Some(part)))
        .collect();
    let num_ended = AtomicUsize::new(0);
    pool.for_each(parts.len(), |i| {
        let part = parts[i].lock().ok().and_then(|mut part| part.take());
        num_ended.fetch_add(part.map_or(0, Part::step), Ordering::Relaxed);
    });
    Ok(num_ended.into_inner())
}

/// Consecutive environments of a batch.
pub(super) struct Part<'a, T: Task> {
    pub(super) batch: &'a Batch<T>,
    /// Index of the first of them in the batch.
    pub(super) first: u64,
    pub(super) state: State<'a, T::State>,
    pub(super) actions: &'a [ActionOf<T>],
    pub(super) outputs: Outputs<'a, T::Obs>,
}

impl<T: Task> Part<'_, T> {
    /// Parts of nearly equal size, at chunk limits.
    fn split_into(self, count: usize) -> Vec<Self> {
        let size = self.actions.len().div_ceil(count).next_multiple_of(CHUNK);
        let mut parts = Vec::with_capacity(count);
        let mut rest = self;
        while rest.actions.len() > size {
            let (state, rest_state) = rest.state.split_at(size);
            let (actions, rest_actions) = rest.actions.split_at(size);
            let (outputs, rest_outputs) = rest.outputs.split_at(size);
            parts.push(Part {
                state,
                actions,
                outputs,
                ..rest
            });
            rest = Part {
                batch: rest.batch,
                first: rest.first + size as u64,
                state: rest_state,
                actions: rest_actions,
                outputs: rest_outputs,
            };
        }
        parts.push(rest);
        parts
    }

    fn step(mut self) -> usize {
        let set = InstructionSet::<T>::best(self.state.columns.is_some());
        let len = self.actions.len();
        let mut num_ended = 0;
        for start in (0..len).step_by(CHUNK) {
            let end = len.min(start + CHUNK);
            let mut chunk = Part {
                batch: self.batch,
                first: self.first + start as u64,
                state: self.state.part(start, end),
                actions: &self.actions[start..end],
                outputs: self.outputs.part(start, end),
            };
            // SAFETY: `best` has asked the processor.
            num_ended += unsafe { (set.step_chunk)(&mut chunk) };
        }
        num_ended
    }
}

/// What is compiled for each instruction set.
///
/// SAFETY of both: the processor has the instructions.
pub(super) struct InstructionSet<T: Task> {
    pub(super) step_chunk: StepChunk<T>,
    pub(super) draw_actions: DrawActions<T>,
}

type StepChunk<T> = unsafe fn(&mut Part<'_, T>) -> usize;
type DrawActions<T> = unsafe fn(&Batch<T>, u64, &State<'_, <T as Task>::State>, &mut [ActionOf<T>]);

impl<T: Task> InstructionSet<T> {
    /// The best that this processor has, for shared rules or for those of each environment.
    pub(super) fn best(of_each: bool) -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl")
            {
                return Self::avx512(of_each);
            }
            if is_x86_feature_detected!("avx2") {
                return Self::avx2(of_each);
            }
        }
        Self::plain(of_each)
    }

    /// For every processor.
    fn plain(of_each: bool) -> Self {
        Self {
            step_chunk: if of_each {
                |chunk| chunk.step_chunk_singly::<Columns>()
            } else {
                |chunk| chunk.step_chunk_singly::<Shared<T>>()
            },
            draw_actions: draw_actions::<T>,
        }
    }

    #[cfg(target_arch = "x86_64")]
    fn avx2(of_each: bool) -> Self {
        Self {
            step_chunk: if of_each {
                |chunk| unsafe { step_columns_avx2(chunk) }
            } else {
                |chunk| unsafe { step_shared_avx2(chunk) }
            },
            draw_actions: draw_actions_avx2::<T>,
        }
    }

    #[cfg(target_arch = "x86_64")]
    fn avx512(of_each: bool) -> Self {
        Self {
            step_chunk: if of_each {
                |chunk| unsafe { step_columns_avx512(chunk) }
            } else {
                |chunk| unsafe { step_shared_avx512(chunk) }
            },
            draw_actions: draw_actions_avx512::<T>,
        }
    }
}

/// The functions of one instruction set: the lifetimes of the rules keep them apart.
#[cfg(target_arch = "x86_64")]
macro_rules! compiled_for {
    ($features:literal, $register:ident, $shared:ident, $columns:ident, $draw:ident) => {
        #[target_feature(enable = $features)]
        unsafe fn $shared<T: Task>(chunk: &mut Part<'_, T>) -> usize {
            unsafe { chunk.step_chunk::<super::lanes_x86::$register, Shared<T>>() }
        }

        #[target_feature(enable = $features)]
        unsafe fn $columns<T: Task>(chunk: &mut Part<'_, T>) -> usize {
            unsafe { chunk.step_chunk::<super::lanes_x86::$register, Columns>() }
        }

        #[target_feature(enable = $features)]
        unsafe fn $draw<T: Task>(
            batch: &Batch<T>,
            first: u64,
            state: &State<'_, T::State>,
            actions: &mut [ActionOf<T>],
        ) {
            draw_actions(batch, first, state, actions);
        }
    };
}

#[cfg(target_arch = "x86_64")]
compiled_for!(
    "avx2,avx512f,avx512bw,avx512dq,avx512vl,bmi1,bmi2,popcnt",
    Avx512,
    step_shared_avx512,
    step_columns_avx512,
    draw_actions_avx512
);
#[cfg(target_arch = "x86_64")]
compiled_for!(
    "avx2",
    Avx2,
    step_shared_avx2,
    step_columns_avx2,
    draw_actions_avx2
);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envs::Autoreset;
    use crate::envs::{
        Acrobot, CartPole, MountainCar, MountainCarContinuous, Params, Pendulum, Row,
    };
    use crate::philox::{philox, uniform};

    #[derive(Clone, PartialEq, Debug)]
    struct Owned {
        state: Vec<[f32; 4]>,
        elapsed: Vec<i32>,
        episode: Vec<u32>,
        seed: Vec<u64>,
        ended: Vec<u8>,
        episode_return: Vec<f32>,
        obs: Vec<[f32; 4]>,
        rewards: Vec<f32>,
        flags: [Vec<u8>; 2],
        final_obs: Vec<[f32; 4]>,
        final_return: Vec<f32>,
        final_length: Vec<i32>,
        num_ended: usize,
    }

    /// Environments about to fall or at rest, one in ten with an angle beyond the vector path.
    fn environments(n: usize) -> Owned {
        let draw = |i: usize, k: usize| philox(9, i as u64, 0, 7)[k] as f32 / u32::MAX as f32 - 0.5;
        let state = |i: usize| {
            let far = if i % 10 == 3 { 1e6 } else { 0.9 };
            [5.0 * draw(i, 0), draw(i, 1), far * draw(i, 2), draw(i, 3)]
        };
        Owned {
            state: (0..n).map(state).collect(),
            elapsed: (0..n).map(|i| (i % 50) as i32).collect(),
            episode: (0..n).map(|i| i as u32).collect(),
            seed: (0..n).map(|i| i as u64 * 77).collect(),
            ended: (0..n).map(|i| u8::from(i % 7 == 2)).collect(),
            episode_return: (0..n).map(|i| i as f32).collect(),
            obs: vec![[9.0; 4]; n],
            rewards: vec![9.0; n],
            flags: [vec![9; n], vec![9; n]],
            final_obs: vec![[9.0; 4]; n],
            final_return: vec![9.0; n],
            final_length: vec![9; n],
            num_ended: 0,
        }
    }

    const PARAMS: [f32; 13] = [
        9.8, 0.1, 1.1, 0.5, 0.05, 10.0, 0.02, 0.3, 2.4, 1.0, -1.0, -0.05, 0.05,
    ];

    fn batch(autoreset: Autoreset) -> Batch<CartPole> {
        Batch {
            task: CartPole::from_params(&PARAMS).unwrap(),
            autoreset,
            max_episode_steps: 40,
        }
    }

    fn part<'a>(
        batch: &'a Batch<CartPole>,
        owned: &'a mut Owned,
        actions: &'a [i64],
    ) -> Part<'a, CartPole> {
        let [terminated, truncated] = &mut owned.flags;
        Part {
            batch,
            first: 0,
            state: State {
                state: &mut owned.state,
                elapsed: &mut owned.elapsed,
                episode: &mut owned.episode,
                seed: &owned.seed,
                ended: &mut owned.ended,
                episode_return: &mut owned.episode_return,
                columns: None,
            },
            actions,
            outputs: Outputs {
                obs: &mut owned.obs,
                rewards: &mut owned.rewards,
                terminated,
                truncated,
                final_obs: Some(&mut owned.final_obs),
                final_return: Some(&mut owned.final_return),
                final_length: Some(&mut owned.final_length),
            },
        }
    }

    fn instruction_sets<T: Task>(of_each: bool) -> Vec<StepChunk<T>> {
        let mut sets = vec![InstructionSet::<T>::plain(of_each).step_chunk];
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx2") {
                sets.push(InstructionSet::<T>::avx2(of_each).step_chunk);
            }
            if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw") {
                sets.push(InstructionSet::<T>::avx512(of_each).step_chunk);
            }
        }
        sets
    }

    #[test]
    fn every_instruction_set_gives_the_same_bits() {
        for n in [0, 1, 7, 8, 15, 16, 17, 63, 64, 200, CHUNK] {
            let actions: Vec<i64> = (0..n as i64).map(|i| (i * i) % 2).collect();
            for mode in [
                Autoreset::NextStep,
                Autoreset::SameStep,
                Autoreset::Disabled,
            ] {
                let batch = batch(mode);
                let params: Vec<f32> = PARAMS.iter().flat_map(|&p| vec![p; n]).collect();
                let limits = vec![batch.max_episode_steps; n];
                let columns = Columns::new(&params, &limits);
                let shared = instruction_sets::<CartPole>(false).into_iter();
                let of_each = instruction_sets::<CartPole>(true).into_iter();
                let results: Vec<Owned> = shared
                    .map(|set| (set, None))
                    .chain(of_each.map(|set| (set, Some(columns))))
                    .map(|(step_chunk, columns)| {
                        let mut owned = environments(n);
                        for _ in 0..30 {
                            let mut chunk = part(&batch, &mut owned, &actions);
                            chunk.state.columns = columns;
                            // SAFETY: only sets that the processor has are listed.
                            let num_ended = unsafe { step_chunk(&mut chunk) };
                            owned.num_ended += num_ended;
                        }
                        owned
                    })
                    .collect();
                assert!(results.iter().all(|result| *result == results[0]));
                assert!(n < 63 || results[0].num_ended > 0);
            }
        }
    }

    #[test]
    fn splitting_a_batch_changes_nothing() {
        let n = 5 * CHUNK + 37;
        let actions: Vec<i64> = (0..n as i64).map(|i| (i / 3) % 2).collect();
        let batch = batch(Autoreset::SameStep);
        let mut whole = environments(n);
        whole.num_ended = part(&batch, &mut whole, &actions).step();
        for count in [1, 2, 3, 7, 100] {
            let mut split = environments(n);
            let parts = part(&batch, &mut split, &actions).split_into(count);
            assert!(parts.len() <= count.max(1));
            split.num_ended = parts.into_iter().map(Part::step).sum();
            assert_eq!(split, whole);
        }
    }

    #[test]
    fn threads_change_nothing() {
        let n = PARALLEL_FROM + 5;
        let actions = vec![1; n];
        let batch = batch(Autoreset::NextStep);
        let mut single = environments(n);
        part(&batch, &mut single, &actions).step();
        let mut parallel = environments(n);
        let Part { state, outputs, .. } = part(&batch, &mut parallel, &actions);
        step(&batch, state, &actions, outputs).unwrap();
        assert_eq!(single, parallel);
    }

    /// One task's states after some steps from random ones, by every instruction set.
    fn states_by_set<T: Task>(params: &[f32], scale: f32, actions: &[ActionOf<T>]) -> Vec<Vec<f32>>
    where
        T::State: AsMut<[f32]>,
        T::Obs: AsRef<[f32]>,
    {
        let n = actions.len();
        let batch = Batch {
            task: T::from_params(params).unwrap(),
            autoreset: Autoreset::SameStep,
            max_episode_steps: 7,
        };
        let roll = |step_chunk: StepChunk<T>| {
            let mut state = vec![T::State::ZERO; n];
            for (i, row) in state.iter_mut().enumerate() {
                let words = philox(3, i as u64, 0, 7);
                for (number, word) in row.as_mut().iter_mut().zip(words) {
                    *number = uniform(word, -scale, scale);
                }
            }
            let mut owned = environments(n);
            let mut obs = vec![T::Obs::ZERO; n];
            let mut seen = Vec::new();
            for _ in 0..20 {
                let [terminated, truncated] = &mut owned.flags;
                let mut part = Part {
                    batch: &batch,
                    first: 0,
                    state: State {
                        state: &mut state,
                        elapsed: &mut owned.elapsed,
                        episode: &mut owned.episode,
                        seed: &owned.seed,
                        ended: &mut owned.ended,
                        episode_return: &mut owned.episode_return,
                        columns: None,
                    },
                    actions,
                    outputs: Outputs {
                        obs: &mut obs,
                        rewards: &mut owned.rewards,
                        terminated,
                        truncated,
                        final_obs: None,
                        final_return: None,
                        final_length: None,
                    },
                };
                // SAFETY: only sets that the processor has are listed.
                unsafe { step_chunk(&mut part) };
                seen.extend(obs.iter().flat_map(|row| row.as_ref().to_vec()));
                seen.extend_from_slice(&owned.rewards);
            }
            seen
        };
        instruction_sets::<T>(false).into_iter().map(roll).collect()
    }

    #[test]
    fn every_task_gives_the_same_bits_in_every_instruction_set() {
        let pushes: Vec<i64> = (0..77).map(|i| i % 3).collect();
        let torques: Vec<f32> = (0..77).map(|i| i as f32 * 0.1 - 3.0).collect();
        let pendulum = [8.0, 2.0, 0.05, 15.0, 3.0, 3.1, 1.0];
        let car = [-1.2, 0.6, 0.07, 0.5, 0.0, 0.001, 0.0025, -0.6, -0.4];
        let engine = [-1.0, 1.0, -1.2, 0.6, 0.07, 0.45, 0.0, 0.0015, -0.6, -0.4];
        let acrobot = [0.2, 1.0, 1.0, 1.0, 0.5, 0.5, 1.0, 12.5, 28.3, -0.1, 0.1];
        for results in [
            states_by_set::<Pendulum>(&pendulum, 50.0, &torques),
            states_by_set::<MountainCar>(&car, 1.0, &pushes),
            states_by_set::<MountainCarContinuous>(&engine, 1.0, &torques),
            states_by_set::<Acrobot>(&acrobot, 8.0, &pushes),
        ] {
            assert!(results.iter().all(|result| *result == results[0]));
        }
    }
}
