//! From arguments to rows of the ring.

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;

use super::fields::{Count, Field, Input};
use super::scalars::{as_flag, as_number};
use super::{ReplayStore, prioritized};
use crate::buffers::Observation;
use crate::buffers::replay::{Envs, Rows};
use crate::python::arrays;

impl ReplayStore {
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

    pub(super) fn push_one(
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

    pub(super) fn push_many(
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
