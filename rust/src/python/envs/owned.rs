//! Environments that own their state: the single cart-pole and the vector env of rlox's API.
//!
//! Documentation of methods is what Python's `help` shows.
#![allow(clippy::doc_markdown)]

use numpy::{PyArray1, PyArray2, PyArrayMethods, PyUntypedArrayMethods};
use pyo3::exceptions::{PyRuntimeError, PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyString};

use super::{detached, pool_error, uninitialised};
use crate::envs::{Autoreset, Batch, CartPole, Outputs, Params, State, first_invalid_action};
use crate::pool::PoolError;

/// The state arrays of a batch, and where a step leaves what becomes Python objects.
struct Arrays {
    batch: Batch<CartPole>,
    state: Vec<[f32; 4]>,
    elapsed: Vec<i32>,
    episode: Vec<u32>,
    seed: Vec<u64>,
    ended: Vec<u8>,
    episode_return: Vec<f32>,
    actions: Vec<i64>,
    rewards: Vec<f32>,
    terminated: Vec<u8>,
    truncated: Vec<u8>,
    final_obs: Vec<[f32; 4]>,
    ready: bool,
}

impl Arrays {
    fn new(params: &[f32], autoreset: Autoreset, limit: i32, n: usize) -> PyResult<Self> {
        let task = CartPole::from_params(params).ok_or_else(|| {
            PyValueError::new_err(format!(
                "params: expected those of CartPole, got {}",
                params.len()
            ))
        })?;
        Ok(Self {
            batch: Batch {
                task,
                autoreset,
                max_episode_steps: limit,
            },
            state: vec![[0.0; 4]; n],
            elapsed: vec![0; n],
            episode: vec![u32::MAX; n],
            seed: vec![0; n],
            ended: vec![0; n],
            episode_return: vec![0.0; n],
            actions: vec![0; n],
            rewards: vec![0.0; n],
            terminated: vec![0; n],
            truncated: vec![0; n],
            final_obs: vec![[0.0; 4]; n],
            ready: false,
        })
    }

    fn seed(&mut self, seed: u64) {
        for (i, target) in self.seed.iter_mut().enumerate() {
            *target = seed.wrapping_add(i as u64);
        }
        self.episode.fill(u32::MAX);
    }

    fn view(&mut self) -> State<'_, [f32; 4]> {
        State {
            state: &mut self.state,
            elapsed: &mut self.elapsed,
            episode: &mut self.episode,
            seed: &self.seed,
            ended: &mut self.ended,
            episode_return: &mut self.episode_return,
            columns: None,
        }
    }

    fn reset(&mut self, obs: &mut [[f32; 4]]) {
        let batch = self.batch;
        batch.reset(&mut self.view(), None, obs);
        self.ready = true;
    }

    fn step(&mut self, obs: &mut [[f32; 4]]) -> Result<usize, PoolError> {
        let state = State {
            state: &mut self.state,
            elapsed: &mut self.elapsed,
            episode: &mut self.episode,
            seed: &self.seed,
            ended: &mut self.ended,
            episode_return: &mut self.episode_return,
            columns: None,
        };
        let outputs = Outputs {
            obs,
            rewards: &mut self.rewards,
            terminated: &mut self.terminated,
            truncated: &mut self.truncated,
            final_obs: Some(&mut self.final_obs),
            final_return: None,
            final_length: None,
        };
        self.batch.step(state, &self.actions, outputs)
    }

    fn check_ready(&self) -> PyResult<()> {
        if self.ready {
            return Ok(());
        }
        Err(PyRuntimeError::new_err(
            "call reset first: no episode has begun",
        ))
    }
}

/// One cart-pole; `rlox_gpu.CartPole` adds the arguments' defaults and the documentation.
#[pyclass(module = "rlox_gpu._rust", subclass)]
pub(super) struct CartPoleEnv {
    arrays: Arrays,
}

#[pymethods]
impl CartPoleEnv {
    #[new]
    #[allow(clippy::needless_pass_by_value)] // what a sequence becomes
    fn new(params: Vec<f32>, max_episode_steps: i32, seed: u64) -> PyResult<Self> {
        let mut arrays = Arrays::new(&params, Autoreset::Disabled, max_episode_steps, 1)?;
        arrays.seed(seed);
        Ok(Self { arrays })
    }

    /// Begin a new episode and give its first observation.
    ///
    /// Parameters
    /// ----------
    /// seed
    ///     A new seed, or None to go on with the old one.
    ///
    /// Returns
    /// -------
    /// numpy.ndarray
    ///     float32 ``(4,)``: position, velocity, angle, angular velocity.
    #[pyo3(signature = (seed=None))]
    fn reset<'py>(&mut self, py: Python<'py>, seed: Option<u64>) -> Bound<'py, PyArray1<f32>> {
        if let Some(seed) = seed {
            self.arrays.seed(seed);
        }
        let mut obs = [[0.0; 4]];
        self.arrays.reset(&mut obs);
        PyArray1::from_slice(py, &obs[0])
    }

    /// Take one step.
    ///
    /// Parameters
    /// ----------
    /// action
    ///     0 pushes to the left, 1 to the right.
    ///
    /// Returns
    /// -------
    /// dict
    ///     ``"obs"`` (float32 ``(4,)``), ``"reward"`` (float), ``"terminated"`` and
    ///     ``"truncated"`` (bool).
    ///
    /// Raises
    /// ------
    /// RuntimeError
    ///     Before the first reset, or if the episode has ended.
    /// TypeError, ValueError
    ///     If the action is not 0 or 1.
    fn step<'py>(
        &mut self,
        py: Python<'py>,
        action: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyDict>> {
        self.arrays.check_ready()?;
        let action = action.extract::<i64>().map_err(|_| {
            PyTypeError::new_err(format!("action must be an integer, got {action:?}"))
        })?;
        if !(0..2).contains(&action) {
            return Err(PyValueError::new_err(format!(
                "action must be 0 or 1, got {action}"
            )));
        }
        if self.arrays.ended[0] != 0 {
            return Err(PyRuntimeError::new_err(
                "the episode has ended; call reset before the next step",
            ));
        }
        self.arrays.actions[0] = action;
        let mut obs = [[0.0; 4]];
        self.arrays.step(&mut obs).map_err(pool_error)?;
        let result = PyDict::new(py);
        result.set_item(intern!(py, "obs"), PyArray1::from_slice(py, &obs[0]))?;
        result.set_item(intern!(py, "reward"), f64::from(self.arrays.rewards[0]))?;
        result.set_item(intern!(py, "terminated"), self.arrays.terminated[0] != 0)?;
        result.set_item(intern!(py, "truncated"), self.arrays.truncated[0] != 0)?;
        Ok(result)
    }

    /// Describe the state in one line, or None before the first reset.
    fn render(&self) -> Option<String> {
        let [x, _, theta, _] = self.arrays.state[0];
        let step = self.arrays.elapsed[0];
        self.arrays
            .ready
            .then(|| format!("CartPole | step={step} | x={x:.4} theta={theta:.4}"))
    }
}

/// Many cart-poles; `rlox_gpu.VecEnv` adds the arguments' checks and the documentation.
#[pyclass(module = "rlox_gpu._rust", subclass)]
pub(super) struct CartPoleVec {
    arrays: Arrays,
}

#[pymethods]
impl CartPoleVec {
    #[new]
    #[allow(clippy::needless_pass_by_value)] // what a sequence becomes
    fn new(params: Vec<f32>, max_episode_steps: i32, seed: u64, num_envs: usize) -> PyResult<Self> {
        let mut arrays = Arrays::new(&params, Autoreset::SameStep, max_episode_steps, num_envs)?;
        arrays.seed(seed);
        Ok(Self { arrays })
    }

    /// Give the number of environments.
    fn num_envs(&self) -> usize {
        self.arrays.state.len()
    }

    /// Begin new episodes everywhere and give their first observations, float32 ``(n, 4)``.
    #[pyo3(signature = (seed=None))]
    fn reset_all<'py>(&mut self, py: Python<'py>, seed: Option<u64>) -> Bound<'py, PyArray2<f32>> {
        if let Some(seed) = seed {
            self.arrays.seed(seed);
        }
        let obs = uninitialised(py, [self.arrays.state.len(), 4]);
        self.arrays.reset(rows(&obs));
        obs
    }

    /// Step every environment; those whose episode ends begin the next one in the same step.
    ///
    /// Parameters
    /// ----------
    /// actions
    ///     One integer per environment, 0 or 1, in a list or an array.
    ///
    /// Returns
    /// -------
    /// dict
    ///     ``"obs"`` (float32 ``(n, 4)``), ``"rewards"`` (float64 ``(n,)``), ``"terminated"`` and
    ///     ``"truncated"`` (bool ``(n,)``), and ``"terminal_obs"``: a list with the last
    ///     observation of the episode where one ended, None elsewhere.
    ///
    /// Raises
    /// ------
    /// RuntimeError
    ///     Before the first reset.
    /// TypeError, ValueError
    ///     If ``actions`` are not n integers of the range; no environment has then moved.
    fn step_all<'py>(
        &mut self,
        py: Python<'py>,
        actions: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyDict>> {
        self.arrays.check_ready()?;
        copy_actions(actions, &mut self.arrays.actions)?;
        check_actions(&self.arrays.actions)?;
        let n = self.arrays.state.len();
        let obs = uninitialised(py, [n, 4]);
        let target = rows(&obs);
        let num_ended = detached(py, n, || self.arrays.step(target)).map_err(pool_error)?;
        let arrays = &self.arrays;
        let rewards = uninitialised::<f64, 1>(py, [n]);
        for (target, &reward) in slice(&rewards).iter_mut().zip(&arrays.rewards) {
            *target = f64::from(reward);
        }
        let result = PyDict::new(py);
        result.set_item(intern!(py, "obs"), obs)?;
        result.set_item(intern!(py, "rewards"), rewards)?;
        result.set_item(intern!(py, "terminated"), flags(py, &arrays.terminated))?;
        result.set_item(intern!(py, "truncated"), flags(py, &arrays.truncated))?;
        result.set_item(
            intern!(py, "terminal_obs"),
            arrays.terminal_obs(py, num_ended)?,
        )?;
        Ok(result)
    }
}

impl Arrays {
    fn terminal_obs<'py>(&self, py: Python<'py>, num_ended: usize) -> PyResult<Bound<'py, PyList>> {
        let n = self.state.len();
        let list = PyList::new(py, (0..n).map(|_| py.None()))?;
        if num_ended > 0 {
            for i in 0..n {
                if self.terminated[i] | self.truncated[i] != 0 {
                    list.set_item(i, PyArray1::from_slice(py, &self.final_obs[i]))?;
                }
            }
        }
        Ok(list)
    }
}

fn check_actions(actions: &[i64]) -> PyResult<()> {
    first_invalid_action::<CartPole>(actions).map_or(Ok(()), |index| {
        Err(PyValueError::new_err(format!(
            "actions must be 0 or 1, got {} at index {index}",
            actions[index]
        )))
    })
}

fn copy_actions(actions: &Bound<'_, PyAny>, target: &mut [i64]) -> PyResult<()> {
    let n = target.len();
    if let Ok(list) = actions.cast::<PyList>() {
        if list.len() != n {
            return Err(PyValueError::new_err(format!(
                "actions must have one entry per environment ({n}), got {}",
                list.len()
            )));
        }
        for (i, (target, action)) in target.iter_mut().zip(list.iter()).enumerate() {
            *target = action.extract().map_err(|_| {
                PyTypeError::new_err(format!(
                    "actions must be integers, got {action:?} at index {i}"
                ))
            })?;
        }
        return Ok(());
    }
    if let Ok(array) = actions.cast::<PyArray1<i64>>()
        && array.len() == n
        && array.is_contiguous()
    {
        target.copy_from_slice(slice(array));
        return Ok(());
    }
    macro_rules! convert {
        ($($type:ty),*) => {$(
            if let Ok(array) = actions.cast::<PyArray1<$type>>()
                && array.len() == n
                && array.is_contiguous()
            {
                for (target, &action) in target.iter_mut().zip(slice(array).iter()) {
                    *target = i64::from(action);
                }
                return Ok(());
            }
        )*};
    }
    convert!(u32, i32, u8);
    let as_actions = PyString::new(actions.py(), "as_actions");
    let module = actions.py().import("rlox_gpu.envs.array")?;
    let array = module.call_method1(as_actions, (actions, (n,)))?;
    target.copy_from_slice(slice(array.cast::<PyArray1<i64>>()?));
    Ok(())
}

fn flags<'py>(py: Python<'py>, flags: &[u8]) -> Bound<'py, PyArray1<bool>> {
    let array = uninitialised::<bool, 1>(py, [flags.len()]);
    for (target, &flag) in slice(&array).iter_mut().zip(flags) {
        *target = flag != 0;
    }
    array
}

fn rows<'a>(array: &Bound<'_, PyArray2<f32>>) -> &'a mut [[f32; 4]] {
    // SAFETY: a fresh contiguous array of rows of four, used before Python sees it.
    unsafe { super::slice_at_mut(array.len() / 4, array.data() as usize) }
}

fn slice<'a, E: numpy::Element>(array: &Bound<'_, PyArray1<E>>) -> &'a mut [E] {
    // SAFETY: contiguous and alive for as long as the caller, who holds the GIL, uses it.
    unsafe { super::slice_at_mut(array.len(), array.data() as usize) }
}
