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
mod tests;
