//! Arrays of flags.

use std::marker::PhantomData;
use std::ops::Range;

use super::{Layout, Rows};
use crate::ops::registers::{self, Arch, Task};

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
    pub unsafe fn new(layout: Layout, kind: FlagKind) -> Self {
        Self { layout, kind }
    }

    #[inline]
    pub fn part(self, rows: Range<usize>, lanes: Range<usize>) -> Self {
        Self {
            layout: self.layout.part(rows, lanes),
            ..self
        }
    }

    pub fn transposed(self) -> Self {
        Self {
            layout: self.layout.transposed(),
            ..self
        }
    }

    /// Number of flags.
    pub fn len(&self) -> usize {
        self.layout.rows * self.layout.lanes
    }

    pub fn lanes(&self) -> usize {
        self.layout.lanes
    }

    /// The array's own rows, where they are bytes side by side.
    #[inline(always)]
    pub fn rows(&self) -> Option<Rows<'_, u8>> {
        (self.kind == FlagKind::Byte && self.layout.has_slices(1, 1)).then_some(Rows {
            layout: self.layout,
            lifetime: PhantomData,
        })
    }

    /// Copy all flags as 0 and nonzero, row by row.
    pub fn load(&self, buffer: &mut [u8]) {
        registers::run(LoadFlags {
            source: self,
            buffer,
        });
    }

    #[inline(always)]
    fn load_here(&self, buffer: &mut [u8]) {
        match self.kind {
            FlagKind::Byte => self.load_as(buffer, |flag: u8| flag),
            FlagKind::Two { mask } => self.load_as(buffer, |flag: u16| u8::from(flag & mask != 0)),
            FlagKind::Four { mask } => self.load_as(buffer, |flag: u32| u8::from(flag & mask != 0)),
            FlagKind::Eight { mask } => {
                self.load_as(buffer, |flag: u64| u8::from(flag & mask != 0));
            }
        }
    }

    #[inline(always)]
    fn load_as<T: Copy>(&self, buffer: &mut [u8], test: impl Fn(T) -> u8) {
        let layout = self.layout;
        for (row, to) in buffer.chunks_exact_mut(layout.lanes.max(1)).enumerate() {
            assert!(row < layout.rows);
            let from = layout.address(row, 0).cast::<T>();
            // The same loop twice: with a stride known to be one element it becomes vector code.
            if layout.is_dense(size_of::<T>()) {
                for (lane, slot) in to.iter_mut().enumerate() {
                    // SAFETY: see `new`.
                    *slot = test(unsafe { from.add(lane).read_unaligned() });
                }
            } else if layout.lane_stride == 0 {
                // SAFETY: see `new`.
                to.fill(test(unsafe { from.read_unaligned() }));
            } else {
                for (lane, slot) in to.iter_mut().enumerate() {
                    // SAFETY: see `new`.
                    *slot = test(unsafe { layout.address(row, lane).cast::<T>().read_unaligned() });
                }
            }
        }
    }
}

/// A task of its own, compiled once per instruction set and not once per walk.
struct LoadFlags<'a> {
    source: &'a FlagSource,
    buffer: &'a mut [u8],
}

impl Task for LoadFlags<'_> {
    #[inline(always)]
    fn run<A: Arch>(self) {
        self.source.load_here(self.buffer);
    }
}
