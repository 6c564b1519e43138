//! The prioritised buffer for Python.

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};

use super::fields::{Count, Field, Input};
use super::results::Results;
use super::scalars::{as_number, as_seed, check_not_empty, positive};
use super::{FieldSpec, ReplayStore};
use crate::buffers::Priorities;

/// A ring of transitions with priorities; `rlox_gpu.PrioritizedReplayBuffer` adds the arguments'
/// checks and documentation.
#[pyclass(module = "rlox_gpu._rust", extends = ReplayStore, subclass, frozen)]
pub(super) struct PrioritizedStore {
    priority: Field,
}

#[pymethods]
impl PrioritizedStore {
    #[new]
    #[pyo3(signature = (
        capacity, obs, action, num_envs, deduplicate, n_step, gamma, seed, alpha, beta, /
    ))]
    fn new(
        py: Python<'_>,
        capacity: usize,
        obs: Vec<FieldSpec<'_>>,
        action: (Bound<'_, PyAny>, Vec<usize>),
        num_envs: usize,
        deduplicate: bool,
        n_step: u32,
        gamma: f64,
        seed: u64,
        alpha: f64,
        beta: f64,
    ) -> PyResult<PyClassInitializer<Self>> {
        let sizes = (capacity, num_envs, deduplicate, n_step, gamma);
        let priorities = Some(Priorities::new(capacity, alpha, beta));
        let base = ReplayStore::build(py, sizes, obs, action, seed, priorities)?;
        let priority = Field::new("priorities", PyString::new(py, "float64").as_any(), &[])?;
        Ok(PyClassInitializer::from(base).add_subclass(Self { priority }))
    }

    /// Append one transition, as ``ReplayBuffer.push`` does.
    ///
    /// ``priority``, a finite number of at least zero, is the largest weight so far if not given.
    #[pyo3(signature = (
        obs, action, reward, terminated, truncated, next_obs=None, priority=None, *, env=0
    ))]
    fn push(
        slf: &Bound<'_, Self>,
        obs: &Bound<'_, PyAny>,
        action: &Bound<'_, PyAny>,
        reward: &Bound<'_, PyAny>,
        terminated: &Bound<'_, PyAny>,
        truncated: &Bound<'_, PyAny>,
        next_obs: Option<&Bound<'_, PyAny>>,
        priority: Option<&Bound<'_, PyAny>>,
        env: usize,
    ) -> PyResult<()> {
        let priority = priority
            .map(|priority| as_number("priority", priority))
            .transpose()?;
        let scalars = (reward, terminated, truncated);
        let base = slf.as_super().get();
        base.push_one(slf.py(), obs, action, scalars, next_obs, env, priority)
    }

    /// Append transitions, as ``ReplayBuffer.push_batch`` does.
    ///
    /// ``priorities``, float64 ``(B,)``, are the largest weight so far if not given.
    #[pyo3(signature = (
        obs, next_obs, actions, rewards, terminated, truncated, priorities=None, *, envs=None
    ))]
    fn push_batch(
        slf: &Bound<'_, Self>,
        obs: &Bound<'_, PyAny>,
        next_obs: Option<&Bound<'_, PyAny>>,
        actions: &Bound<'_, PyAny>,
        rewards: &Bound<'_, PyAny>,
        terminated: &Bound<'_, PyAny>,
        truncated: &Bound<'_, PyAny>,
        priorities: Option<&Bound<'_, PyAny>>,
        envs: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let field = &slf.get().priority;
        let priorities = priorities
            .map(|priorities| field.read("priorities", priorities, Count::Any))
            .transpose()?;
        let priorities = priorities.as_ref().map(Input::elements);
        let arrays = (actions, rewards, terminated, truncated);
        let base = slf.as_super().get();
        base.push_many(slf.py(), obs, next_obs, arrays, envs, priorities)
    }

    /// Draw transitions in proportion to ``priority ** alpha``, one from each of ``batch_size``
    /// equal strata of the sum of these.
    ///
    /// Arguments and results are those of ``ReplayBuffer.sample``, and ``"weights"``, float32
    /// ``(B,)``, and ``"indices"``, uint64 ``(B,)``.
    ///
    /// Raises
    /// ------
    /// TypeError, ValueError
    ///     If an argument is of the wrong kind or out of range, an array of ``out`` is missing or
    ///     does not fit, the buffer is empty, or all priorities are zero.
    #[pyo3(signature = (batch_size, seed=None, *, out=None))]
    fn sample<'py>(
        slf: &Bound<'py, Self>,
        batch_size: &Bound<'py, PyAny>,
        seed: Option<&Bound<'py, PyAny>>,
        out: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyDict>> {
        let (py, base) = (slf.py(), slf.as_super().get());
        let count = positive("batch_size", batch_size)?;
        let seed = seed.map(as_seed).transpose()?;
        let leading = [count];
        let mut results = Results::new(py, &leading, out)?;
        let batch = base.allocate(py, &mut results, base.layout.n_step > 1)?;
        let weights = results.array(&base.reward, intern!(py, "weights"))?;
        let indices = results.array::<u64>(&base.index, intern!(py, "indices"))?;
        {
            let mut guard = base.locked(py);
            let state = &mut *guard;
            check_not_empty(&state.replay)?;
            let draw = base.next_draw(state, seed);
            let Some(priorities) = &mut state.priorities else {
                unreachable!("made with priorities")
            };
            if priorities.tree.total() <= 0.0 {
                return Err(PyValueError::new_err(
                    "batch_size: all priorities are zero, there is nothing to sample",
                ));
            }
            let (slots, replay) = (&mut state.slots, &mut state.replay);
            slots.resize(count, 0);
            base.detached(py, count, || {
                priorities.sample(slots, weights, draw);
                for (index, &slot) in indices.iter_mut().zip(slots.iter()) {
                    *index = u64::from(slot);
                }
                replay.gather(slots, batch)
            })?;
        }
        Ok(results.dict)
    }

    /// Set the priorities of transitions.
    ///
    /// Parameters
    /// ----------
    /// indices : array of integers, ``(K,)``
    ///     Those of a sample. Of several priorities for one index the last one stays.
    /// priorities : array, ``(K,)``
    ///     Finite numbers of at least zero, such as absolute errors plus a small constant.
    ///
    /// Raises
    /// ------
    /// TypeError, ValueError
    ///     If an argument is of the wrong kind or shape, an index holds no transition, or a
    ///     priority is NaN, negative or too large; nothing has changed then.
    fn update_priorities(
        slf: &Bound<'_, Self>,
        indices: &Bound<'_, PyAny>,
        priorities: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        let (py, base) = (slf.py(), slf.as_super().get());
        let indices = base.index.read("indices", indices, Count::Any)?;
        let indices: &[u64] = indices.elements();
        let count = Count::Rows(indices.len());
        let priorities = slf.get().priority.read("priorities", priorities, count)?;
        let mut guard = base.locked(py);
        let state = &mut *guard;
        let len = state.replay.len() as u64;
        if let Some(at) = indices.iter().position(|&index| index >= len) {
            return Err(PyValueError::new_err(format!(
                "indices: expected numbers below {len}, the buffer's length, got {} at index {at}",
                indices[at]
            )));
        }
        let Some(tree) = &mut state.priorities else {
            unreachable!("made with priorities")
        };
        let weights = weighed(tree, priorities.elements())?;
        state.slots.clear();
        state
            .slots
            .extend(indices.iter().map(|&index| index as u32));
        tree.set(&state.slots, &weights);
        Ok(())
    }

    /// Set the exponent of importance weights.
    fn set_beta(slf: &Bound<'_, Self>, beta: &Bound<'_, PyAny>) -> PyResult<()> {
        let number = beta.extract::<f64>().map_err(|_| {
            PyTypeError::new_err(format!(
                "beta: expected a finite number >= 0, got {}",
                crate::python::arrays::kind_of(beta)
            ))
        })?;
        if !(0.0..=f64::MAX).contains(&number) {
            return Err(PyValueError::new_err(format!(
                "beta: expected a finite number >= 0, got {number}"
            )));
        }
        let mut state = slf.as_super().get().locked(slf.py());
        if let Some(priorities) = &mut state.priorities {
            priorities.beta = number;
        }
        Ok(())
    }

    /// The exponent of priorities.
    #[getter]
    fn alpha(slf: &Bound<'_, Self>) -> Option<f64> {
        let state = slf.as_super().get().locked(slf.py());
        state.priorities.as_ref().map(Priorities::alpha)
    }

    /// The exponent of importance weights.
    #[getter]
    fn beta(slf: &Bound<'_, Self>) -> Option<f64> {
        let state = slf.as_super().get().locked(slf.py());
        state.priorities.as_ref().map(|priorities| priorities.beta)
    }

    /// The sum of all weights ``priority ** alpha``.
    #[getter]
    fn total_weight(slf: &Bound<'_, Self>) -> Option<f64> {
        let state = slf.as_super().get().locked(slf.py());
        state
            .priorities
            .as_ref()
            .map(|priorities| priorities.tree.total())
    }
}

/// Weights of priorities, before anything has changed.
pub(super) fn weighed(tree: &Priorities, priorities: &[f64]) -> PyResult<Vec<f64>> {
    let mut weights = priorities.to_vec();
    tree.weigh(&mut weights)
        .map_err(|error| PyValueError::new_err(format!("priorities: {error}")))?;
    Ok(weights)
}
