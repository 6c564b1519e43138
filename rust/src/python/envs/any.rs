//! A batch whose task is known at run time, on arrays given by their addresses.
#![allow(unsafe_code)]

use std::fmt::Display;
use std::sync::Arc;

use numpy::{Element, PyArrayDyn, PyArrayMethods, PyUntypedArrayMethods};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;

use super::{slice_at, slice_at_mut};
use crate::envs::{
    Action, ActionOf, Actions, Autoreset, Batch, Columns, Outputs, Row, State, Task,
    first_invalid_action,
};
use crate::pool::PoolError;

/// The six arrays of `envs::State`, then the constants and step limits of each environment, or 0.
pub(super) type StateAddresses = [usize; 8];

/// What Python asks of a batch of any task.
///
/// # Safety
/// Addresses are those of contiguous arrays of `num_envs` entries that nobody else uses during the
/// call, in the order and of the types of `envs::State` and `envs::Outputs`; 0 stands for a mask
/// or an output that is not there.
#[allow(clippy::missing_safety_doc)]
pub(super) trait AnyBatch: Send + Sync {
    fn state_size(&self) -> usize;
    fn obs_size(&self) -> usize;
    fn num_params(&self) -> usize;
    fn has_integer_state(&self) -> bool;
    fn autoreset(&self) -> Autoreset;

    /// The address of an array of actions; raises if type, length or layout are wrong.
    fn actions_address(&self, actions: &Bound<'_, PyAny>, num_envs: usize) -> PyResult<usize>;

    /// Raises if the task does not have one of the actions.
    unsafe fn check_actions(&self, num_envs: usize, actions: usize) -> PyResult<()>;

    unsafe fn step(
        &self,
        num_envs: usize,
        state: StateAddresses,
        actions: usize,
        outputs: [usize; 7],
    ) -> Result<usize, PoolError>;

    /// Takes `num_steps` steps; the arrays of actions and outputs hold a row per step. `drawn`
    /// says that the actions are to be drawn, and written to `actions` unless that is 0.
    unsafe fn rollout(
        &self,
        num_envs: usize,
        num_steps: usize,
        state: StateAddresses,
        actions: usize,
        drawn: bool,
        outputs: [usize; 7],
    ) -> Result<usize, PoolError>;

    unsafe fn reset(&self, num_envs: usize, state: StateAddresses, mask: usize, obs: usize);
}

/// A batch of `T`, or None if the number of its parameters is wrong.
pub(super) fn make<T: Task>(
    params: &[f32],
    autoreset: Autoreset,
    max_episode_steps: i32,
) -> Option<Arc<dyn AnyBatch>>
where
    ActionOf<T>: Element + Display,
{
    Some(Arc::new(Batch {
        task: T::from_params(params)?,
        autoreset,
        max_episode_steps,
    }))
}

impl<T: Task> AnyBatch for Batch<T>
where
    ActionOf<T>: Element + Display,
{
    fn state_size(&self) -> usize {
        size_of::<T::State>() / size_of::<f32>()
    }

    fn obs_size(&self) -> usize {
        size_of::<T::Obs>() / size_of::<f32>()
    }

    fn num_params(&self) -> usize {
        T::COUNT
    }

    fn has_integer_state(&self) -> bool {
        T::State::INTEGERS
    }

    fn autoreset(&self) -> Autoreset {
        self.autoreset
    }

    fn actions_address(&self, actions: &Bound<'_, PyAny>, num_envs: usize) -> PyResult<usize> {
        let actions = actions.cast::<PyArrayDyn<ActionOf<T>>>().map_err(|_| {
            PyTypeError::new_err("actions must be an array of the task's type of action")
        })?;
        if actions.len() != num_envs || !actions.is_contiguous() {
            return Err(PyValueError::new_err(format!(
                "actions must be contiguous and hold {num_envs} entries, got shape {:?}",
                actions.shape()
            )));
        }
        Ok(actions.data() as usize)
    }

    unsafe fn check_actions(&self, num_envs: usize, actions: usize) -> PyResult<()> {
        // SAFETY: the trait's contract.
        let actions = unsafe { slice_at::<ActionOf<T>>(num_envs, actions) };
        first_invalid_action::<T>(actions).map_or(Ok(()), |index| {
            Err(PyValueError::new_err(format!(
                "actions must be {}, got {} at index {index}",
                T::Action::expected(),
                actions[index]
            )))
        })
    }

    unsafe fn step(
        &self,
        num_envs: usize,
        state: StateAddresses,
        actions: usize,
        outputs: [usize; 7],
    ) -> Result<usize, PoolError> {
        // SAFETY: the trait's contract.
        let (state, actions, outputs) = unsafe {
            (
                state_at::<T>(num_envs, state),
                slice_at(num_envs, actions),
                outputs_at(num_envs, outputs),
            )
        };
        Batch::step(self, state, actions, outputs)
    }

    unsafe fn rollout(
        &self,
        num_envs: usize,
        num_steps: usize,
        state: StateAddresses,
        actions: usize,
        drawn: bool,
        outputs: [usize; 7],
    ) -> Result<usize, PoolError> {
        let entries = num_envs * num_steps;
        // SAFETY: the trait's contract.
        let (state, actions, outputs) = unsafe {
            let actions = match (drawn, actions) {
                (false, _) => Actions::Given(slice_at(entries, actions)),
                (true, 0) => Actions::Drawn(None),
                (true, _) => Actions::Drawn(Some(slice_at_mut(entries, actions))),
            };
            (
                state_at::<T>(num_envs, state),
                actions,
                outputs_at(entries, outputs),
            )
        };
        Batch::rollout(self, state, num_steps, actions, outputs)
    }

    unsafe fn reset(&self, num_envs: usize, state: StateAddresses, mask: usize, obs: usize) {
        // SAFETY: the trait's contract.
        let (mut state, mask, obs) = unsafe {
            (
                state_at::<T>(num_envs, state),
                (mask != 0).then(|| slice_at(num_envs, mask)),
                slice_at_mut(num_envs, obs),
            )
        };
        Batch::reset(self, &mut state, mask, obs);
    }
}

unsafe fn state_at<'a, T: Task>(len: usize, addresses: StateAddresses) -> State<'a, T::State> {
    let [
        state,
        elapsed,
        episode,
        seed,
        ended,
        episode_return,
        params,
        limits,
    ] = addresses;
    unsafe {
        State {
            state: slice_at_mut(len, state),
            elapsed: slice_at_mut(len, elapsed),
            episode: slice_at_mut(len, episode),
            seed: slice_at(len, seed),
            ended: slice_at_mut(len, ended),
            episode_return: slice_at_mut(len, episode_return),
            columns: (params != 0)
                .then(|| Columns::new(slice_at(T::COUNT * len, params), slice_at(len, limits))),
        }
    }
}

unsafe fn outputs_at<'a, O>(len: usize, addresses: [usize; 7]) -> Outputs<'a, O> {
    let [
        obs,
        rewards,
        terminated,
        truncated,
        final_obs,
        final_return,
        final_length,
    ] = addresses;
    unsafe {
        Outputs {
            obs: slice_at_mut(len, obs),
            rewards: slice_at_mut(len, rewards),
            terminated: slice_at_mut(len, terminated),
            truncated: slice_at_mut(len, truncated),
            final_obs: (final_obs != 0).then(|| slice_at_mut(len, final_obs)),
            final_return: (final_return != 0).then(|| slice_at_mut(len, final_return)),
            final_length: (final_length != 0).then(|| slice_at_mut(len, final_length)),
        }
    }
}
