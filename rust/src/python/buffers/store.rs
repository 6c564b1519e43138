//! How a buffer is made, locked and drawn from.

use std::sync::{Mutex, MutexGuard, PoisonError};

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::sync::MutexExt;
use pyo3::types::PyString;

use super::fields::Field;
use super::{FieldSpec, ReplayStore, State};
use crate::buffers::draw::Draw;
use crate::buffers::{Layout, MAX_CAPACITY, Priorities, Replay};

/// Bytes from which releasing the GIL costs less than it gives.
const DETACH_FROM: usize = 1 << 16;

impl ReplayStore {
    pub(super) fn build(
        py: Python<'_>,
        (capacity, num_envs, deduplicate, n_step, gamma): (usize, usize, bool, u32, f64),
        obs: Vec<FieldSpec<'_>>,
        (action, action_shape): (Bound<'_, PyAny>, Vec<usize>),
        seed: u64,
        priorities: Option<Priorities>,
    ) -> PyResult<Self> {
        if !(1..=MAX_CAPACITY).contains(&capacity) {
            return Err(PyValueError::new_err(format!(
                "capacity: expected 1 to {MAX_CAPACITY} transitions, got {capacity}"
            )));
        }
        let name_of = |what: &str, key: &Option<Bound<'_, PyString>>| {
            key.as_ref()
                .map_or_else(|| what.to_owned(), |key| format!("{what}[{key:?}]"))
        };
        let next_obs = obs
            .iter()
            .map(|spec| name_of("next_obs", &spec.0))
            .collect();
        let obs = obs
            .into_iter()
            .map(|(key, dtype, shape)| {
                let name = name_of("obs", &key);
                Ok(Field::new(&name, &dtype, &shape)?.with_key(key))
            })
            .collect::<PyResult<Vec<_>>>()?;
        let plain = |name, dtype| Field::new(name, PyString::new(py, dtype).as_any(), &[]);
        let action = Field::new("action", &action, &action_shape)?;
        let layout = Layout {
            capacity,
            num_envs,
            obs: obs.iter().map(|field| field.width).collect(),
            action: action.width,
            deduplicate,
            n_step,
            gamma,
        };
        let row = layout.obs.iter().sum::<usize>() + layout.action + 16;
        if row.saturating_mul(2).saturating_mul(capacity) > isize::MAX as usize {
            return Err(PyValueError::new_err(format!(
                "capacity: {capacity} transitions of these sizes are not addressable"
            )));
        }
        Ok(Self {
            state: Mutex::new(State {
                replay: Replay::new(layout.clone()),
                priorities,
                draws: 0,
                slots: Vec::new(),
            }),
            obs,
            next_obs,
            action,
            reward: plain("rewards", "float32")?,
            flag: plain("flags", "bool")?,
            index: plain("indices", "uint64")?,
            layout,
            seed,
        })
    }

    /// Waits without the GIL, so that who holds the lock can finish.
    pub(super) fn locked(&self, py: Python<'_>) -> MutexGuard<'_, State> {
        self.state
            .lock_py_attached(py)
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Release the GIL for what moves many bytes.
    pub(super) fn detached<T: Send, E: Send + std::fmt::Display>(
        &self,
        py: Python<'_>,
        rows: usize,
        work: impl FnOnce() -> Result<T, E> + Send,
    ) -> PyResult<T> {
        let bytes = rows * (2 * self.layout.obs.iter().sum::<usize>() + self.layout.action);
        let done = if bytes < DETACH_FROM {
            work()
        } else {
            py.detach(work)
        };
        done.map_err(|error| PyValueError::new_err(error.to_string()))
    }

    /// A sample with its own seed is a function of that; others follow each other.
    pub(super) fn next_draw(&self, state: &mut State, seed: Option<u64>) -> Draw {
        match seed {
            Some(seed) => Draw { seed, step: 0 },
            None => {
                state.draws = state.draws.wrapping_add(1);
                let (seed, step) = (self.seed, state.draws);
                Draw { seed, step }
            }
        }
    }
}
