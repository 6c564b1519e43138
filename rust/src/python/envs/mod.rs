//! Environments for Python: batches on addresses (tensors), batches on NumPy arrays.
//!
//! Arrays come as addresses, so this file is the one place of the environments with unsafe code.
#![allow(unsafe_code)]

mod owned;

use numpy::ndarray::Dim;
use numpy::{Element, PyArray, PyArray1, PyArray2, PyArrayMethods, PyUntypedArrayMethods};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;

use crate::envs::{Autoreset, Batch, CartPole, Outputs, State, first_invalid_action};
use crate::pool::PoolError;

/// Batches smaller than this are stepped without releasing the GIL.
const DETACH_FROM: usize = 256;
const STATE_SIZE: usize = 4;

type Obs = [f32; STATE_SIZE];
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

/// The rules of a batch of cart-poles, applied to arrays given by their addresses.
///
/// The caller answers for the addresses: contiguous arrays of `num_envs` entries, alive during the
/// call, in the order and of the types of `envs::State` and `envs::Outputs`; 0 for an output that
/// is not wanted.
#[pyclass(module = "rlox_gpu._rust", frozen)]
struct CartPoleBatch {
    batch: Batch<CartPole>,
}

#[pymethods]
impl CartPoleBatch {
    #[new]
    fn new(
        params: [f32; CartPole::NUM_PARAMS],
        autoreset_mode: u8,
        max_episode_steps: i32,
    ) -> PyResult<Self> {
        let autoreset = Autoreset::from_index(autoreset_mode).ok_or_else(|| {
            PyValueError::new_err(format!(
                "autoreset_mode must be 0, 1 or 2, got {autoreset_mode}"
            ))
        })?;
        let task = CartPole::from_params(params);
        Ok(Self {
            batch: Batch {
                task,
                autoreset,
                max_episode_steps,
            },
        })
    }

    /// Steps every environment; raises before anything changes if an action is out of range.
    fn step(
        &self,
        py: Python<'_>,
        num_envs: usize,
        state: [usize; 6],
        actions: usize,
        outputs: [usize; 7],
    ) -> PyResult<usize> {
        // SAFETY: the class's contract.
        let (state, actions, outputs) = unsafe {
            (
                state_at(num_envs, state),
                slice_at::<i64>(num_envs, actions),
                outputs_at(num_envs, outputs),
            )
        };
        check_actions(actions)?;
        detached(py, num_envs, || self.batch.step(state, actions, outputs)).map_err(pool_error)
    }

    /// Begins new episodes where `mask` (an address, 0 for everywhere) is set.
    fn reset(&self, py: Python<'_>, num_envs: usize, state: [usize; 6], mask: usize, obs: usize) {
        // SAFETY: the class's contract.
        let (mut state, mask, obs) = unsafe {
            (
                state_at(num_envs, state),
                (mask != 0).then(|| slice_at::<u8>(num_envs, mask)),
                slice_at_mut::<Obs>(num_envs, obs),
            )
        };
        detached(py, num_envs, || {
            self.batch.reset(&mut state, mask, obs);
        });
    }

    /// The same rules bound to the state arrays of a NumPy environment.
    fn bind(
        &self,
        state: &Bound<'_, PyArray2<f32>>,
        elapsed: &Bound<'_, PyArray1<i32>>,
        episode: &Bound<'_, PyArray1<u32>>,
        seed: &Bound<'_, PyArray1<u64>>,
        ended: &Bound<'_, PyArray1<bool>>,
        episode_return: &Bound<'_, PyArray1<f32>>,
    ) -> PyResult<CartPoleArrays> {
        let num_envs = elapsed.len();
        if state.shape() != [num_envs, STATE_SIZE] {
            return Err(PyValueError::new_err(format!(
                "state must have shape ({num_envs}, {STATE_SIZE}), got {:?}",
                state.shape()
            )));
        }
        let addresses = [
            state_address(state, "state", num_envs * STATE_SIZE)?,
            state_address(elapsed, "elapsed", num_envs)?,
            state_address(episode, "episode", num_envs)?,
            state_address(seed, "seed", num_envs)?,
            state_address(ended, "ended", num_envs)?,
            state_address(episode_return, "episode_return", num_envs)?,
        ];
        let owners = [
            state.as_any(),
            elapsed.as_any(),
            episode.as_any(),
            seed.as_any(),
            ended.as_any(),
            episode_return.as_any(),
        ]
        .map(|array| array.clone().unbind());
        Ok(CartPoleArrays {
            batch: self.batch,
            num_envs,
            addresses,
            _owners: owners,
        })
    }
}

/// A batch of cart-poles on NumPy state arrays, which it keeps alive.
#[pyclass(module = "rlox_gpu._rust")]
struct CartPoleArrays {
    batch: Batch<CartPole>,
    num_envs: usize,
    addresses: [usize; 6],
    _owners: [Py<PyAny>; 6],
}

#[pymethods]
impl CartPoleArrays {
    /// Steps every environment into fresh arrays.
    fn step<'py>(
        &mut self,
        py: Python<'py>,
        actions: &Bound<'py, PyArray1<i64>>,
    ) -> PyResult<StepResult<'py>> {
        let n = self.num_envs;
        if actions.len() != n || !actions.is_contiguous() {
            return Err(PyValueError::new_err(format!(
                "actions must be contiguous and have shape ({n},), got {:?}",
                actions.shape()
            )));
        }
        // SAFETY: length and contiguity were checked; the addresses were checked by `bind`, whose
        // arrays `_owners` keeps, and `&mut self` keeps other calls out.
        let (actions, state) = unsafe {
            (
                slice_at::<i64>(n, actions.data() as usize),
                state_at(n, self.addresses),
            )
        };
        check_actions(actions)?;
        let same_step = self.batch.autoreset == Autoreset::SameStep;
        let obs = uninitialised(py, [n, STATE_SIZE]);
        let rewards = uninitialised(py, [n]);
        let terminated = uninitialised(py, [n]);
        let truncated = uninitialised(py, [n]);
        let final_obs = PyArray2::zeros(py, [if same_step { n } else { 0 }, STATE_SIZE], false);
        let final_return = uninitialised(py, [n]);
        let final_length = uninitialised(py, [n]);
        // SAFETY: fresh contiguous arrays of `n` entries that nobody else has yet.
        let outputs = unsafe {
            outputs_at(
                n,
                [
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
                ],
            )
        };
        let num_ended =
            detached(py, n, || self.batch.step(state, actions, outputs)).map_err(pool_error)?;
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
        let obs = uninitialised::<f32, _>(py, [n, STATE_SIZE]);
        // SAFETY: as in `step`.
        let (mut state, mask, target) = unsafe {
            (
                state_at(n, self.addresses),
                mask.map(|mask| slice_at::<u8>(n, mask.data() as usize)),
                slice_at_mut::<Obs>(n, obs.data() as usize),
            )
        };
        self.batch.reset(&mut state, mask, target);
        Ok(obs)
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

unsafe fn state_at<'a>(len: usize, addresses: [usize; 6]) -> State<'a> {
    let [state, elapsed, episode, seed, ended, episode_return] = addresses;
    unsafe {
        State {
            state: slice_at_mut(len, state),
            elapsed: slice_at_mut(len, elapsed),
            episode: slice_at_mut(len, episode),
            seed: slice_at(len, seed),
            ended: slice_at_mut(len, ended),
            episode_return: slice_at_mut(len, episode_return),
        }
    }
}

unsafe fn outputs_at<'a>(len: usize, addresses: [usize; 7]) -> Outputs<'a> {
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

pub(super) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<CartPoleBatch>()?;
    module.add_class::<CartPoleArrays>()?;
    module.add_class::<owned::CartPoleEnv>()?;
    module.add_class::<owned::CartPoleVec>()?;
    Ok(())
}
