//! What a task brings: its physics and its initial states. Episodes are the vector env's business.

/// One task on one environment's numbers; the observation is the state.
///
/// `step_near` is the branch-free form that the vector env runs on many environments at once. It
/// equals `step` bit for bit wherever `is_near` holds; a task without such a shortcut answers
/// false and is stepped one by one.
pub trait Task: Copy + Send + Sync {
    type State: Copy + Default + Send + Sync;
    /// Actions are 0 to `NUM_ACTIONS - 1`.
    const NUM_ACTIONS: i64;

    fn is_near(&self, state: &Self::State) -> bool;
    /// The next state, the reward, and whether the state is terminal.
    fn step_near(&self, state: Self::State, action: i64) -> (Self::State, f32, bool);
    fn step(&self, state: Self::State, action: i64) -> (Self::State, f32, bool);
    /// The initial state that four random words stand for.
    fn initial(&self, words: [u32; 4]) -> Self::State;
}
