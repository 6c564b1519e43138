//! The arrays of a batch of environments and what is done to them. Every array is the caller's:
//! a snapshot is a copy of them, a rollout step is written to where the rollout is kept.
#![allow(unsafe_code)]

use super::chunk::GROUP;
use super::lanes::Row;
use super::rollout::{self, Actions};
use super::rules::Columns;
use super::step;
use super::task::{Action, ActionOf, Task};
use crate::philox::{philox_lanes, stream};
use crate::pool::PoolError;

/// What happens to an environment whose episode has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Autoreset {
    /// The next step resets it: its action is ignored, the reward is 0, no flag is set.
    NextStep = 0,
    /// The step that ends the episode also resets it.
    SameStep = 1,
    /// It rests until it is reset: steps leave it alone, the reward is 0, no flag is set.
    Disabled = 2,
}

impl Autoreset {
    #[must_use]
    pub fn from_index(index: u8) -> Option<Self> {
        match index {
            0 => Some(Self::NextStep),
            1 => Some(Self::SameStep),
            2 => Some(Self::Disabled),
            _ => None,
        }
    }
}

/// The state of N environments. All slices have the same length.
pub struct State<'a, S> {
    pub state: &'a mut [S],
    /// Steps since the episode began.
    pub elapsed: &'a mut [i32],
    /// Number of the episode; it wraps, and all ones stands for "none yet".
    pub episode: &'a mut [u32],
    pub seed: &'a [u64],
    /// 1 where the episode has ended and the environment has not been reset.
    pub ended: &'a mut [u8],
    /// Rewards since the episode began.
    pub episode_return: &'a mut [f32],
    /// Constants and step limits of each environment, instead of the batch's.
    pub columns: Option<Columns<'a>>,
}

/// The results of a step. All slices have the length of the state; flags are 0 or 1.
pub struct Outputs<'a, O> {
    pub obs: &'a mut [O],
    pub rewards: &'a mut [f32],
    pub terminated: &'a mut [u8],
    pub truncated: &'a mut [u8],
    /// Written only where `SameStep` replaced an observation.
    pub final_obs: Option<&'a mut [O]>,
    /// Return and length of the episode that ended, 0 elsewhere.
    pub final_return: Option<&'a mut [f32]>,
    pub final_length: Option<&'a mut [i32]>,
}

/// The rules that all environments of a batch share.
#[derive(Clone, Copy, Debug)]
pub struct Batch<T> {
    pub task: T,
    pub autoreset: Autoreset,
    pub max_episode_steps: i32,
}

impl<T: Task> Batch<T> {
    /// Steps every environment and gives the number of episodes that ended. Actions that the task
    /// does not have are not looked for; see `first_invalid_action`.
    ///
    /// # Errors
    /// When a batch that is large enough for threads finds none.
    pub fn step(
        &self,
        state: State<'_, T::State>,
        actions: &[ActionOf<T>],
        outputs: Outputs<'_, T::Obs>,
    ) -> Result<usize, PoolError> {
        step::step(self, state, actions, outputs)
    }

    /// Takes `num_steps` steps with every environment, as many calls of `step` would; row t of
    /// actions and outputs, which have `num_steps` times the length of the state, belongs to step
    /// t. Gives the number of episodes that ended.
    ///
    /// # Errors
    /// As `step`.
    pub fn rollout(
        &self,
        state: State<'_, T::State>,
        num_steps: usize,
        actions: Actions<'_, ActionOf<T>>,
        outputs: Outputs<'_, T::Obs>,
    ) -> Result<usize, PoolError> {
        rollout::rollout(self, state, num_steps, actions, outputs)
    }

    /// Begins a new episode in every environment, or in those whose mask is not 0, and copies all
    /// observations.
    pub fn reset(&self, state: &mut State<'_, T::State>, mask: Option<&[u8]>, obs: &mut [T::Obs]) {
        let mut chosen: Vec<u32> = (0..state.state.len() as u32)
            .filter(|&i| mask.is_none_or(|mask| mask[i as usize] != 0))
            .collect();
        if let Some(&last) = chosen.last() {
            chosen.resize(chosen.len().next_multiple_of(GROUP), last);
        }
        let columns = state.columns;
        for group in chosen.as_chunks().0 {
            match columns {
                None => state.begin_episodes(|_, words| self.task.initial(words), 0, group),
                Some(columns) => {
                    let initial = |i, words| columns.task_of::<T>(i).initial(words);
                    state.begin_episodes(initial, 0, group)
                }
            };
        }
        for (obs, &state) in obs.iter_mut().zip(&*state.state) {
            *obs = T::observation(state);
        }
    }
}

/// The index of the first action that the task does not have.
#[must_use]
pub fn first_invalid_action<T: Task>(actions: &[ActionOf<T>]) -> Option<usize> {
    let is_invalid = |action: &ActionOf<T>| !T::Action::is_valid(*action);
    // A reduction without an early exit runs on whole vectors.
    let any = actions
        .iter()
        .fold(false, |any, action| any | is_invalid(action));
    any.then(|| actions.iter().position(is_invalid)).flatten()
}

impl<'a, S: Row> State<'a, S> {
    pub(super) fn split_at(self, middle: usize) -> (State<'a, S>, State<'a, S>) {
        let (state, state_rest) = self.state.split_at_mut(middle);
        let (elapsed, elapsed_rest) = self.elapsed.split_at_mut(middle);
        let (episode, episode_rest) = self.episode.split_at_mut(middle);
        let (seed, seed_rest) = self.seed.split_at(middle);
        let (ended, ended_rest) = self.ended.split_at_mut(middle);
        let (episode_return, episode_return_rest) = self.episode_return.split_at_mut(middle);
        let head = State {
            state,
            elapsed,
            episode,
            seed,
            ended,
            episode_return,
            columns: self.columns,
        };
        let rest = State {
            state: state_rest,
            elapsed: elapsed_rest,
            episode: episode_rest,
            seed: seed_rest,
            ended: ended_rest,
            episode_return: episode_return_rest,
            columns: self.columns.map(|columns| columns.skip(middle)),
        };
        (head, rest)
    }

    #[inline(always)]
    pub(super) fn part(&mut self, start: usize, end: usize) -> State<'_, S> {
        State {
            state: &mut self.state[start..end],
            elapsed: &mut self.elapsed[start..end],
            episode: &mut self.episode[start..end],
            seed: &self.seed[start..end],
            ended: &mut self.ended[start..end],
            episode_return: &mut self.episode_return[start..end],
            columns: self.columns.map(|columns| columns.skip(start)),
        }
    }

    /// Begins new episodes in the environments of `indices`, which may repeat; gives their initial
    /// states.
    #[inline(always)]
    pub(super) fn begin_episodes(
        &mut self,
        initial_state: impl Fn(usize, [u32; 4]) -> S,
        first: u64,
        indices: &[u32; GROUP],
    ) -> [S; GROUP] {
        let len = self.state.len();
        // One check for all the accesses below.
        assert!(
            indices.iter().fold(0, |most, &i| i.max(most)) < len as u32
                && [self.elapsed.len(), self.episode.len(), self.seed.len()] == [len; 3]
                && [self.ended.len(), self.episode_return.len()] == [len; 2]
        );
        let indices = indices.map(|i| i as usize);
        let mut seed = [0; GROUP];
        let mut episode = [0; GROUP];
        for lane in 0..GROUP {
            let i = indices[lane];
            // SAFETY: all indices are below the length of every array.
            unsafe {
                seed[lane] = *self.seed.get_unchecked(i);
                episode[lane] = self.episode.get_unchecked(i).wrapping_add(1);
            }
        }
        let index = indices.map(|i| first + i as u64);
        let [w0, w1, w2, w3] = philox_lanes(&seed, &index, &episode, stream::ENV_RESET);
        let mut initial = [S::ZERO; GROUP];
        for lane in 0..GROUP {
            let words = [w0[lane], w1[lane], w2[lane], w3[lane]];
            initial[lane] = initial_state(indices[lane], words);
        }
        for lane in 0..GROUP {
            let i = indices[lane];
            // SAFETY: as above.
            unsafe {
                *self.state.get_unchecked_mut(i) = initial[lane];
                *self.elapsed.get_unchecked_mut(i) = 0;
                *self.episode.get_unchecked_mut(i) = episode[lane];
                *self.ended.get_unchecked_mut(i) = 0;
                *self.episode_return.get_unchecked_mut(i) = 0.0;
            }
        }
        initial
    }
}

fn split_optional<E>(
    slice: Option<&mut [E]>,
    middle: usize,
) -> (Option<&mut [E]>, Option<&mut [E]>) {
    slice.map(|slice| slice.split_at_mut(middle)).unzip()
}

impl<'a, O> Outputs<'a, O> {
    pub(super) fn split_at(self, middle: usize) -> (Outputs<'a, O>, Outputs<'a, O>) {
        let (obs, obs_rest) = self.obs.split_at_mut(middle);
        let (rewards, rewards_rest) = self.rewards.split_at_mut(middle);
        let (terminated, terminated_rest) = self.terminated.split_at_mut(middle);
        let (truncated, truncated_rest) = self.truncated.split_at_mut(middle);
        let (final_obs, final_obs_rest) = split_optional(self.final_obs, middle);
        let (final_return, final_return_rest) = split_optional(self.final_return, middle);
        let (final_length, final_length_rest) = split_optional(self.final_length, middle);
        let head = Outputs {
            obs,
            rewards,
            terminated,
            truncated,
            final_obs,
            final_return,
            final_length,
        };
        let rest = Outputs {
            obs: obs_rest,
            rewards: rewards_rest,
            terminated: terminated_rest,
            truncated: truncated_rest,
            final_obs: final_obs_rest,
            final_return: final_return_rest,
            final_length: final_length_rest,
        };
        (head, rest)
    }

    #[inline(always)]
    pub(super) fn part(&mut self, start: usize, end: usize) -> Outputs<'_, O> {
        Outputs {
            obs: &mut self.obs[start..end],
            rewards: &mut self.rewards[start..end],
            terminated: &mut self.terminated[start..end],
            truncated: &mut self.truncated[start..end],
            final_obs: self.final_obs.as_deref_mut().map(|a| &mut a[start..end]),
            final_return: self.final_return.as_deref_mut().map(|a| &mut a[start..end]),
            final_length: self.final_length.as_deref_mut().map(|a| &mut a[start..end]),
        }
    }
}
