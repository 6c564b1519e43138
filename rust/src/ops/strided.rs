//! Arrays `[T, N]` in foreign memory with any strides: the one place that touches raw addresses.
//!
//! Whoever builds a [`Source`], [`FlagSource`] or [`Sink`] vouches for the memory; from then on all
//! access is checked against the shape, and two sinks never reach the same element.

#![allow(unsafe_code)]

use std::marker::PhantomData;
use std::mem::{align_of, size_of};
use std::ops::Range;
use std::slice;

use super::element::Element;

/// Where the elements of an array lie: address and strides in bytes, shape `[times, envs]`.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    pub base: *mut u8,
    pub time_stride: isize,
    pub env_stride: isize,
    pub times: usize,
    pub envs: usize,
}

impl Layout {
    /// The part of an array within ranges of times and environments.
    #[must_use]
    pub fn part(self, times: Range<usize>, envs: Range<usize>) -> Self {
        assert!(times.start <= times.end && times.end <= self.times);
        assert!(envs.start <= envs.end && envs.end <= self.envs);
        Self {
            base: self.address(times.start, envs.start),
            times: times.len(),
            envs: envs.len(),
            ..self
        }
    }

    /// One trajectory `[chunks * length, 1]` as `[length, chunks]`: chunk c is column c.
    #[must_use]
    pub fn fold(self, length: usize) -> Self {
        assert!(self.envs == 1 && self.times.is_multiple_of(length));
        Self {
            env_stride: self.time_stride * length as isize,
            times: length,
            envs: self.times / length,
            ..self
        }
    }

    /// Whether two elements of `size` bytes may share memory; true also for some strange strides
    /// with which none do.
    #[must_use]
    pub fn overlaps_itself(&self, size: isize) -> bool {
        let mut axes = [(self.time_stride, self.times), (self.env_stride, self.envs)]
            .map(|(stride, count)| (stride.abs(), count as isize));
        axes.sort_unstable();
        let mut extent = size;
        for (stride, count) in axes.into_iter().filter(|&(_, count)| count != 1) {
            if count > 0 && stride < extent {
                return true;
            }
            extent = stride * (count - 1) + extent;
        }
        false
    }

    #[inline(always)]
    fn address(&self, time: usize, env: usize) -> *mut u8 {
        self.base
            .wrapping_offset(time as isize * self.time_stride + env as isize * self.env_stride)
    }

    /// Whether every row is a slice of aligned elements side by side.
    fn has_slices<T>(&self) -> bool {
        let align = align_of::<T>();
        (self.envs == 1 || self.env_stride == size_of::<T>() as isize)
            && (self.base as usize).is_multiple_of(align)
            && self.time_stride.unsigned_abs().is_multiple_of(align)
    }
}

/// Rows of equal width that lie `stride` bytes apart.
#[derive(Clone, Copy)]
pub struct Rows<'a, T> {
    layout: Layout,
    lifetime: PhantomData<&'a [T]>,
}

impl<'a, T> Rows<'a, T> {
    /// The rows of a buffer in which each takes `width` elements.
    pub fn of_buffer(buffer: &'a [T], width: usize) -> Self {
        Self {
            layout: buffer_layout(buffer.as_ptr(), buffer.len(), width),
            lifetime: PhantomData,
        }
    }

    /// Some of the rows.
    #[must_use]
    pub fn part(self, times: Range<usize>) -> Self {
        let envs = 0..self.layout.envs;
        Self {
            layout: self.layout.part(times, envs),
            ..self
        }
    }

    /// Row `time`.
    #[inline(always)]
    pub fn row(&self, time: usize) -> &'a [T] {
        assert!(time < self.layout.times);
        // SAFETY: the layout covers memory that may be read for 'a, its rows are slices of
        // aligned elements, and `time` is in range.
        unsafe { slice::from_raw_parts(self.layout.address(time, 0).cast(), self.layout.envs) }
    }
}

/// [`Rows`] to be written.
pub struct RowsMut<'a, T> {
    layout: Layout,
    lifetime: PhantomData<&'a mut [T]>,
}

impl<'a, T> RowsMut<'a, T> {
    /// The rows of a buffer in which each takes `width` elements.
    pub fn of_buffer(buffer: &'a mut [T], width: usize) -> Self {
        Self {
            layout: buffer_layout(buffer.as_ptr(), buffer.len(), width),
            lifetime: PhantomData,
        }
    }

    /// Some of the rows.
    #[must_use]
    pub fn part(self, times: Range<usize>) -> Self {
        let envs = 0..self.layout.envs;
        Self {
            layout: self.layout.part(times, envs),
            ..self
        }
    }

    /// Row `time`.
    #[inline(always)]
    pub fn row(&mut self, time: usize) -> &mut [T] {
        assert!(time < self.layout.times);
        // SAFETY: as in `Rows::row`; the memory is borrowed mutably for 'a, and the result
        // borrows `self`, so that one row exists at a time.
        unsafe { slice::from_raw_parts_mut(self.layout.address(time, 0).cast(), self.layout.envs) }
    }
}

fn buffer_layout<T>(base: *const T, length: usize, width: usize) -> Layout {
    Layout {
        base: base.cast_mut().cast(),
        time_stride: (width * size_of::<T>()) as isize,
        env_stride: size_of::<T>() as isize,
        times: length / width,
        envs: width,
    }
}

/// An input array.
#[derive(Clone, Copy)]
pub struct Source<V> {
    layout: Layout,
    element: PhantomData<V>,
}

// SAFETY: the memory is only read, and `Source::new` demands that nobody writes it meanwhile.
unsafe impl<V: Element> Send for Source<V> {}
// SAFETY: as above.
unsafe impl<V: Element> Sync for Source<V> {}

impl<V: Element> Source<V> {
    /// The array at `layout`.
    ///
    /// # Safety
    /// As long as the result or a copy of it is used, every element within the shape can be read
    /// as a `V`, aligned or not, and none is written.
    #[must_use]
    pub unsafe fn new(layout: Layout) -> Self {
        Self {
            layout,
            element: PhantomData,
        }
    }

    /// A part of the array.
    #[must_use]
    pub fn part(self, times: Range<usize>, envs: Range<usize>) -> Self {
        Self {
            layout: self.layout.part(times, envs),
            ..self
        }
    }

    /// See [`Layout::fold`].
    #[must_use]
    pub fn fold(self, length: usize) -> Self {
        Self {
            layout: self.layout.fold(length),
            ..self
        }
    }

    /// The array's own rows, where arithmetic can run on them as they lie.
    #[must_use]
    pub fn rows(&self) -> Option<Rows<'_, V::Real>> {
        (V::IS_REAL && self.layout.has_slices::<V>()).then_some(Rows {
            layout: self.layout,
            lifetime: PhantomData,
        })
    }

    /// Copy the rows `times`, widened, to the rows of a buffer of `envs` columns.
    #[inline(always)]
    pub fn load(&self, times: Range<usize>, buffer: &mut [V::Real]) {
        let part = self.layout.part(times, 0..self.layout.envs);
        let rows = buffer.chunks_exact_mut(part.envs.max(1));
        for (time, row) in rows.take(part.times).enumerate() {
            if part.has_slices::<V>() {
                // SAFETY: see `new`; `has_slices` vouches for alignment.
                let from =
                    unsafe { slice::from_raw_parts(part.address(time, 0).cast(), part.envs) };
                V::widen_slice(from, row);
            } else {
                for (env, slot) in row.iter_mut().enumerate() {
                    // SAFETY: see `new`.
                    let element: V =
                        unsafe { part.address(time, env).cast::<V>().read_unaligned() };
                    *slot = element.widen();
                }
            }
        }
    }
}

/// What a flag is made of: it is set when a bit of `mask` is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlagKind {
    Byte,
    Two { mask: u16 },
    Four { mask: u32 },
    Eight { mask: u64 },
}

/// An input array of flags.
#[derive(Clone, Copy)]
pub struct FlagSource {
    layout: Layout,
    kind: FlagKind,
}

// SAFETY: as for `Source`.
unsafe impl Send for FlagSource {}
// SAFETY: as for `Source`.
unsafe impl Sync for FlagSource {}

impl FlagSource {
    /// The array at `layout`.
    ///
    /// # Safety
    /// As for [`Source::new`], with elements of the size of `kind`.
    #[must_use]
    pub unsafe fn new(layout: Layout, kind: FlagKind) -> Self {
        Self { layout, kind }
    }

    /// A part of the array.
    #[must_use]
    pub fn part(self, times: Range<usize>, envs: Range<usize>) -> Self {
        Self {
            layout: self.layout.part(times, envs),
            ..self
        }
    }

    /// See [`Layout::fold`].
    #[must_use]
    pub fn fold(self, length: usize) -> Self {
        Self {
            layout: self.layout.fold(length),
            ..self
        }
    }

    /// The array's own rows, where they are bytes side by side.
    #[must_use]
    pub fn rows(&self) -> Option<Rows<'_, u8>> {
        (self.kind == FlagKind::Byte && self.layout.has_slices::<u8>()).then_some(Rows {
            layout: self.layout,
            lifetime: PhantomData,
        })
    }

    /// Copy the rows `times` as 0 and nonzero to the rows of a buffer of `envs` columns.
    #[inline(always)]
    pub fn load(&self, times: Range<usize>, buffer: &mut [u8]) {
        match self.kind {
            FlagKind::Byte => self.load_as(times, buffer, |flag: u8| flag),
            FlagKind::Two { mask } => {
                self.load_as(times, buffer, |flag: u16| u8::from(flag & mask != 0))
            }
            FlagKind::Four { mask } => {
                self.load_as(times, buffer, |flag: u32| u8::from(flag & mask != 0))
            }
            FlagKind::Eight { mask } => {
                self.load_as(times, buffer, |flag: u64| u8::from(flag & mask != 0));
            }
        }
    }

    #[inline(always)]
    fn load_as<T: Copy>(&self, times: Range<usize>, buffer: &mut [u8], test: impl Fn(T) -> u8) {
        let part = self.layout.part(times, 0..self.layout.envs);
        let rows = buffer.chunks_exact_mut(part.envs.max(1));
        for (time, row) in rows.take(part.times).enumerate() {
            for (env, slot) in row.iter_mut().enumerate() {
                // SAFETY: see `new`.
                *slot = test(unsafe { part.address(time, env).cast::<T>().read_unaligned() });
            }
        }
    }
}

/// An output array.
pub struct Sink<V> {
    layout: Layout,
    element: PhantomData<V>,
}

// SAFETY: a sink alone reaches its elements, see `Sink::new`.
unsafe impl<V: Element> Send for Sink<V> {}

impl<V: Element> Sink<V> {
    /// The array at `layout`.
    ///
    /// # Safety
    /// As long as the result or a part of it is used, every element within the shape can be
    /// written as a `V`, aligned or not, no two of them overlap, and nobody else reads or writes
    /// them.
    #[must_use]
    pub unsafe fn new(layout: Layout) -> Self {
        Self {
            layout,
            element: PhantomData,
        }
    }

    /// Cut off the columns below `envs`.
    #[must_use]
    pub fn take_envs(&mut self, envs: usize) -> Self {
        let Layout {
            times, envs: all, ..
        } = self.layout;
        let taken = self.layout.part(0..times, 0..envs);
        self.layout = self.layout.part(0..times, envs..all);
        Self {
            layout: taken,
            ..*self
        }
    }

    /// Cut off the rows from `time` on.
    #[must_use]
    pub fn take_times_from(&mut self, time: usize) -> Self {
        let Layout { times, envs, .. } = self.layout;
        let taken = self.layout.part(time..times, 0..envs);
        self.layout = self.layout.part(0..time, 0..envs);
        Self {
            layout: taken,
            ..*self
        }
    }

    /// See [`Layout::fold`].
    #[must_use]
    pub fn fold(self, length: usize) -> Self {
        Self {
            layout: self.layout.fold(length),
            ..self
        }
    }

    /// The array's own rows, where results can be written as they are formed.
    #[must_use]
    pub fn rows(&mut self) -> Option<RowsMut<'_, V::Real>> {
        (V::IS_REAL && self.layout.has_slices::<V>()).then_some(RowsMut {
            layout: self.layout,
            lifetime: PhantomData,
        })
    }

    /// Copy the rows of a buffer of `envs` columns, narrowed, to the rows `times`.
    #[inline(always)]
    pub fn store(&mut self, times: Range<usize>, buffer: &[V::Real]) {
        let part = self.layout.part(times, 0..self.layout.envs);
        let rows = buffer.chunks_exact(part.envs.max(1));
        for (time, row) in rows.take(part.times).enumerate() {
            if part.has_slices::<V>() {
                // SAFETY: see `new`; `has_slices` vouches for alignment.
                let to =
                    unsafe { slice::from_raw_parts_mut(part.address(time, 0).cast(), part.envs) };
                V::narrow_slice(row, to);
            } else {
                for (env, &real) in row.iter().enumerate() {
                    // SAFETY: see `new`.
                    unsafe {
                        part.address(time, env)
                            .cast::<V>()
                            .write_unaligned(V::narrow(real))
                    };
                }
            }
        }
    }
}
