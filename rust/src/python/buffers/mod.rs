//! Replay buffers for Python: read arguments, lock, copy, unlock.
//!
//! Arguments are read and results are allocated before the lock is taken, for both may run other
//! Python code. What is documented for users is documented by the classes of `rlox_gpu.buffers`.

#![allow(clippy::doc_markdown)]

mod fields;
mod prioritized;

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use numpy::{PyArray1, PyReadonlyArray1};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::MutexExt;
use pyo3::types::{PyDict, PyString};

use self::fields::{Count, Field, Input};
use crate::buffers::draw::Draw;
use crate::buffers::replay::{Envs, Rows};
use crate::buffers::{Batch, Layout, MAX_CAPACITY, Observation, Priorities, Replay};
use crate::python::arrays;

/// Bytes from which releasing the GIL costs less than it gives.
const DETACH_FROM: usize = 1 << 16;

pub(super) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<ReplayStore>()?;
    module.add_class::<prioritized::PrioritizedStore>()
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
    ///
    /// Returns
    /// -------
    /// dict
    ///     Contiguous arrays of ``B = batch_size`` rows: ``"obs"`` and ``"next_obs"``
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
    ///     If an argument is of the wrong kind or out of range, or the buffer is empty.
    #[pyo3(signature = (batch_size, seed=None))]
    fn sample<'py>(
        &self,
        py: Python<'py>,
        batch_size: &Bound<'py, PyAny>,
        seed: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyDict>> {
        let count = positive("batch_size", batch_size)?;
        let seed = seed.map(as_seed).transpose()?;
        let (arrays, batch) = self.allocate(py, &[count], self.layout.n_step > 1)?;
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
        self.as_dict(py, arrays)
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
    ///     If an argument is of the wrong kind or out of range, or there is no such sequence.
    #[pyo3(signature = (batch_size, length, *, stride=1, burn_in=0, seed=None))]
    fn sample_sequences<'py>(
        &self,
        py: Python<'py>,
        batch_size: &Bound<'py, PyAny>,
        length: &Bound<'py, PyAny>,
        stride: u32,
        burn_in: usize,
        seed: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyDict>> {
        let count = positive("batch_size", batch_size)?;
        let length = positive("length", length)?.saturating_add(burn_in);
        if stride == 0 {
            return Err(PyValueError::new_err("stride: expected at least 1, got 0"));
        }
        let seed = seed.map(as_seed).transpose()?;
        let (arrays, batch) = self.allocate(py, &[count, length], false)?;
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
        self.as_dict(py, arrays)
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
            contents.set_item(name, PyArray1::from_slice(py, &bytes))?;
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

/// The results of a sample, in the order of the keys.
struct Arrays<'py> {
    obs: Vec<[Bound<'py, PyAny>; 2]>,
    /// Actions, rewards, terminated, truncated.
    others: [Bound<'py, PyAny>; 4],
    discounts: Option<Bound<'py, PyAny>>,
}

impl ReplayStore {
    fn build(
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
    fn locked(&self, py: Python<'_>) -> MutexGuard<'_, State> {
        self.state
            .lock_py_attached(py)
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Release the GIL for what moves many bytes.
    fn detached<T: Send, E: Send + std::fmt::Display>(
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
    fn next_draw(&self, state: &mut State, seed: Option<u64>) -> Draw {
        match seed {
            Some(seed) => Draw { seed, step: 0 },
            None => {
                state.draws = state.draws.wrapping_add(1);
                let (seed, step) = (self.seed, state.draws);
                Draw { seed, step }
            }
        }
    }

    /// Read the parts of an observation.
    fn read_obs<'py>(
        &self,
        obs: &Bound<'py, PyAny>,
        next: bool,
        count: Count,
    ) -> PyResult<Vec<Input<'py>>> {
        let name = |at: usize| {
            if next {
                self.next_obs[at].as_str()
            } else {
                self.obs[at].name.as_str()
            }
        };
        let part = |(at, field): (usize, &Field)| match &field.key {
            None => field.read(name(at), obs, count),
            Some(key) => {
                let part = obs.get_item(key).map_err(|_| missing_key(name(at), obs))?;
                field.read(name(at), &part, count)
            }
        };
        self.obs.iter().enumerate().map(part).collect()
    }

    fn push_one(
        &self,
        py: Python<'_>,
        obs: &Bound<'_, PyAny>,
        action: &Bound<'_, PyAny>,
        (reward, terminated, truncated): (&Bound<'_, PyAny>, &Bound<'_, PyAny>, &Bound<'_, PyAny>),
        next_obs: Option<&Bound<'_, PyAny>>,
        env: usize,
        priority: Option<f64>,
    ) -> PyResult<()> {
        let reward = as_number("reward", reward)? as f32;
        let terminated = u8::from(as_flag("terminated", terminated)?);
        let truncated = u8::from(as_flag("truncated", truncated)?);
        if env >= self.layout.num_envs {
            return Err(bad_env("env", env, self.layout.num_envs));
        }
        let action = self.action.read("action", action, Count::Single)?;
        let rows = |parts: &[Observation<'_>]| {
            let rows = Rows {
                obs: parts,
                actions: action.bytes(),
                rewards: &[reward],
                terminated: &[terminated],
                truncated: &[truncated],
                envs: Envs::Given(&[env as u32]),
            };
            self.store(py, &rows, priority.as_ref().map(std::slice::from_ref))
        };
        // The usual case, without a list.
        if let [field] = self.obs.as_slice()
            && field.key.is_none()
        {
            let obs = field.read(&field.name, obs, Count::Single)?;
            let next = next_obs
                .map(|next| field.read(&self.next_obs[0], next, Count::Single))
                .transpose()?;
            return rows(&[Observation {
                obs: obs.bytes(),
                next: next.as_ref().map(Input::bytes),
            }]);
        }
        let obs = self.read_obs(obs, false, Count::Single)?;
        let next = next_obs
            .map(|next| self.read_obs(next, true, Count::Single))
            .transpose()?;
        rows(&pairs(&obs, next.as_deref()))
    }

    fn push_many(
        &self,
        py: Python<'_>,
        obs: &Bound<'_, PyAny>,
        next_obs: Option<&Bound<'_, PyAny>>,
        (actions, rewards, terminated, truncated): (
            &Bound<'_, PyAny>,
            &Bound<'_, PyAny>,
            &Bound<'_, PyAny>,
            &Bound<'_, PyAny>,
        ),
        envs: Option<&Bound<'_, PyAny>>,
        priorities: Option<&[f64]>,
    ) -> PyResult<()> {
        let rewards = self.reward.read("rewards", rewards, Count::Any)?;
        let rewards: &[f32] = rewards.elements();
        let count = Count::Rows(rewards.len());
        let terminated = self.flag.read("terminated", terminated, count)?;
        let truncated = self.flag.read("truncated", truncated, count)?;
        let actions = self.action.read("actions", actions, count)?;
        let obs = self.read_obs(obs, false, count)?;
        let next = next_obs
            .map(|next| self.read_obs(next, true, count))
            .transpose()?;
        let envs = envs.map(|envs| self.read_envs(envs, count)).transpose()?;
        if envs.is_none() && !rewards.len().is_multiple_of(self.layout.num_envs) {
            return Err(PyValueError::new_err(format!(
                "rewards: expected a multiple of {} rows, one for each environment in turn (or say \
                 which with envs=), got {}",
                self.layout.num_envs,
                rewards.len()
            )));
        }
        if let Some(priorities) = priorities
            && priorities.len() != rewards.len()
        {
            return Err(PyValueError::new_err(format!(
                "priorities: expected {} rows as in rewards, got {}",
                rewards.len(),
                priorities.len()
            )));
        }
        let rows = Rows {
            obs: &pairs(&obs, next.as_deref()),
            actions: actions.bytes(),
            rewards,
            terminated: terminated.bytes(),
            truncated: truncated.bytes(),
            envs: envs.as_deref().map_or(Envs::InTurn, Envs::Given),
        };
        self.store(py, &rows, priorities)
    }

    fn read_envs(&self, envs: &Bound<'_, PyAny>, count: Count) -> PyResult<Vec<u32>> {
        let envs = self.index.read("envs", envs, count)?;
        let envs: &[u64] = envs.elements();
        let num_envs = self.layout.num_envs;
        envs.iter()
            .map(|&env| match usize::try_from(env) {
                Ok(env) if env < num_envs => Ok(env as u32),
                _ => Err(bad_env("envs", env, num_envs)),
            })
            .collect()
    }

    /// Append rows with their priorities; without any they get the largest so far.
    fn store(&self, py: Python<'_>, rows: &Rows, priorities: Option<&[f64]>) -> PyResult<()> {
        let count = rows.rewards.len();
        let mut state = self.locked(py);
        let state = &mut *state;
        let Some(prioritized) = &mut state.priorities else {
            return self.detached(py, count, || {
                state.replay.push(rows);
                Ok::<(), std::convert::Infallible>(())
            });
        };
        let weights = match priorities {
            None => vec![prioritized.largest; count],
            Some(priorities) => prioritized::weighed(prioritized, priorities)?,
        };
        let (head, capacity) = (state.replay.head(), self.layout.capacity);
        self.detached(py, count, || {
            state.replay.push(rows);
            state.slots.clear();
            let slots = (0..count).map(|i| ((head + i) % capacity) as u32);
            state.slots.extend(slots);
            prioritized.set(&state.slots, &weights);
            Ok::<(), std::convert::Infallible>(())
        })
    }

    /// Arrays for a sample with these leading dimensions, and their memory.
    fn allocate<'py>(
        &self,
        py: Python<'py>,
        leading: &[usize],
        discounts: bool,
    ) -> PyResult<(Arrays<'py>, Batch<'static>)> {
        let mut obs = Vec::with_capacity(self.obs.len());
        let mut parts = Vec::with_capacity(self.obs.len());
        for field in &self.obs {
            let (array, now) = field.empty(py, leading)?;
            let (next_array, next) = field.empty(py, leading)?;
            obs.push([array, next_array]);
            parts.push([now, next]);
        }
        let (action_array, actions) = self.action.empty(py, leading)?;
        let (reward_array, rewards) = self.reward.empty(py, leading)?;
        let (terminated_array, terminated) = self.flag.empty(py, leading)?;
        let (truncated_array, truncated) = self.flag.empty(py, leading)?;
        let discounts = discounts
            .then(|| self.reward.empty(py, leading))
            .transpose()?;
        let (discount_array, discounts) =
            discounts.map_or((None, None), |(array, memory)| (Some(array), Some(memory)));
        let arrays = Arrays {
            obs,
            others: [
                action_array,
                reward_array,
                terminated_array,
                truncated_array,
            ],
            discounts: discount_array,
        };
        let batch = Batch {
            obs: parts,
            actions,
            rewards,
            terminated,
            truncated,
            discounts,
        };
        Ok((arrays, batch))
    }

    fn as_dict<'py>(&self, py: Python<'py>, arrays: Arrays<'py>) -> PyResult<Bound<'py, PyDict>> {
        let dict = PyDict::new(py);
        let (obs, next) = (intern!(py, "obs"), intern!(py, "next_obs"));
        if self.obs.iter().all(|field| field.key.is_none()) {
            for [array, next_array] in arrays.obs {
                dict.set_item(obs, array)?;
                dict.set_item(next, next_array)?;
            }
        } else {
            let (now, then) = (PyDict::new(py), PyDict::new(py));
            for (field, [array, next_array]) in self.obs.iter().zip(arrays.obs) {
                now.set_item(field.key.as_ref(), array)?;
                then.set_item(field.key.as_ref(), next_array)?;
            }
            dict.set_item(obs, now)?;
            dict.set_item(next, then)?;
        }
        let [actions, rewards, terminated, truncated] = arrays.others;
        dict.set_item(intern!(py, "actions"), actions)?;
        dict.set_item(intern!(py, "rewards"), rewards)?;
        dict.set_item(intern!(py, "terminated"), terminated)?;
        dict.set_item(intern!(py, "truncated"), truncated)?;
        if let Some(discounts) = arrays.discounts {
            dict.set_item(intern!(py, "discounts"), discounts)?;
        }
        Ok(dict)
    }
}

fn pairs<'a>(obs: &'a [Input<'_>], next: Option<&'a [Input<'_>]>) -> Vec<Observation<'a>> {
    let next = |at: usize| next.map(|next| next[at].bytes());
    obs.iter()
        .enumerate()
        .map(|(at, obs)| Observation {
            obs: obs.bytes(),
            next: next(at),
        })
        .collect()
}

fn check_not_empty(replay: &Replay) -> PyResult<()> {
    if replay.is_empty() {
        return Err(PyValueError::new_err(
            "batch_size: the buffer is empty; push at least one transition before a sample",
        ));
    }
    Ok(())
}

fn missing_key(name: &str, obs: &Bound<'_, PyAny>) -> PyErr {
    PyTypeError::new_err(format!(
        "{name}: expected a dict with this key, got {}",
        arrays::kind_of(obs)
    ))
}

fn bad_env(name: &str, env: impl std::fmt::Display, num_envs: usize) -> PyErr {
    PyValueError::new_err(format!(
        "{name}: expected numbers in [0, {num_envs}), the buffer's num_envs, got {env}"
    ))
}

fn positive(name: &str, object: &Bound<'_, PyAny>) -> PyResult<usize> {
    match object.extract::<i64>() {
        Ok(number) if number > 0 => Ok(number as usize),
        Ok(number) => Err(PyValueError::new_err(format!(
            "{name}: expected an integer >= 1, got {number}"
        ))),
        Err(_) => Err(PyTypeError::new_err(format!(
            "{name}: expected an integer >= 1, got {}",
            arrays::kind_of(object)
        ))),
    }
}

fn as_seed(object: &Bound<'_, PyAny>) -> PyResult<u64> {
    object.extract::<u64>().map_err(|error| {
        let shown = object
            .repr()
            .map_or_else(|_| arrays::kind_of(object), |x| x.to_string());
        let message = format!("seed: expected an integer in [0, 2**64), got {shown}");
        if error.is_instance_of::<PyTypeError>(object.py()) {
            PyTypeError::new_err(message)
        } else {
            PyValueError::new_err(message)
        }
    })
}

fn as_number(name: &str, object: &Bound<'_, PyAny>) -> PyResult<f64> {
    object.extract::<f64>().map_err(|_| {
        PyTypeError::new_err(format!(
            "{name}: expected a number, got {}",
            arrays::kind_of(object)
        ))
    })
}

/// A bool of Python or NumPy, or a number.
fn as_flag(name: &str, object: &Bound<'_, PyAny>) -> PyResult<bool> {
    match object.extract::<bool>() {
        Ok(flag) => Ok(flag),
        Err(_) => as_number(name, object)
            .map(|number| number != 0.0)
            .map_err(|_| {
                PyTypeError::new_err(format!(
                    "{name}: expected a bool, got {}",
                    arrays::kind_of(object)
                ))
            }),
    }
}
