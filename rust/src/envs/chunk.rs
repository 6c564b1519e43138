//! One chunk of a batch: what a step does to it, and the only automatic reset.
//!
//! Blocks of environments are moved in vector registers; the few environments that begin an
//! episode are collected and treated after that, so that no branch depends on a single
//! environment.
#![allow(unsafe_code)]

use super::batch::Autoreset;
use super::lanes::{MAX_WIDTH, Register, Row};
use super::rules::Rules;
use super::step::{CHUNK, Part};
use super::task::{Action, Task};
use crate::philox::{philox_lanes, stream, unit_f32};

/// Episodes begun at once.
pub(super) const GROUP: usize = 16;

/// One bit per environment of a chunk: those that begin an episode now.
type Begins = [u64; CHUNK / 64];

impl<'a, T: Task> Part<'a, T> {
    /// One environment after the other, for processors without the vector instructions.
    pub(super) fn step_chunk_singly<U: Rules<'a, T>>(&mut self) -> usize {
        let rules = U::of(self.batch, &self.state);
        let mut begins = Begins::default();
        let mut num_ended = 0;
        for i in 0..self.actions.len() {
            self.move_one(&rules, i);
            num_ended += self.record_one(&rules, i, &mut begins);
        }
        self.begin_episodes(&rules, &begins);
        num_ended
    }

    /// Physics first, for all, then what follows from it: the divisions of one register then run
    /// while the next one is loaded, with little else in the way.
    ///
    /// SAFETY: the register's instructions exist.
    #[inline(always)]
    pub(super) unsafe fn step_chunk<R: Register, U: Rules<'a, T>>(&mut self) -> usize {
        let rules = U::of(self.batch, &self.state);
        let len = self.actions.len();
        let whole = len / R::WIDTH * R::WIDTH;
        for at in (0..whole).step_by(R::WIDTH) {
            // SAFETY: all slices have the length of `actions`.
            unsafe { self.move_lanes::<R, U>(&rules, at) };
        }
        (whole..len).for_each(|i| self.move_one(&rules, i));

        let mut begins = Begins::default();
        let mut num_ended = 0;
        for at in (0..whole).step_by(R::WIDTH) {
            // SAFETY: as above.
            num_ended += unsafe { self.record_lanes::<R, U>(&rules, at, &mut begins) };
        }
        for i in whole..len {
            num_ended += self.record_one(&rules, i, &mut begins);
        }
        self.begin_episodes(&rules, &begins);
        num_ended
    }

    /// Moves the environments of a register that do not rest.
    ///
    /// SAFETY: the register's instructions exist, and so do `WIDTH` environments from `at`.
    #[inline(always)]
    unsafe fn move_lanes<R: Register, U: Rules<'a, T>>(&mut self, rules: &U, at: usize) {
        let noise = self.noise(at);
        let (state, outputs) = (&mut self.state, &mut self.outputs);
        // SAFETY: the caller's promise.
        unsafe {
            let params = rules.tasks::<R>(at);
            let old = T::State::load::<R>(state.state.as_ptr().add(at));
            let actions = T::Action::numbers::<R>(self.actions.as_ptr().add(at));
            let actions = if T::SLIPS {
                T::slip::<R>(&params, actions, R::load(noise.as_ptr()))
            } else {
                actions
            };
            let (mut next, reward, terminated) = T::step::<R>(&params, old, actions);
            let rests = R::load_flags(state.ended.as_ptr().add(at));
            for (next, old) in next.as_mut().iter_mut().zip(old.as_ref()) {
                *next = old.select(*next, rests);
            }
            T::State::store::<R>(next, state.state.as_mut_ptr().add(at));
            let obs = T::observe::<R>(next);
            T::Obs::store::<R>(obs, outputs.obs.as_mut_ptr().add(at));
            let reward = R::splat(0.0).select(reward, rests);
            reward.store(outputs.rewards.as_mut_ptr().add(at));
            R::store_flags(terminated & !rests, outputs.terminated.as_mut_ptr().add(at));
        }
    }

    /// The random numbers of this step for the environments from `at` on, as many as there are of
    /// them and fit a register.
    #[inline(always)]
    fn noise(&self, at: usize) -> [f32; MAX_WIDTH] {
        let (mut seed, mut index, mut step) = ([0; MAX_WIDTH], [0; MAX_WIDTH], [0; MAX_WIDTH]);
        if !T::SLIPS {
            return [0.0; MAX_WIDTH];
        }
        let state = &self.state;
        for (lane, i) in (at..state.elapsed.len()).take(MAX_WIDTH).enumerate() {
            seed[lane] = state.seed[i];
            index[lane] = (self.first + i as u64) | u64::from(state.episode[i]) << 32;
            step[lane] = state.elapsed[i] as u32;
        }
        let [words, ..] = philox_lanes(&seed, &index, &step, stream::ENV_STEP);
        words.map(unit_f32)
    }

    fn move_one<U: Rules<'a, T>>(&mut self, rules: &U, i: usize) {
        let [noise, ..] = self.noise(i);
        let (state, outputs) = (&mut self.state, &mut self.outputs);
        let (mut reward, mut terminated) = (0.0, false);
        if state.ended[i] == 0 {
            let action = T::Action::number(self.actions[i]);
            let params = rules.task(i);
            let action = T::slip(&params, action, noise);
            let (next, gained, ends) = T::step(&params, state.state[i].numbers(), action);
            state.state[i] = T::State::from_numbers(next);
            (reward, terminated) = (gained, ends);
        }
        outputs.obs[i] = T::observation(state.state[i]);
        outputs.rewards[i] = reward;
        outputs.terminated[i] = u8::from(terminated);
    }

    /// Counts, truncates and sums up; gives the number of episodes that ended.
    ///
    /// SAFETY: as for `move_lanes`.
    #[inline(always)]
    unsafe fn record_lanes<R: Register, U: Rules<'a, T>>(
        &mut self,
        rules: &U,
        at: usize,
        begins: &mut Begins,
    ) -> usize {
        let (state, outputs) = (&mut self.state, &mut self.outputs);
        // SAFETY: the caller's promise.
        unsafe {
            let rests = R::load_flags(state.ended.as_ptr().add(at));
            let terminated = R::load_flags(outputs.terminated.as_ptr().add(at));
            let elapsed = state.elapsed.as_mut_ptr().add(at);
            let truncated = R::count(elapsed, !rests, rules.limits(at)) & !rests;
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

    fn record_one<U: Rules<'a, T>>(&mut self, rules: &U, i: usize, begins: &mut Begins) -> usize {
        let (state, outputs) = (&mut self.state, &mut self.outputs);
        let rests = state.ended[i] != 0;
        if !rests {
            state.elapsed[i] = state.elapsed[i].wrapping_add(1);
            state.episode_return[i] += outputs.rewards[i];
        }
        let truncated = !rests && state.elapsed[i] >= rules.limit(i);
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
    fn begin_episodes<U: Rules<'a, T>>(&mut self, rules: &U, begins: &Begins) {
        let (mut word, mut bits) = (0, begins[0]);
        loop {
            let (mut group, mut count) = ([0; GROUP], 0);
            while count < GROUP {
                if bits != 0 {
                    group[count] = (64 * word) as u32 + bits.trailing_zeros();
                    count += 1;
                    bits &= bits - 1;
                } else if word + 1 < begins.len() {
                    word += 1;
                    bits = begins[word];
                } else {
                    break;
                }
            }
            if count == 0 {
                return;
            }
            // Groups are always whole: the last index, repeated, is done again with the same
            // result.
            let last = group[count - 1];
            group[count..].fill(last);
            self.begin_group(rules, &group);
            if count < GROUP {
                return;
            }
        }
    }

    #[inline(always)]
    fn begin_group<U: Rules<'a, T>>(&mut self, rules: &U, group: &[u32; GROUP]) {
        if let Some(final_obs) = &mut self.outputs.final_obs {
            for &i in group {
                let i = i as usize;
                if self.outputs.terminated[i] | self.outputs.truncated[i] != 0 {
                    final_obs[i] = self.outputs.obs[i];
                }
            }
        }
        let initial_state = |i, words| rules.initial(i, words);
        let initial = self.state.begin_episodes(initial_state, self.first, group);
        for (&i, initial) in group.iter().zip(initial) {
            self.outputs.obs[i as usize] = T::observation(initial);
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
