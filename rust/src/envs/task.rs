//! What a task brings: its physics and its initial states. Episodes are the vector env's business.
#![allow(unsafe_code)]

use super::lanes::{Lanes, Register, Row};

/// One task. Its physics is written once, on `Lanes`, and moves one environment or a register of
/// them.
pub trait Task: Params + Copy + Send + Sync + 'static {
    /// What is kept of an environment between steps.
    type State: Row;
    /// What a caller sees of it.
    type Obs: Row;
    type Action: Action;
    /// Whether chance has a part in steps: whether `slip` does anything.
    const SLIPS: bool = false;

    /// The next state, the reward, and whether the state is terminal.
    fn step<L: Lanes>(
        params: &Self::Of<L>,
        state: <Self::State as Row>::Of<L>,
        action: L,
    ) -> (<Self::State as Row>::Of<L>, L, L::Mask);

    /// The action that happens instead of the one that was chosen; `noise` is a random number in
    /// [0, 1).
    #[inline(always)]
    fn slip<L: Lanes>(_params: &Self::Of<L>, action: L, _noise: L) -> L {
        action
    }

    /// The observation of one environment.
    #[inline(always)]
    fn observation(state: Self::State) -> Self::Obs {
        Self::Obs::from_numbers(Self::observe::<f32>(state.numbers()))
    }

    fn observe<L: Lanes>(state: <Self::State as Row>::Of<L>) -> <Self::Obs as Row>::Of<L>;

    /// The initial state that four random words stand for.
    fn initial(&self, words: [u32; 4]) -> Self::State;

    /// The action that a random word stands for.
    fn random_action(&self, word: u32) -> ActionOf<Self>;
}

/// A task's constants: of one environment, or a number per lane of a register.
pub trait Params: Sized {
    const COUNT: usize;
    type Of<L: Lanes>;

    /// The task whose constants these are, in the order of its fields; None if their number is
    /// wrong.
    fn from_params(params: &[f32]) -> Option<Self>;

    /// The task whose constant number `i` is `constant(i)`.
    fn from_constants(constant: impl FnMut(usize) -> f32) -> Self;

    /// The same constants in every lane.
    fn splat<L: Lanes>(&self) -> Self::Of<L>;

    /// The constants of consecutive environments; `column(i)` points to those of number `i`.
    ///
    /// # Safety
    /// The register's instructions exist; the pointers are valid for a number per lane.
    unsafe fn load<R: Register>(column: impl FnMut(usize) -> *const f32) -> Self::Of<R>;
}

/// What a task takes for an action, and which number its physics gets for it.
pub trait Action: Send + Sync + 'static {
    /// One action in the caller's array.
    type Element: Copy + Default + Send + Sync;

    fn is_valid(element: Self::Element) -> bool;

    /// What a valid action is, for messages.
    fn expected() -> String;

    fn number(element: Self::Element) -> f32;

    /// The numbers of one action per lane.
    ///
    /// # Safety
    /// The register's instructions exist; `from` is valid for one action per lane.
    unsafe fn numbers<R: Register>(from: *const Self::Element) -> R;
}

/// Actions 0 to `N - 1`; any other is taken like 0.
pub struct Discrete<const N: u8>;

impl<const N: u8> Discrete<N> {
    /// The action that a random word stands for.
    #[inline(always)]
    pub fn choice(word: u32) -> i64 {
        ((u64::from(word) * u64::from(N)) >> 32) as i64
    }
}

impl<const N: u8> Action for Discrete<N> {
    type Element = i64;

    #[inline(always)]
    fn is_valid(element: i64) -> bool {
        (element as u64) < u64::from(N)
    }

    fn expected() -> String {
        match N {
            2 => "0 or 1".to_owned(),
            _ => format!("between 0 and {}", N - 1),
        }
    }

    #[inline(always)]
    fn number(element: i64) -> f32 {
        if Self::is_valid(element) {
            element as f32
        } else {
            0.0
        }
    }

    #[inline(always)]
    unsafe fn numbers<R: Register>(from: *const i64) -> R {
        // A closure would not be compiled for the register's instructions.
        let (mut numbers, mut action) = (R::splat(0.0), 1);
        while action < N {
            // SAFETY: the caller's promise is the same.
            let chosen = unsafe { R::actions_equal(from, i64::from(action)) };
            numbers = R::splat(f32::from(action)).select(numbers, chosen);
            action += 1;
        }
        numbers
    }
}

/// One real number.
pub struct Continuous;

impl Action for Continuous {
    type Element = f32;

    #[inline(always)]
    fn is_valid(element: f32) -> bool {
        element.is_finite()
    }

    fn expected() -> String {
        "finite".to_owned()
    }

    #[inline(always)]
    fn number(element: f32) -> f32 {
        element
    }

    #[inline(always)]
    unsafe fn numbers<R: Register>(from: *const f32) -> R {
        // SAFETY: the caller's promise is the same.
        unsafe { R::load(from) }
    }
}

/// One action of a task in the caller's array.
pub type ActionOf<T> = <<T as Task>::Action as Action>::Element;

/// The struct of a task's constants; their order is the one in which callers pass them.
macro_rules! task {
    (
        $(#[$attribute:meta])*
        pub struct $task:ident { $($(#[$field_attribute:meta])* $field:ident),* $(,)? }
    ) => {
        $(#[$attribute])*
        #[derive(Clone, Copy, Debug, PartialEq)]
        pub struct $task<L = f32> { $($(#[$field_attribute])* pub $field: L),* }

        #[allow(unsafe_code)]
        impl $crate::envs::task::Params for $task {
            const COUNT: usize = [$(stringify!($field)),*].len();
            type Of<L: $crate::envs::lanes::Lanes> = $task<L>;

            fn from_params(params: &[f32]) -> Option<Self> {
                let &[$($field),*] = params else { return None };
                Some(Self { $($field),* })
            }

            #[inline(always)]
            fn from_constants(mut constant: impl FnMut(usize) -> f32) -> Self {
                let mut i = 0..;
                Self { $($field: constant(i.next().unwrap_or_default())),* }
            }

            #[inline(always)]
            fn splat<L: $crate::envs::lanes::Lanes>(&self) -> $task<L> {
                $task { $($field: L::splat(self.$field)),* }
            }

            #[inline(always)]
            unsafe fn load<R: $crate::envs::lanes::Register>(
                mut column: impl FnMut(usize) -> *const f32,
            ) -> $task<R> {
                let mut i = 0..;
                // SAFETY: the caller's promise is the same.
                $task { $($field: unsafe { R::load(column(i.next().unwrap_or_default())) }),* }
            }
        }
    };
}
pub(super) use task;
