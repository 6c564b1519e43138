//! From samples to dicts of arrays.

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::ReplayStore;
use crate::buffers::Batch;

/// The results of a sample, in the order of the keys.
pub(super) struct Arrays<'py> {
    obs: Vec<[Bound<'py, PyAny>; 2]>,
    /// Actions, rewards, terminated, truncated.
    others: [Bound<'py, PyAny>; 4],
    discounts: Option<Bound<'py, PyAny>>,
}
impl ReplayStore {
    /// Arrays for a sample with these leading dimensions, and their memory.
    pub(super) fn allocate<'py>(
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

    pub(super) fn as_dict<'py>(
        &self,
        py: Python<'py>,
        arrays: Arrays<'py>,
    ) -> PyResult<Bound<'py, PyDict>> {
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
