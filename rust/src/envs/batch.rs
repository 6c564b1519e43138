//! The arrays of a batch of environments and what is done to them. Every array is the caller's:
//! a snapshot is a copy of them, a rollout step is written to where the rollout is kept.

use super::step;
use super::task::Task;
use crate::philox::{philox, stream};

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
}

/// The results of a step. All slices have the length of the state; flags are 0 or 1.
pub struct Outputs<'a, S> {
    pub obs: &'a mut [S],
    pub rewards: &'a mut [f32],
    pub terminated: &'a mut [u8],
    pub truncated: &'a mut [u8],
    /// Written only where `SameStep` replaced an observation.
    pub final_obs: Option<&'a mut [S]>,
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
    /// Steps every environment and gives the number of episodes that ended. `first` is the index
    /// of the first environment in the whole batch. Any action but those of the task is taken as
    /// the task's last branch takes it; see `first_invalid_action`.
    pub fn step(
        &self,
        first: u64,
        state: State<'_, T::State>,
        actions: &[i64],
        outputs: Outputs<'_, T::State>,
    ) -> usize {
        step::step(self, first, state, actions, outputs)
    }

    /// Begins a new episode in every environment, or in those whose mask is not 0, and copies all
    /// observations.
    pub fn reset(
        &self,
        first: u64,
        state: &mut State<'_, T::State>,
        mask: Option<&[u8]>,
        obs: &mut [T::State],
    ) {
        for i in 0..state.state.len() {
            if mask.is_none_or(|mask| mask[i] != 0) {
                state.begin_episode(&self.task, first, i);
            }
        }
        obs.copy_from_slice(state.state);
    }
}

/// The index of the first action that the task does not have.
#[must_use]
pub fn first_invalid_action<T: Task>(actions: &[i64]) -> Option<usize> {
    let is_invalid = |action: &i64| *action as u64 >= T::NUM_ACTIONS as u64;
    // A reduction without an early exit runs on whole vectors.
    let any = actions
        .iter()
        .fold(false, |any, action| any | is_invalid(action));
    any.then(|| actions.iter().position(is_invalid)).flatten()
}

impl<S: Copy> State<'_, S> {
    pub(super) fn begin_episode<T: Task<State = S>>(&mut self, task: &T, first: u64, i: usize) {
        let episode = self.episode[i].wrapping_add(1);
        let words = philox(self.seed[i], first + i as u64, episode, stream::ENV_RESET);
        self.episode[i] = episode;
        self.state[i] = task.initial(words);
        self.elapsed[i] = 0;
        self.ended[i] = 0;
        self.episode_return[i] = 0.0;
    }
}
