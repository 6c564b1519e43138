//! The thread pool: built at first use, rebuilt in a forked child.
//!
//! A child of `fork` inherits the pool's memory and none of its threads, so work handed to it
//! would wait for ever. The pool therefore remembers the process it belongs to; a child that finds
//! its parent's pool builds its own and leaves the old one untouched (dropping it would wait for
//! the missing threads). No lock is involved: one that another thread held while the process
//! forked would stay locked in the child.

use std::env;
use std::fmt;
use std::process;
use std::sync::atomic::{AtomicPtr, Ordering};

use rayon::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};

/// The environment variable that sets the number of threads.
pub const NUM_THREADS_VARIABLE: &str = "RLOX_GPU_NUM_THREADS";

/// Why there is no pool.
#[derive(Debug, PartialEq, Eq)]
pub enum PoolError {
    /// [`NUM_THREADS_VARIABLE`] is set to something other than a positive whole number.
    BadVariable(String),
    /// The operating system refused to start the threads.
    Spawn(String),
}

impl fmt::Display for PoolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadVariable(value) => write!(
                f,
                "{NUM_THREADS_VARIABLE} must be a whole number of at least 1, not {value:?}"
            ),
            Self::Spawn(reason) => write!(f, "the thread pool could not be started: {reason}"),
        }
    }
}

impl std::error::Error for PoolError {}

/// Threads of one process; a single one needs no pool.
pub struct Pool {
    process: u32,
    threads: Option<ThreadPool>,
}

impl Pool {
    /// How many threads [`Pool::for_each`] uses.
    #[must_use]
    pub fn num_threads(&self) -> usize {
        self.threads
            .as_ref()
            .map_or(1, ThreadPool::current_num_threads)
    }

    /// Call `body` with every item, in parallel, and wait for all of them.
    pub fn for_each_item<T: Send>(&self, items: Vec<T>, body: impl Fn(T) + Sync) {
        match &self.threads {
            Some(threads) if items.len() > 1 => {
                threads.install(|| items.into_par_iter().with_max_len(1).for_each(&body));
            }
            _ => items.into_iter().for_each(body),
        }
    }

    /// Call `body` with every index below `count`, in parallel, and wait for all of them.
    pub fn for_each(&self, count: usize, body: impl Fn(usize) + Sync) {
        match &self.threads {
            Some(threads) if count > 1 => {
                threads.install(|| (0..count).into_par_iter().with_max_len(1).for_each(&body));
            }
            _ => (0..count).for_each(body),
        }
    }
}

static CURRENT: AtomicPtr<Pool> = AtomicPtr::new(std::ptr::null_mut());

/// The pool of this process.
///
/// # Errors
/// When [`NUM_THREADS_VARIABLE`] holds no positive whole number, or threads cannot be started; the
/// next call tries again.
#[allow(unsafe_code)]
pub fn current() -> Result<&'static Pool, PoolError> {
    let found = CURRENT.load(Ordering::Acquire);
    // SAFETY: CURRENT is null or a leaked Box, which is never freed.
    if let Some(pool) = unsafe { found.as_ref() }
        && pool.process == process::id()
    {
        return Ok(pool);
    }
    let built = Box::into_raw(Box::new(build()?));
    match CURRENT.compare_exchange(found, built, Ordering::AcqRel, Ordering::Acquire) {
        // SAFETY: `built` was leaked just now and is never freed once published.
        Ok(_) => Ok(unsafe { &*built }),
        Err(_) => {
            // SAFETY: another thread was faster; `built` was not published, nobody else has it.
            drop(unsafe { Box::from_raw(built) });
            current()
        }
    }
}

fn build() -> Result<Pool, PoolError> {
    let count = requested_threads()?;
    let threads = match count {
        Some(1) => None,
        count => Some(
            ThreadPoolBuilder::new()
                .num_threads(count.unwrap_or(0))
                .thread_name(|index| format!("rlox-gpu-{index}"))
                .build()
                .map_err(|error| PoolError::Spawn(error.to_string()))?,
        ),
    };
    Ok(Pool {
        process: process::id(),
        threads,
    })
}

fn requested_threads() -> Result<Option<usize>, PoolError> {
    match env::var_os(NUM_THREADS_VARIABLE) {
        None => Ok(None),
        Some(value) => parse_threads(&value.to_string_lossy()).map(Some),
    }
}

fn parse_threads(value: &str) -> Result<usize, PoolError> {
    match value.trim().parse() {
        Ok(count) if count > 0 => Ok(count),
        _ => Err(PoolError::BadVariable(value.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[test]
    fn every_index_runs_once() {
        let counts: Vec<AtomicUsize> = (0..1000).map(|_| AtomicUsize::new(0)).collect();
        let pool = current().unwrap();
        pool.for_each(counts.len(), |i| {
            counts[i].fetch_add(1, Ordering::Relaxed);
        });
        assert!(counts.iter().all(|c| c.load(Ordering::Relaxed) == 1));
        assert!(pool.num_threads() >= 1);
    }

    #[test]
    fn every_item_is_handed_out_once() {
        let mut numbers = vec![0_u32; 1000];
        let pool = current().unwrap();
        pool.for_each_item(numbers.iter_mut().collect(), |number| *number += 1);
        assert!(numbers.iter().all(|&number| number == 1));
    }

    #[test]
    fn a_process_has_one_pool() {
        let first: *const Pool = current().unwrap();
        assert!(std::ptr::eq(first, current().unwrap()));
    }

    #[test]
    fn bad_thread_counts_are_refused() {
        for value in ["", "0", "-1", "two", "1.5"] {
            let error = parse_threads(value).unwrap_err();
            assert_eq!(error, PoolError::BadVariable(value.to_owned()));
            assert!(error.to_string().contains(NUM_THREADS_VARIABLE));
        }
        assert_eq!(parse_threads(" 3 "), Ok(3));
    }
}
