//! What a task brings: its physics and its initial states. Episodes are the vector env's business.
#![allow(unsafe_code)]

use super::lanes::Register;

/// One task on the four numbers of an environment, which are its state and its observation.
pub trait Task: Copy + Send + Sync {
    /// Actions are 0 to `NUM_ACTIONS - 1`; any other is taken like one of them.
    const NUM_ACTIONS: i64;

    /// The next state, the reward, and whether the state is terminal.
    fn step(&self, state: [f32; 4], action: i64) -> ([f32; 4], f32, bool);

    /// `step` for the lanes of a register at once, with the same bits; None if a lane needs `step`
    /// itself.
    ///
    /// # Safety
    /// The register's instructions exist; `actions` is valid for one action per lane.
    unsafe fn step_lanes<R: Register>(
        &self,
        state: [R; 4],
        actions: *const i64,
    ) -> Option<([R; 4], R, R::Mask)>;

    /// The initial state that four random words stand for.
    fn initial(&self, words: [u32; 4]) -> [f32; 4];
}
