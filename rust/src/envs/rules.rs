//! What an environment is stepped with: constants and a step limit, which all environments of a
//! batch share or each has of its own. Steps are compiled for both cases, so that the first, the
//! usual one, pays nothing for the second.
#![allow(unsafe_code)]

use super::batch::{Batch, State};
use super::lanes::{MAX_WIDTH, Register};
use super::task::Task;

/// Constants and step limits of each environment.
#[derive(Clone, Copy)]
pub struct Columns<'a> {
    /// For each constant of the task the numbers of all environments.
    params: &'a [f32],
    limits: &'a [i32],
    /// Environments of the batch, and the first of those meant here.
    stride: usize,
    start: usize,
}

impl<'a> Columns<'a> {
    /// `params` holds a number per constant and environment, constant after constant.
    #[must_use]
    pub fn new(params: &'a [f32], limits: &'a [i32]) -> Self {
        Self {
            params,
            limits,
            stride: limits.len(),
            start: 0,
        }
    }

    /// The task of one environment.
    #[inline(always)]
    pub(super) fn task_of<T: Task>(&self, i: usize) -> T {
        T::from_constants(|constant| self.params[constant * self.stride + self.start + i])
    }

    pub(super) fn skip(self, count: usize) -> Self {
        let start = self.start + count;
        Self { start, ..self }
    }
}

/// The rules of the environments of a part, by their indices in it.
pub(super) trait Rules<'a, T: Task>: Copy {
    fn of(batch: &'a Batch<T>, state: &State<'a, T::State>) -> Self;

    /// The constants of one environment.
    fn task(&self, i: usize) -> T::Of<f32>;

    fn initial(&self, i: usize, words: [u32; 4]) -> T::State;

    fn limit(&self, i: usize) -> i32;

    /// The constants of the environments of a register.
    ///
    /// # Safety
    /// The register's instructions exist, and so do `WIDTH` environments from `at`.
    unsafe fn tasks<R: Register>(&self, at: usize) -> T::Of<R>;

    /// Where the step limits of the environments of a register are.
    fn limits(&self, at: usize) -> *const i32;
}

/// The same for every environment.
#[derive(Clone, Copy)]
pub(super) struct Shared<T> {
    task: T,
    limits: [i32; MAX_WIDTH],
}

impl<'a, T: Task> Rules<'a, T> for Shared<T> {
    #[inline(always)]
    fn of(batch: &'a Batch<T>, _: &State<'a, T::State>) -> Self {
        Self {
            task: batch.task,
            limits: [batch.max_episode_steps; MAX_WIDTH],
        }
    }

    #[inline(always)]
    fn task(&self, _: usize) -> T::Of<f32> {
        self.task.splat()
    }

    #[inline(always)]
    fn initial(&self, _: usize, words: [u32; 4]) -> T::State {
        self.task.initial(words)
    }

    #[inline(always)]
    fn limit(&self, _: usize) -> i32 {
        self.limits[0]
    }

    #[inline(always)]
    unsafe fn tasks<R: Register>(&self, _: usize) -> T::Of<R> {
        self.task.splat()
    }

    #[inline(always)]
    fn limits(&self, _: usize) -> *const i32 {
        self.limits.as_ptr()
    }
}

impl<'a, T: Task> Rules<'a, T> for Columns<'a> {
    #[inline(always)]
    fn of(_: &'a Batch<T>, state: &State<'a, T::State>) -> Self {
        state.columns.unwrap_or_else(|| Columns::new(&[], &[]))
    }

    #[inline(always)]
    fn task(&self, i: usize) -> T::Of<f32> {
        self.task_of::<T>(i).splat()
    }

    #[inline(always)]
    fn initial(&self, i: usize, words: [u32; 4]) -> T::State {
        self.task_of::<T>(i).initial(words)
    }

    #[inline(always)]
    fn limit(&self, i: usize) -> i32 {
        self.limits[self.start + i]
    }

    #[inline(always)]
    unsafe fn tasks<R: Register>(&self, at: usize) -> T::Of<R> {
        let column = |constant| {
            let column = constant * self.stride + self.start + at;
            self.params[column..][..R::WIDTH].as_ptr()
        };
        // SAFETY: the slices above have a number per lane; the rest is the caller's promise.
        unsafe { T::load::<R>(column) }
    }

    #[inline(always)]
    fn limits(&self, at: usize) -> *const i32 {
        self.limits[self.start + at..].as_ptr()
    }
}
