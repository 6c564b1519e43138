//! Stepping a batch, and the only automatic reset.
//!
//! Blocks of environments are stepped in vector registers; the few environments that begin an
//! episode are collected and treated after that, so that no branch depends on a single
//! environment.
#![allow(unsafe_code)]

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::batch::{Autoreset, Batch, Outputs, State};
use super::lanes::Register;
use super::task::Task;
use crate::pool::{self, PoolError};

/// Batches from this size on are stepped by several threads.
const PARALLEL_FROM: usize = 32_768;

/// Environments per chunk, whose arrays fit the first-level cache.
const CHUNK: usize = 1024;

/// Episodes begun at once.
pub(super) const GROUP: usize = 16;

/// One bit per environment of a chunk: those that begin an episode now.
type Begins = [u64; CHUNK / 64];

/// Steps all environments of `state`; gives the number of episodes that ended.
pub(super) fn step<T: Task>(
    batch: &Batch<T>,
    state: State<'_>,
    actions: &[i64],
    outputs: Outputs<'_>,
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
struct Part<'a, T> {
    batch: &'a Batch<T>,
    /// Index of the first of them in the batch.
    first: u64,
    state: State<'a>,
    actions: &'a [i64],
    outputs: Outputs<'a>,
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
        let step_chunk = chosen::<T>();
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
            // SAFETY: `chosen` has asked the processor.
            num_ended += unsafe { step_chunk(&mut chunk) };
        }
        num_ended
    }
}

/// The best instruction set that this processor has.
fn chosen<T: Task>() -> unsafe fn(&mut Part<'_, T>) -> usize {
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
        {
            return step_chunk_avx512::<T>;
        }
        if is_x86_feature_detected!("avx2") {
            return step_chunk_avx2::<T>;
        }
    }
    step_chunk_scalar::<T>
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,avx512f,avx512bw,avx512dq,avx512vl,bmi1,bmi2,popcnt")]
unsafe fn step_chunk_avx512<T: Task>(chunk: &mut Part<'_, T>) -> usize {
    unsafe { chunk.step_chunk::<super::lanes_x86::Avx512>() }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
unsafe fn step_chunk_avx2<T: Task>(chunk: &mut Part<'_, T>) -> usize {
    unsafe { chunk.step_chunk::<super::lanes_x86::Avx2>() }
}

fn step_chunk_scalar<T: Task>(chunk: &mut Part<'_, T>) -> usize {
    let mut begins = Begins::default();
    let mut num_ended = 0;
    for i in 0..chunk.actions.len() {
        chunk.move_one(i);
        num_ended += chunk.record_one(i, &mut begins);
    }
    chunk.begin_episodes(&begins);
    num_ended
}

impl<T: Task> Part<'_, T> {
    /// Physics first, for all, then what follows from it: the divisions of one register then run
    /// while the next one is loaded, with little else in the way.
    ///
    /// SAFETY: the register's instructions exist.
    #[inline(always)]
    unsafe fn step_chunk<R: Register>(&mut self) -> usize {
        let len = self.actions.len();
        let whole = len / R::WIDTH * R::WIDTH;
        for at in (0..whole).step_by(R::WIDTH) {
            // SAFETY: all slices have the length of `actions`.
            if unsafe { self.move_lanes::<R>(at) }.is_none() {
                (at..at + R::WIDTH).for_each(|i| self.move_one(i));
            }
        }
        (whole..len).for_each(|i| self.move_one(i));

        let mut begins = Begins::default();
        let mut num_ended = 0;
        for at in (0..whole).step_by(R::WIDTH) {
            // SAFETY: as above.
            num_ended += unsafe { self.record_lanes::<R>(at, &mut begins) };
        }
        for i in whole..len {
            num_ended += self.record_one(i, &mut begins);
        }
        self.begin_episodes(&begins);
        num_ended
    }

    /// Moves the environments of a register that do not rest, or changes nothing and gives None.
    ///
    /// SAFETY: the register's instructions exist, and so do `WIDTH` environments from `at`.
    #[inline(always)]
    unsafe fn move_lanes<R: Register>(&mut self, at: usize) -> Option<()> {
        let (state, outputs) = (&mut self.state, &mut self.outputs);
        // SAFETY: the caller's promise.
        unsafe {
            let old = R::load_rows(state.state.as_ptr().add(at));
            let actions = self.actions.as_ptr().add(at);
            let (mut next, reward, terminated) = self.batch.task.step_lanes::<R>(old, actions)?;
            let rests = R::load_flags(state.ended.as_ptr().add(at));
            for (next, old) in next.iter_mut().zip(old) {
                *next = old.select(*next, rests);
            }
            R::store_rows(next, state.state.as_mut_ptr().add(at));
            R::store_rows(next, outputs.obs.as_mut_ptr().add(at));
            let reward = R::splat(0.0).select(reward, rests);
            reward.store(outputs.rewards.as_mut_ptr().add(at));
            R::store_flags(terminated & !rests, outputs.terminated.as_mut_ptr().add(at));
        }
        Some(())
    }

    fn move_one(&mut self, i: usize) {
        let (state, outputs) = (&mut self.state, &mut self.outputs);
        let (mut reward, mut terminated) = (0.0, false);
        if state.ended[i] == 0 {
            (state.state[i], reward, terminated) =
                self.batch.task.step(state.state[i], self.actions[i]);
        }
        outputs.obs[i] = state.state[i];
        outputs.rewards[i] = reward;
        outputs.terminated[i] = u8::from(terminated);
    }

    /// Counts, truncates and sums up; gives the number of episodes that ended.
    ///
    /// SAFETY: as for `move_lanes`.
    #[inline(always)]
    unsafe fn record_lanes<R: Register>(&mut self, at: usize, begins: &mut Begins) -> usize {
        let (state, outputs) = (&mut self.state, &mut self.outputs);
        // SAFETY: the caller's promise.
        unsafe {
            let rests = R::load_flags(state.ended.as_ptr().add(at));
            let terminated = R::load_flags(outputs.terminated.as_ptr().add(at));
            let elapsed = state.elapsed.as_mut_ptr().add(at);
            let truncated = R::count(elapsed, !rests, self.batch.max_episode_steps) & !rests;
            let ends = terminated | truncated;
            R::store_flags(truncated, outputs.truncated.as_mut_ptr().add(at));
            R::store_flags(rests | ends, state.ended.as_mut_ptr().add(at));
            let episode_return = R::load(state.episode_return.as_ptr().add(at))
                + R::load(outputs.rewards.as_ptr().add(at));
            episode_return.store(state.episode_return.as_mut_ptr().add(at));
            if let Some(final_return) = &mut outputs.final_return {
                let finished = episode_return.select(R::splat(0.0), ends);
                finished.store(final_return.as_mut_ptr().add(at));
            }
            if let Some(final_length) = &mut outputs.final_length {
                R::copy_counters(elapsed, ends, final_length.as_mut_ptr().add(at));
            }
            let (rests, ends) = (R::bits(rests), R::bits(ends));
            let begin = u64::from(begin(self.batch.autoreset, rests, ends));
            begins[at / 64] |= begin << (at % 64);
            ends.count_ones() as usize
        }
    }

    fn record_one(&mut self, i: usize, begins: &mut Begins) -> usize {
        let (state, outputs) = (&mut self.state, &mut self.outputs);
        let rests = state.ended[i] != 0;
        if !rests {
            state.elapsed[i] = state.elapsed[i].wrapping_add(1);
            state.episode_return[i] += outputs.rewards[i];
        }
        let truncated = !rests && state.elapsed[i] >= self.batch.max_episode_steps;
        let ends = truncated || outputs.terminated[i] != 0;
        state.ended[i] = u8::from(rests | ends);
        outputs.truncated[i] = u8::from(truncated);
        if let Some(final_return) = &mut outputs.final_return {
            final_return[i] = if ends { state.episode_return[i] } else { 0.0 };
        }
        if let Some(final_length) = &mut outputs.final_length {
            final_length[i] = if ends { state.elapsed[i] } else { 0 };
        }
        let begin = begin(self.batch.autoreset, u32::from(rests), u32::from(ends));
        begins[i / 64] |= u64::from(begin) << (i % 64);
        usize::from(ends)
    }

    #[inline(always)]
    fn begin_episodes(&mut self, begins: &Begins) {
        let mut indices = [0; CHUNK];
        let mut count = 0;
        for (word, bits) in begins.iter().enumerate() {
            let mut bits = *bits;
            while bits != 0 {
                indices[count] = (64 * word) as u32 + bits.trailing_zeros();
                count += 1;
                bits &= bits - 1;
            }
        }
        // Groups are always whole: the last index, repeated, is done again with the same result.
        let padded = count.next_multiple_of(GROUP);
        if count > 0 {
            let last = indices[count - 1];
            indices[count..padded].fill(last);
        }
        for group in indices[..padded].as_chunks::<GROUP>().0 {
            if let Some(final_obs) = &mut self.outputs.final_obs {
                for &i in group {
                    let i = i as usize;
                    if self.outputs.terminated[i] | self.outputs.truncated[i] != 0 {
                        final_obs[i] = self.state.state[i];
                    }
                }
            }
            let initial = self
                .state
                .begin_episodes(&self.batch.task, self.first, group);
            for (&i, initial) in group.iter().zip(initial) {
                self.outputs.obs[i as usize] = initial;
            }
        }
    }
}

/// Which of the environments that rested or ended begin an episode now.
#[inline(always)]
fn begin(autoreset: Autoreset, rests: u32, ends: u32) -> u32 {
    match autoreset {
        Autoreset::NextStep => rests,
        Autoreset::SameStep => rests | ends,
        Autoreset::Disabled => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envs::CartPole;
    use crate::philox::philox;

    type StepChunk = unsafe fn(&mut Part<'_, CartPole>) -> usize;

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

    fn batch(autoreset: Autoreset) -> Batch<CartPole> {
        let params = [
            9.8, 0.1, 1.1, 0.5, 0.05, 10.0, 0.02, 0.3, 2.4, 1.0, -1.0, -0.05, 0.05,
        ];
        Batch {
            task: CartPole::from_params(params),
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

    fn instruction_sets() -> Vec<StepChunk> {
        let mut sets: Vec<StepChunk> = vec![step_chunk_scalar];
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx2") {
                sets.push(step_chunk_avx2);
            }
            if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw") {
                sets.push(step_chunk_avx512);
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
                let results: Vec<Owned> = instruction_sets()
                    .into_iter()
                    .map(|step_chunk| {
                        let mut owned = environments(n);
                        for _ in 0..30 {
                            let mut chunk = part(&batch, &mut owned, &actions);
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
}
