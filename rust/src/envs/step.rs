//! Stepping a batch, and the only automatic reset.
//!
//! Blocks of environments are stepped in vector registers; the few environments that begin an
//! episode are collected and treated after that, so that no branch depends on a single
//! environment.
#![allow(unsafe_code)]

use super::batch::{Autoreset, Batch, Outputs, State};
use super::lanes::Register;
use super::task::Task;

/// Environments per chunk, whose arrays fit the first-level cache.
const CHUNK: usize = 1024;

/// Episodes begun at once.
pub(super) const GROUP: usize = 16;

/// One bit per environment of a chunk: those that begin an episode now.
type Begins = [u64; CHUNK / 64];

/// Steps all environments of `state`; gives the number of episodes that ended.
pub(super) fn step<T: Task>(
    batch: &Batch<T>,
    first: u64,
    mut state: State<'_>,
    actions: &[i64],
    mut outputs: Outputs<'_>,
) -> usize {
    let step_chunk = chosen::<T>();
    let len = actions.len();
    let mut num_ended = 0;
    for start in (0..len).step_by(CHUNK) {
        let end = len.min(start + CHUNK);
        let mut chunk = Chunk {
            batch,
            first: first + start as u64,
            state: state.part(start, end),
            actions: &actions[start..end],
            outputs: outputs.part(start, end),
        };
        // SAFETY: `chosen` has asked the processor.
        num_ended += unsafe { step_chunk(&mut chunk) };
    }
    num_ended
}

struct Chunk<'a, T> {
    batch: &'a Batch<T>,
    first: u64,
    state: State<'a>,
    actions: &'a [i64],
    outputs: Outputs<'a>,
}

/// The best instruction set that this processor has.
fn chosen<T: Task>() -> unsafe fn(&mut Chunk<'_, T>) -> usize {
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
unsafe fn step_chunk_avx512<T: Task>(chunk: &mut Chunk<'_, T>) -> usize {
    unsafe { chunk.step::<super::lanes_x86::Avx512>() }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
unsafe fn step_chunk_avx2<T: Task>(chunk: &mut Chunk<'_, T>) -> usize {
    unsafe { chunk.step::<super::lanes_x86::Avx2>() }
}

fn step_chunk_scalar<T: Task>(chunk: &mut Chunk<'_, T>) -> usize {
    let mut begins = Begins::default();
    let num_ended = chunk.step_singly(0, chunk.actions.len(), &mut begins);
    chunk.begin_episodes(&begins);
    num_ended
}

impl<T: Task> Chunk<'_, T> {
    /// SAFETY: the register's instructions exist.
    #[inline(always)]
    unsafe fn step<R: Register>(&mut self) -> usize {
        let mut begins = Begins::default();
        let mut num_ended = 0;
        let len = self.actions.len();
        let whole = len / R::WIDTH * R::WIDTH;
        for start in (0..whole).step_by(R::WIDTH) {
            // SAFETY: all slices have the length of `actions`.
            num_ended += match unsafe { self.step_block::<R>(start, &mut begins) } {
                Some(num_ended) => num_ended,
                None => self.step_singly(start, start + R::WIDTH, &mut begins),
            };
        }
        num_ended += self.step_singly(whole, len, &mut begins);
        self.begin_episodes(&begins);
        num_ended
    }

    /// Steps the environments of a register, or changes nothing and gives None.
    #[inline(always)]
    unsafe fn step_block<R: Register>(&mut self, at: usize, begins: &mut Begins) -> Option<usize> {
        let (state, outputs) = (&mut self.state, &mut self.outputs);
        unsafe {
            let old = R::load_rows(state.state.as_ptr().add(at));
            let (next, reward, terminated) = self
                .batch
                .task
                .step_lanes::<R>(old, self.actions.as_ptr().add(at))?;
            let rests = R::load_flags(state.ended.as_ptr().add(at));
            let mut next = next;
            for (new, old) in next.iter_mut().zip(old) {
                *new = old.select(*new, rests);
            }
            let reward = R::splat(0.0).select(reward, rests);
            let elapsed = state.elapsed.as_mut_ptr().add(at);
            let truncated = R::count(elapsed, !rests, self.batch.max_episode_steps) & !rests;
            let terminated = terminated & !rests;
            let ends = terminated | truncated;
            let episode_return = R::load(state.episode_return.as_ptr().add(at)) + reward;

            R::store_rows(next, state.state.as_mut_ptr().add(at));
            R::store_rows(next, outputs.obs.as_mut_ptr().add(at));
            episode_return.store(state.episode_return.as_mut_ptr().add(at));
            R::store_flags(rests | ends, state.ended.as_mut_ptr().add(at));
            reward.store(outputs.rewards.as_mut_ptr().add(at));
            R::store_flags(terminated, outputs.terminated.as_mut_ptr().add(at));
            R::store_flags(truncated, outputs.truncated.as_mut_ptr().add(at));
            if let Some(final_return) = &mut outputs.final_return {
                let finished = episode_return.select(R::splat(0.0), ends);
                finished.store(final_return.as_mut_ptr().add(at));
            }
            if let Some(final_length) = &mut outputs.final_length {
                R::copy_counters(elapsed, ends, final_length.as_mut_ptr().add(at));
            }
            let (rests, ends) = (R::bits(rests), R::bits(ends));
            begins[at / 64] |= u64::from(begin(self.batch.autoreset, rests, ends)) << (at % 64);
            Some(ends.count_ones() as usize)
        }
    }

    fn step_singly(&mut self, start: usize, end: usize, begins: &mut Begins) -> usize {
        let mut num_ended = 0;
        for i in start..end {
            let (rests, ends) = self.step_one(i);
            let begin = begin(self.batch.autoreset, u32::from(rests), u32::from(ends));
            begins[i / 64] |= u64::from(begin) << (i % 64);
            num_ended += usize::from(ends);
        }
        num_ended
    }

    /// Gives whether the environment rested and whether its episode ended.
    fn step_one(&mut self, i: usize) -> (bool, bool) {
        let (state, outputs) = (&mut self.state, &mut self.outputs);
        let rests = state.ended[i] != 0;
        let (mut reward, mut terminated, mut truncated) = (0.0, false, false);
        if !rests {
            (state.state[i], reward, terminated) =
                self.batch.task.step(state.state[i], self.actions[i]);
            state.elapsed[i] = state.elapsed[i].wrapping_add(1);
            state.episode_return[i] += reward;
            truncated = state.elapsed[i] >= self.batch.max_episode_steps;
        }
        let ends = terminated | truncated;
        state.ended[i] = u8::from(rests | ends);
        outputs.obs[i] = state.state[i];
        outputs.rewards[i] = reward;
        outputs.terminated[i] = u8::from(terminated);
        outputs.truncated[i] = u8::from(truncated);
        if let Some(final_return) = &mut outputs.final_return {
            final_return[i] = if ends { state.episode_return[i] } else { 0.0 };
        }
        if let Some(final_length) = &mut outputs.final_length {
            final_length[i] = if ends { state.elapsed[i] } else { 0 };
        }
        (rests, ends)
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
        for group in indices[..count].chunks(GROUP) {
            if let Some(final_obs) = &mut self.outputs.final_obs {
                for &i in group {
                    let i = i as usize;
                    if self.outputs.terminated[i] | self.outputs.truncated[i] != 0 {
                        final_obs[i] = self.state.state[i];
                    }
                }
            }
            self.state
                .begin_episodes(&self.batch.task, self.first, group);
            for &i in group {
                self.outputs.obs[i as usize] = self.state.state[i as usize];
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
