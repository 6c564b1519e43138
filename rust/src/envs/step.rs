//! Stepping a batch, and the only automatic reset.

use super::batch::{Autoreset, Batch, Outputs, State};
use super::task::Task;

/// Steps all environments of `state`; gives the number of episodes that ended.
pub(super) fn step<T: Task>(
    batch: &Batch<T>,
    first: u64,
    mut state: State<'_, T::State>,
    actions: &[i64],
    mut outputs: Outputs<'_, T::State>,
) -> usize {
    let mut num_ended = 0;
    for i in 0..state.state.len() {
        num_ended += usize::from(step_one(batch, first, &mut state, actions, &mut outputs, i));
    }
    num_ended
}

fn step_one<T: Task>(
    batch: &Batch<T>,
    first: u64,
    state: &mut State<'_, T::State>,
    actions: &[i64],
    outputs: &mut Outputs<'_, T::State>,
    i: usize,
) -> bool {
    let mut reward = 0.0;
    let mut terminated = false;
    let mut truncated = false;
    let rests = state.ended[i] != 0;
    if rests {
        if batch.autoreset == Autoreset::NextStep {
            state.begin_episode(&batch.task, first, i);
        }
    } else {
        (state.state[i], reward, terminated) = batch.task.step(state.state[i], actions[i]);
        state.elapsed[i] = state.elapsed[i].wrapping_add(1);
        state.episode_return[i] += reward;
        truncated = state.elapsed[i] >= batch.max_episode_steps;
    }
    let ended = terminated | truncated;
    outputs.rewards[i] = reward;
    outputs.terminated[i] = u8::from(terminated);
    outputs.truncated[i] = u8::from(truncated);
    if let Some(final_return) = &mut outputs.final_return {
        final_return[i] = if ended { state.episode_return[i] } else { 0.0 };
    }
    if let Some(final_length) = &mut outputs.final_length {
        final_length[i] = if ended { state.elapsed[i] } else { 0 };
    }
    if ended {
        state.ended[i] = 1;
        if batch.autoreset == Autoreset::SameStep {
            if let Some(final_obs) = &mut outputs.final_obs {
                final_obs[i] = state.state[i];
            }
            state.begin_episode(&batch.task, first, i);
        }
    }
    outputs.obs[i] = state.state[i];
    ended
}
