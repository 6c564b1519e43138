//! Replay buffers for Python: read arguments, lock, copy, unlock.
//!
//! Arguments are read and results are allocated before the lock is taken, for both may run other
//! Python code. What is documented for users is documented by the classes of `rlox_gpu.buffers`.

#![allow(clippy::doc_markdown)]

mod fields;
mod prioritized;
mod push;
mod results;
mod scalars;
mod store;

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Mutex;

use numpy::{PyArray1, PyReadonlyArray1};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};

use self::fields::Field;
use self::results::Results;
use self::scalars::{as_seed, check_not_empty, positive};
use crate::buffers::draw::{self, Draw};
use crate::buffers::{Layout, Priorities, Replay};

pub(super) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(draw_slots, module)?)?;
    module.add_class::<ReplayStore>()?;
    module.add_class::<prioritized::PrioritizedStore>()
}

/// The slots that a uniform sample of a buffer of `len` transitions consists of.
#[pyfunction]
#[pyo3(signature = (count, len, seed, step, /))]
fn draw_slots(
    py: Python<'_>,
    count: usize,
    len: u64,
    seed: u64,
    step: u32,
) -> PyResult<Bound<'_, PyArray1<u32>>> {
    if !(1..=1 << 32).contains(&len) {
        return Err(PyValueError::new_err(format!(
            "len: expected 1 to 2**32 transitions, got {len}"
        )));
    }
    let mut slots = vec![0; count];
    draw::uniform(&mut slots, len, Draw { seed, step });
    Ok(PyArray1::from_vec(py, slots))
}

/// An observation's key in a dict or None, its dtype and its shape.
type FieldSpec<'py> = (Option<Bound<'py, PyString>>, Bound<'py, PyAny>, Vec<usize>);

/// What a lock protects.
struct State {
    replay: Replay,
    priorities: Option<Priorities>,
    /// Samples drawn without a seed.
    draws: u32,
    slots: Vec<u32>,
}

/// A ring of transitions; `rlox_gpu.ReplayBuffer` adds the arguments' checks and documentation.
#[pyclass(module = "rlox_gpu._rust", subclass, frozen)]
pub(super) struct ReplayStore {
    state: Mutex<State>,
    obs: Vec<Field>,
    next_obs: Vec<String>,
    action: Field,
    reward: Field,
    flag: Field,
    index: Field,
    layout: Layout,
    seed: u64,
}

#[pymethods]
impl ReplayStore {
    #[new]
    #[pyo3(signature = (capacity, obs, action, num_envs, deduplicate, n_step, gamma, seed, /))]
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
    ) -> PyResult<Self> {
        let sizes = (capacity, num_envs, deduplicate, n_step, gamma);
        Self::build(py, sizes, obs, action, seed, None)
    }

    /// Append one transition.
    ///
    /// Parameters
    /// ----------
    /// obs, next_obs : array, of the shape of an observation
    ///     Dicts of arrays if the buffer was made for these. Without a next observation it is
    ///     zeros, as in rlox: give it, but for the last transition of a terminated episode.
    /// action : number or array
    ///     Of the shape of an action; a single number may also come as one.
    /// reward : float
    /// terminated, truncated : bool
    /// env : int
    ///     The environment, below ``num_envs``.
    ///
    /// Raises
    /// ------
    /// TypeError, ValueError
    ///     If an argument is of the wrong kind, dtype or shape; the message names it.
    #[pyo3(signature = (obs, action, reward, terminated, truncated, next_obs=None, *, env=0))]
    fn push(
        &self,
        py: Python<'_>,
        obs: &Bound<'_, PyAny>,
        action: &Bound<'_, PyAny>,
        reward: &Bound<'_, PyAny>,
        terminated: &Bound<'_, PyAny>,
        truncated: &Bound<'_, PyAny>,
        next_obs: Option<&Bound<'_, PyAny>>,
        env: usize,
    ) -> PyResult<()> {
        let scalars = (reward, terminated, truncated);
        self.push_one(py, obs, action, scalars, next_obs, env, None)
    }

    /// Append transitions.
    ///
    /// Parameters
    /// ----------
    /// obs, next_obs : array, ``(B, *shape)``
    ///     NumPy arrays, tensors or dicts of these; rows may also come flat, one after the other.
    ///     ``None`` for next observations makes them zeros.
    /// actions : array, ``(B, *shape)``
    /// rewards, terminated, truncated : array, ``(B,)``
    /// envs : array of integers, ``(B,)``, optional
    ///     The environment of each row. If not given, row i is of environment ``i % num_envs``.
    ///
    /// Raises
    /// ------
    /// TypeError, ValueError
    ///     If an argument is of the wrong kind, dtype or shape; the message names it, and nothing
    ///     has been stored.
    #[pyo3(signature = (obs, next_obs, actions, rewards, terminated, truncated, *, envs=None))]
    fn push_batch(
        &self,
        py: Python<'_>,
        obs: &Bound<'_, PyAny>,
        next_obs: Option<&Bound<'_, PyAny>>,
        actions: &Bound<'_, PyAny>,
        rewards: &Bound<'_, PyAny>,
        terminated: &Bound<'_, PyAny>,
        truncated: &Bound<'_, PyAny>,
        envs: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let arrays = (actions, rewards, terminated, truncated);
        self.push_many(py, obs, next_obs, arrays, envs, None)
    }

    /// Draw transitions, independently and with replacement.
    ///
    /// Parameters
    /// ----------
    /// batch_size : int
    /// seed : int, optional
    ///     Makes the sample a function of the seed and the buffer's contents. If not given, it is
    ///     the next one under the buffer's own seed.
    /// out : dict of arrays, optional
    ///     What the results are written to, such as an earlier sample of the same size: arrays of
    ///     exactly the dtypes and shapes below, C-contiguous, writable and apart from each other.
    ///     Other keys are not looked at.
    ///
    /// Returns
    /// -------
    /// dict
    ///     ``out`` if it is given. Contiguous arrays of ``B = batch_size`` rows: ``"obs"`` and ``"next_obs"``
    ///     ``(B, *shape)`` (dicts of these for dict observations), ``"actions"`` ``(B, *shape)``,
    ///     ``"rewards"`` float32 ``(B,)``, ``"terminated"`` and ``"truncated"`` bool ``(B,)``.
    ///
    ///     With ``n_step`` n > 1, rewards are the sums of ``gamma ** k`` times the rewards of the n
    ///     transitions from the drawn one on, or of as many as there are before the episode ends or
    ///     the environment's newest transition is reached; the next observation and the flags are
    ///     those of the last of them, and ``"discounts"``, float32 ``(B,)``, is ``gamma`` to the
    ///     number of transitions: the worth of the value of ``next_obs``, unless terminated.
    ///
    /// Raises
    /// ------
    /// TypeError, ValueError
    ///     If an argument is of the wrong kind or out of range, an array of ``out`` is missing or
    ///     does not fit, or the buffer is empty.
    #[pyo3(signature = (batch_size, seed=None, *, out=None))]
    fn sample<'py>(
        &self,
        py: Python<'py>,
        batch_size: &Bound<'py, PyAny>,
        seed: Option<&Bound<'py, PyAny>>,
        out: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyDict>> {
        let count = positive("batch_size", batch_size)?;
        let seed = seed.map(as_seed).transpose()?;
        let leading = [count];
        let mut results = Results::new(py, &leading, out)?;
        let batch = self.allocate(py, &mut results, self.layout.n_step > 1)?;
        {
            let mut guard = self.locked(py);
            let state = &mut *guard;
            check_not_empty(&state.replay)?;
            let draw = self.next_draw(state, seed);
            state.slots.resize(count, 0);
            self.detached(py, count, || {
                state.replay.draw(&mut state.slots, draw);
                state.replay.gather(&state.slots, batch)
            })?;
        }
        Ok(results.dict)
    }

    /// Draw sequences of consecutive transitions of one environment.
    ///
    /// No sequence crosses the end of an episode, or goes on past the newest transition. Every
    /// possible start is as likely as the others.
    ///
    /// Parameters
    /// ----------
    /// batch_size : int
    /// length : int
    ///     Transitions of a sequence.
    /// stride : int
    ///     Sequences start at multiples of so many steps from the start of their episode, as the
    ///     windows of R2D2 do (Kapturowski et al., "Recurrent experience replay in distributed
    ///     reinforcement learning", ICLR 2019).
    /// burn_in : int
    ///     Transitions before these, to warm up a recurrent state with.
    /// seed : int, optional
    /// out : dict of arrays, optional
    ///     As for ``sample``.
    ///
    /// Returns
    /// -------
    /// dict
    ///     The arrays of ``sample`` of one step, ``(batch_size, burn_in + length, ...)`` each.
    ///
    /// Raises
    /// ------
    /// TypeError, ValueError
    ///     If an argument is of the wrong kind or out of range, an array of ``out`` is missing or
    ///     does not fit, or there is no such sequence.
    #[pyo3(signature = (batch_size, length, *, stride=1, burn_in=0, seed=None, out=None))]
    fn sample_sequences<'py>(
        &self,
        py: Python<'py>,
        batch_size: &Bound<'py, PyAny>,
        length: &Bound<'py, PyAny>,
        stride: u32,
        burn_in: usize,
        seed: Option<&Bound<'py, PyAny>>,
        out: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyDict>> {
        let count = positive("batch_size", batch_size)?;
        let length = positive("length", length)?.saturating_add(burn_in);
        if stride == 0 {
            return Err(PyValueError::new_err("stride: expected at least 1, got 0"));
        }
        let seed = seed.map(as_seed).transpose()?;
        let leading = [count, length];
        let mut results = Results::new(py, &leading, out)?;
        let batch = self.allocate(py, &mut results, false)?;
        {
            let mut guard = self.locked(py);
            let state = &mut *guard;
            let draw = self.next_draw(state, seed);
            let mut slots = vec![0; count * length];
            self.detached(py, count * length, || {
                if state
                    .replay
                    .draw_sequences(&mut slots, length, stride, draw)
                {
                    return state.replay.gather(&slots, batch).map(|()| true);
                }
                Ok(false)
            })?
            .then_some(())
            .ok_or_else(|| {
                PyValueError::new_err(format!(
                    "length: no episode in the buffer has {length} consecutive transitions \
                     (length and burn_in together) from a start that stride {stride} allows"
                ))
            })?;
        }
        Ok(results.dict)
    }

    /// Draw transitions, and for a share of them a later one of the same episode: two samples, and
    /// which rows of the second are later ones.
    #[pyo3(signature = (batch_size, share, seed=None))]
    fn sample_with_later<'py>(
        &self,
        py: Python<'py>,
        batch_size: &Bound<'py, PyAny>,
        share: f32,
        seed: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<(Bound<'py, PyDict>, Bound<'py, PyDict>, Bound<'py, PyAny>)> {
        let count = positive("batch_size", batch_size)?;
        let seed = seed.map(as_seed).transpose()?;
        let leading = [count];
        let mut sample = Results::new(py, &leading, None)?;
        let batch = self.allocate(py, &mut sample, false)?;
        let mut later_sample = Results::new(py, &leading, None)?;
        let later_batch = self.allocate(py, &mut later_sample, false)?;
        let (chosen_array, chosen) = self.flag.empty(py, &[count])?;
        {
            let mut guard = self.locked(py);
            let state = &mut *guard;
            check_not_empty(&state.replay)?;
            let draw = self.next_draw(state, seed);
            state.slots.resize(count, 0);
            let mut later = vec![0; count];
            self.detached(py, count, || {
                state.replay.draw(&mut state.slots, draw);
                let (slots, replay) = (&state.slots, &mut state.replay);
                replay.draw_later(slots, &mut later, chosen, share, draw);
                replay.gather(slots, batch)?;
                replay.gather(&later, later_batch)
            })?;
        }
        Ok((sample.dict, later_sample.dict, chosen_array))
    }

    /// Forget all transitions.
    fn clear(&self, py: Python<'_>) {
        let mut state = self.locked(py);
        state.replay.clear();
        if let Some(priorities) = &mut state.priorities {
            priorities.clear();
        }
    }

    fn __len__(&self, py: Python<'_>) -> usize {
        self.locked(py).replay.len()
    }

    /// The contents as named bytes.
    fn contents<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let guard = self.locked(py);
        let state = &*guard;
        let mut sections = state.replay.sections();
        if let Some(priorities) = &state.priorities {
            sections.extend(priorities.sections(state.replay.len()));
        }
        let draws = state.draws.to_ne_bytes();
        sections.push(("draws".to_owned(), draws.as_slice().into()));
        let contents = PyDict::new(py);
        for (name, bytes) in sections {
            let bytes = match bytes {
                Cow::Owned(bytes) => PyArray1::from_vec(py, bytes),
                Cow::Borrowed(bytes) => PyArray1::from_slice(py, bytes),
            };
            contents.set_item(name, bytes)?;
        }
        Ok(contents)
    }

    /// Take over what `contents` of a buffer of the same layout gave.
    #[allow(clippy::needless_pass_by_value)] // what a dict becomes
    fn restore(
        &self,
        py: Python<'_>,
        contents: HashMap<String, PyReadonlyArray1<'_, u8>>,
    ) -> PyResult<()> {
        let find = |name: &str| contents.get(name).and_then(|bytes| bytes.as_slice().ok());
        let mut guard = self.locked(py);
        let state = &mut *guard;
        let mut done = state.replay.restore(&find);
        if let (Ok(()), Some(priorities)) = (&done, &mut state.priorities) {
            done = priorities.restore(state.replay.len(), &find);
        }
        let draws = find("draws").and_then(|bytes| bytes.try_into().ok());
        state.draws = draws.map_or(0, u32::from_ne_bytes);
        done.map_err(PyValueError::new_err)
    }

    /// The most transitions that the buffer holds.
    #[getter]
    fn capacity(&self) -> usize {
        self.layout.capacity
    }

    /// Environments that push into the buffer.
    #[getter]
    fn num_envs(&self) -> usize {
        self.layout.num_envs
    }
}
