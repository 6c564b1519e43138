//! Environments for Python: batches on addresses (tensors), batches on NumPy arrays.
//!
//! Arrays come as addresses, so this file is the one place of the environments with unsafe code.
#![allow(unsafe_code)]

mod any;
mod owned;

use std::sync::Arc;

use numpy::ndarray::Dim;
use numpy::{Element, PyArray, PyArray1, PyArray2, PyArrayMethods, PyUntypedArrayMethods};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;

use self::any::{AnyBatch, StateAddresses};
use crate::envs::{self, Autoreset};
use crate::pool::PoolError;

/// Batches smaller than this are stepped without releasing the GIL.
const DETACH_FROM: usize = 256;

type StepResult<'py> = (
    Bound<'py, PyArray2<f32>>,
    Bound<'py, PyArray1<f32>>,
    Bound<'py, PyArray1<bool>>,
    Bound<'py, PyArray1<bool>>,
    usize,
    Bound<'py, PyArray2<f32>>,
    Bound<'py, PyArray1<f32>>,
    Bound<'py, PyArray1<i32>>,
);

/// The native tasks by their names.
fn batch_of(
    task: &str,
    params: &[f32],
    autoreset: Autoreset,
    max_episode_steps: i32,
) -> PyResult<Arc<dyn AnyBatch>> {
    let make = match task {
        "CartPole" => any::make::<envs::CartPole>,
        "Pendulum" => any::make::<envs::Pendulum>,
        "MountainCar" => any::make::<envs::MountainCar>,
        "MountainCarContinuous" => any::make::<envs::MountainCarContinuous>,
        "Acrobot" => any::make::<envs::Acrobot>,
        "FrozenLake" => any::make::<envs::FrozenLake>,
        _ => {
            return Err(PyValueError::new_err(format!(
                "task: no native task is called {task:?}"
            )));
        }
    };
    make(params, autoreset, max_episode_steps).ok_or_else(|| {
        PyValueError::new_err(format!(
            "params: {task} takes another number than {}",
            params.len()
        ))
    })
}

/// The rules of a batch of environments, applied to arrays given by their addresses.
///
/// The caller answers for the addresses: contiguous arrays of `num_envs` entries, alive during the
/// call, in the order and of the types of `envs::State` and `envs::Outputs`; 0 for an output that
/// is not wanted. The state is followed by the constants of each environment, float32 with a row of
/// `num_envs` per constant, and their step limits, int32; 0 twice where the batch's rules hold.
#[pyclass(module = "rlox_gpu._rust", frozen)]
struct EnvBatch {
    batch: Arc<dyn AnyBatch>,
}

#[pymethods]
impl EnvBatch {
    #[new]
    #[allow(clippy::needless_pass_by_value)] // what a sequence becomes
    fn new(
        task: &str,
        params: Vec<f32>,
        autoreset_mode: u8,
        max_episode_steps: i32,
    ) -> PyResult<Self> {
        let autoreset = Autoreset::from_index(autoreset_mode).ok_or_else(|| {
            PyValueError::new_err(format!(
                "autoreset_mode must be 0, 1 or 2, got {autoreset_mode}"
            ))
        })?;
        let batch = batch_of(task, &params, autoreset, max_episode_steps)?;
        Ok(Self { batch })
    }

    /// Steps every environment; raises before anything changes if an action is not the task's.
    fn step(
        &self,
        py: Python<'_>,
        num_envs: usize,
        state: StateAddresses,
        actions: usize,
        outputs: [usize; 7],
    ) -> PyResult<usize> {
        // SAFETY: the class's contract.
        unsafe {
            self.batch.check_actions(num_envs, actions)?;
            detached(py, num_envs, || {
                self.batch.step(num_envs, state, actions, outputs)
            })
        }
        .map_err(pool_error)
    }

    /// Takes `num_steps` steps; the arrays of actions and outputs hold a row per step. `drawn` says
    /// that the actions are to be drawn, and written to `actions` unless that is 0; given ones are
    /// checked before anything changes.
    fn rollout(
        &self,
        py: Python<'_>,
        num_envs: usize,
        num_steps: usize,
        state: StateAddresses,
        actions: usize,
        drawn: bool,
        outputs: [usize; 7],
    ) -> PyResult<usize> {
        let entries = num_envs * num_steps;
        // SAFETY: the class's contract.
        unsafe {
            if !drawn {
                self.batch.check_actions(entries, actions)?;
            }
            detached(py, entries, || {
                self.batch
                    .rollout(num_envs, num_steps, state, actions, drawn, outputs)
            })
        }
        .map_err(pool_error)
    }

    /// Begins new episodes where `mask` (an address, 0 for everywhere) is set.
    fn reset(
        &self,
        py: Python<'_>,
        num_envs: usize,
        state: StateAddresses,
        mask: usize,
        obs: usize,
    ) {
        // SAFETY: the class's contract.
        detached(py, num_envs, || unsafe {
            self.batch.reset(num_envs, state, mask, obs);
        });
    }

    /// The same rules bound to the state arrays of a NumPy environment, and to the constants
    /// `(constants, N)` and step limits of each environment if they have their own.
    #[pyo3(signature = (state, elapsed, episode, seed, ended, episode_return, params=None, limits=None))]
    fn bind(
        &self,
        state: &Bound<'_, PyAny>,
        elapsed: &Bound<'_, PyArray1<i32>>,
        episode: &Bound<'_, PyArray1<u32>>,
        seed: &Bound<'_, PyArray1<u64>>,
        ended: &Bound<'_, PyArray1<bool>>,
        episode_return: &Bound<'_, PyArray1<f32>>,
        params: Option<&Bound<'_, PyArray2<f32>>>,
        limits: Option<&Bound<'_, PyArray1<i32>>>,
    ) -> PyResult<EnvArrays> {
        let num_envs = elapsed.len();
        let shape = [num_envs, self.batch.state_size()];
        let state_rows = if self.batch.has_integer_state() {
            rows_address::<i32>(state, shape)?
        } else {
            rows_address::<f32>(state, shape)?
        };
        if params.is_some() != limits.is_some() {
            return Err(PyValueError::new_err("params and limits go together"));
        }
        let num_params = self.batch.num_params();
        let addresses = [
            state_rows,
            state_address(elapsed, "elapsed", num_envs)?,
            state_address(episode, "episode", num_envs)?,
            state_address(seed, "seed", num_envs)?,
            state_address(ended, "ended", num_envs)?,
            state_address(episode_return, "episode_return", num_envs)?,
            params.map_or(Ok(0), |a| state_address(a, "params", num_envs * num_params))?,
            limits.map_or(Ok(0), |a| state_address(a, "limits", num_envs))?,
        ];
        let mut owners = vec![
            state,
            elapsed.as_any(),
            episode.as_any(),
            seed.as_any(),
            ended.as_any(),
            episode_return.as_any(),
        ];
        owners.extend(params.map(Bound::as_any));
        owners.extend(limits.map(Bound::as_any));
        Ok(EnvArrays {
            batch: Arc::clone(&self.batch),
            num_envs,
            addresses,
            _owners: owners
                .into_iter()
                .map(|array| array.clone().unbind())
                .collect(),
        })
    }
}

/// A batch of environments on NumPy state arrays, which it keeps alive.
#[pyclass(module = "rlox_gpu._rust")]
struct EnvArrays {
    batch: Arc<dyn AnyBatch>,
    num_envs: usize,
    addresses: StateAddresses,
    _owners: Vec<Py<PyAny>>,
}

#[pymethods]
impl EnvArrays {
    /// Steps every environment into fresh arrays.
    fn step<'py>(
        &mut self,
        py: Python<'py>,
        actions: &Bound<'py, PyAny>,
    ) -> PyResult<StepResult<'py>> {
        let (n, batch) = (self.num_envs, &*self.batch);
        let same_step = batch.autoreset() == Autoreset::SameStep;
        let actions = batch.actions_address(actions, n)?;
        // SAFETY: `actions_address` has checked type, length and contiguity.
        unsafe { batch.check_actions(n, actions)? };
        let obs = uninitialised(py, [n, batch.obs_size()]);
        let rewards = uninitialised(py, [n]);
        let terminated = uninitialised(py, [n]);
        let truncated = uninitialised(py, [n]);
        let num_final = if same_step { n } else { 0 };
        let final_obs = PyArray2::zeros(py, [num_final, batch.obs_size()], false);
        let final_return = uninitialised(py, [n]);
        let final_length = uninitialised(py, [n]);
        let outputs = [
            obs.data() as usize,
            rewards.data() as usize,
            terminated.data() as usize,
            truncated.data() as usize,
            if same_step {
                final_obs.data() as usize
            } else {
                0
            },
            final_return.data() as usize,
            final_length.data() as usize,
        ];
        let addresses = self.addresses;
        // SAFETY: the state's addresses were checked by `bind`, whose arrays `_owners` keeps, and
        // `&mut self` keeps other calls out; the outputs are fresh contiguous arrays of `n`
        // entries that nobody else has yet.
        let num_ended = detached(py, n, || unsafe {
            batch.step(n, addresses, actions, outputs)
        })
        .map_err(pool_error)?;
        Ok((
            obs,
            rewards,
            terminated,
            truncated,
            num_ended,
            final_obs,
            final_return,
            final_length,
        ))
    }

    /// Takes steps into the caller's arrays, as `EnvBatch.rollout`.
    fn rollout(
        &mut self,
        py: Python<'_>,
        num_steps: usize,
        actions: usize,
        drawn: bool,
        outputs: [usize; 7],
    ) -> PyResult<usize> {
        let batch = EnvBatch {
            batch: Arc::clone(&self.batch),
        };
        let state = self.addresses;
        batch.rollout(py, self.num_envs, num_steps, state, actions, drawn, outputs)
    }

    /// Begins new episodes, everywhere or where `mask` is set; gives all observations.
    #[pyo3(signature = (mask=None))]
    fn reset<'py>(
        &mut self,
        py: Python<'py>,
        mask: Option<&Bound<'py, PyArray1<bool>>>,
    ) -> PyResult<Bound<'py, PyArray2<f32>>> {
        let n = self.num_envs;
        if mask.is_some_and(|mask| mask.len() != n || !mask.is_contiguous()) {
            return Err(PyValueError::new_err(format!(
                "mask must be contiguous and have shape ({n},)"
            )));
        }
        let obs = uninitialised::<f32, _>(py, [n, self.batch.obs_size()]);
        let mask = mask.map_or(0, |mask| mask.data() as usize);
        // SAFETY: as in `step`.
        unsafe {
            self.batch
                .reset(n, self.addresses, mask, obs.data() as usize);
        };
        Ok(obs)
    }
}

#[allow(clippy::needless_pass_by_value)]
fn pool_error(error: PoolError) -> PyErr {
    PyValueError::new_err(error.to_string())
}

fn detached<R: Send>(py: Python<'_>, num_envs: usize, work: impl FnOnce() -> R + Send) -> R {
    if num_envs < DETACH_FROM {
        work()
    } else {
        py.detach(work)
    }
}

fn rows_address<E: Element>(state: &Bound<'_, PyAny>, shape: [usize; 2]) -> PyResult<usize> {
    let array = state
        .cast::<PyArray2<E>>()
        .map_err(|_| PyTypeError::new_err("state has another dtype than the task's"))?;
    let [num_envs, width] = shape;
    if array.shape() != shape {
        return Err(PyValueError::new_err(format!(
            "state must have shape ({num_envs}, {width}), got {:?}",
            array.shape()
        )));
    }
    state_address(array, "state", num_envs * width)
}

fn state_address<E: Element, D: numpy::ndarray::Dimension>(
    array: &Bound<'_, PyArray<E, D>>,
    name: &str,
    len: usize,
) -> PyResult<usize> {
    if array.len() != len || !array.is_c_contiguous() {
        return Err(PyValueError::new_err(format!(
            "{name} must be C-contiguous and hold {len} numbers, got shape {:?}",
            array.shape()
        )));
    }
    array
        .try_readwrite()
        .map_err(|error| PyTypeError::new_err(format!("{name} must be writeable: {error}")))?;
    Ok(array.data() as usize)
}

fn uninitialised<E: Element, const D: usize>(
    py: Python<'_>,
    shape: [usize; D],
) -> Bound<'_, PyArray<E, Dim<[usize; D]>>>
where
    Dim<[usize; D]>: numpy::ndarray::Dimension,
    [usize; D]: numpy::ndarray::IntoDimension<Dim = Dim<[usize; D]>>,
{
    // SAFETY: plain numbers, all written before Python sees the array.
    unsafe { PyArray::new(py, shape, false) }
}

unsafe fn slice_at<'a, E>(len: usize, address: usize) -> &'a [E] {
    if len == 0 {
        return &[];
    }
    unsafe { std::slice::from_raw_parts(address as *const E, len) }
}

unsafe fn slice_at_mut<'a, E>(len: usize, address: usize) -> &'a mut [E] {
    if len == 0 {
        return &mut [];
    }
    unsafe { std::slice::from_raw_parts_mut(address as *mut E, len) }
}

pub(super) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<EnvBatch>()?;
    module.add_class::<EnvArrays>()?;
    module.add_class::<owned::CartPoleEnv>()?;
    module.add_class::<owned::CartPoleVec>()?;
    Ok(())
}
