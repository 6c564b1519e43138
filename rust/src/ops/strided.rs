//! Arrays in foreign memory with any strides: the one place that reads and writes raw addresses.
//!
//! Whoever builds a [`Source`], [`FlagSource`] or [`Sink`] vouches for the memory; from then on all
//! access is checked against the shape, and two sinks never reach the same element.

#![allow(unsafe_code)]

use std::marker::PhantomData;
use std::ops::Range;
use std::ptr;
use std::slice;

use super::element::{Element, Real};
use super::registers::{self, Arch, Task};

/// Where the elements of an array `[rows, lanes]` lie: address and strides in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    pub base: *mut u8,
    pub row_stride: isize,
    pub lane_stride: isize,
    pub rows: usize,
    pub lanes: usize,
}

impl Layout {
    #[inline]
    fn part(self, rows: Range<usize>, lanes: Range<usize>) -> Self {
        assert!(rows.start <= rows.end && rows.end <= self.rows);
        assert!(lanes.start <= lanes.end && lanes.end <= self.lanes);
        Self {
            base: self.address(rows.start, lanes.start),
            rows: rows.len(),
            lanes: lanes.len(),
            ..self
        }
    }

    /// One number in all places.
    pub fn constant<T>(number: &T, rows: usize, lanes: usize) -> Self {
        Self {
            base: ptr::from_ref(number).cast_mut().cast(),
            row_stride: 0,
            lane_stride: 0,
            rows,
            lanes,
        }
    }

    /// The last row first.
    pub fn reversed(self) -> Self {
        Self {
            base: self.address(self.rows.max(1) - 1, 0),
            row_stride: -self.row_stride,
            ..self
        }
    }

    pub fn transposed(self) -> Self {
        Self {
            row_stride: self.lane_stride,
            lane_stride: self.row_stride,
            rows: self.lanes,
            lanes: self.rows,
            ..self
        }
    }

    /// Whether two elements of `size` bytes may share memory; true also for some strange strides
    /// with which none do.
    pub fn overlaps_itself(&self, size: isize) -> bool {
        let mut axes = [(self.row_stride, self.rows), (self.lane_stride, self.lanes)]
            .map(|(stride, count)| (stride.abs(), count as isize));
        axes.sort_unstable();
        let mut extent = size;
        for (stride, count) in axes.into_iter().filter(|&(_, count)| count != 1) {
            if count > 0 && stride < extent {
                return true;
            }
            extent += stride * (count - 1);
        }
        false
    }

    /// The addresses from the first byte of any element to behind the last one of any.
    pub fn span(&self, size: isize) -> Range<isize> {
        let (mut start, mut end) = (self.base as isize, self.base as isize + size);
        for (stride, count) in [(self.row_stride, self.rows), (self.lane_stride, self.lanes)] {
            let reach = stride * (count as isize - 1).max(0);
            start += reach.min(0);
            end += reach.max(0);
        }
        start..end
    }

    /// Where an element lies.
    #[inline(always)]
    pub fn address(&self, row: usize, lane: usize) -> *mut u8 {
        let offset = row as isize * self.row_stride + lane as isize * self.lane_stride;
        self.base.wrapping_offset(offset)
    }

    /// Whether the elements of a row, of `size` bytes, lie side by side.
    #[inline(always)]
    fn is_dense(&self, size: usize) -> bool {
        self.lanes <= 1 || self.lane_stride == size as isize
    }

    /// Whether each row of dense elements of `size` bytes starts where the one before ends.
    #[inline(always)]
    fn is_flat(&self, size: usize) -> bool {
        self.rows <= 1 || self.row_stride == (self.lanes * size) as isize
    }

    /// Whether every row can be used as a slice of elements of `size` bytes.
    #[inline(always)]
    fn has_slices(&self, size: usize, align: usize) -> bool {
        self.is_dense(size)
            && (self.base as usize).is_multiple_of(align)
            && (self.rows <= 1 || self.row_stride.unsigned_abs().is_multiple_of(align))
    }
}

/// Rows that can be read as slices.
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

    #[inline(always)]
    pub fn row(&self, row: usize) -> &'a [T] {
        assert!(row < self.layout.rows);
        // SAFETY: the layout covers memory that may be read for 'a, its rows are slices of
        // aligned elements, and `row` is in range.
        unsafe { slice::from_raw_parts(self.layout.address(row, 0).cast(), self.layout.lanes) }
    }
}

impl<'a, T> Rows<'a, T> {
    /// All elements, where one row follows the other.
    #[inline(always)]
    pub fn flat(&self) -> Option<&'a [T]> {
        let Layout { rows, lanes, .. } = self.layout;
        // SAFETY: as in `row`, and nothing lies between the rows.
        self.layout.is_flat(size_of::<T>()).then(|| unsafe {
            slice::from_raw_parts(self.layout.address(0, 0).cast(), rows * lanes)
        })
    }
}

/// Rows that can be written as slices.
pub struct RowsMut<'a, T> {
    layout: Layout,
    lifetime: PhantomData<&'a mut [T]>,
}

impl<'a, T> RowsMut<'a, T> {
    /// The rows of a buffer in which each takes `width` elements.
    pub fn of_buffer(buffer: &'a mut [T], width: usize) -> Self {
        Self {
            layout: buffer_layout(buffer.as_mut_ptr(), buffer.len(), width),
            lifetime: PhantomData,
        }
    }

    #[inline(always)]
    pub fn row(&mut self, row: usize) -> &mut [T] {
        assert!(row < self.layout.rows);
        // SAFETY: as in `Rows::row`; the memory is borrowed mutably for 'a, and the result
        // borrows `self`, so that one row exists at a time.
        unsafe { slice::from_raw_parts_mut(self.layout.address(row, 0).cast(), self.layout.lanes) }
    }
}

impl<T> RowsMut<'_, T> {
    /// All elements, where one row follows the other.
    #[inline(always)]
    pub fn flat(&mut self) -> Option<&mut [T]> {
        let Layout { rows, lanes, .. } = self.layout;
        // SAFETY: as in `row`, and nothing lies between the rows.
        self.layout.is_flat(size_of::<T>()).then(|| unsafe {
            slice::from_raw_parts_mut(self.layout.address(0, 0).cast(), rows * lanes)
        })
    }
}

fn buffer_layout<T>(base: *const T, length: usize, width: usize) -> Layout {
    Layout {
        base: base.cast_mut().cast(),
        row_stride: (width * size_of::<T>()) as isize,
        lane_stride: size_of::<T>() as isize,
        rows: length / width,
        lanes: width,
    }
}

/// How elements are stored that arithmetic sees as `R`.
///
/// The walks know `R` alone and reach stored types through these two functions, so that they are
/// compiled once for all types that share an `R`.
struct Format<R> {
    size: usize,
    align: usize,
    /// Whether elements are stored as `R` itself.
    is_real: bool,
    load: unsafe fn(&Layout, &mut [R]),
    store: unsafe fn(&Layout, &[R]),
}

impl<R: Real> Format<R> {
    /// Whether arithmetic can run on the rows as they lie.
    #[inline(always)]
    fn is_usable(&self, layout: &Layout) -> bool {
        self.is_real && layout.has_slices(self.size, self.align)
    }
}

trait Stored: Element {
    const FORMAT: &'static Format<Self::Real>;
}

impl<V: Element> Stored for V {
    const FORMAT: &'static Format<V::Real> = &Format {
        size: size_of::<V>(),
        align: align_of::<V>(),
        is_real: V::IS_REAL,
        load: load::<V>,
        store: store::<V>,
    };
}

/// Copy all elements, widened, row by row.
///
/// # Safety
/// Every element within the shape can be read as a `V`, aligned or not.
unsafe fn load<V: Element>(layout: &Layout, buffer: &mut [V::Real]) {
    for (row, to) in buffer.chunks_exact_mut(layout.lanes.max(1)).enumerate() {
        assert!(row < layout.rows);
        if layout.has_slices(size_of::<V>(), align_of::<V>()) {
            // SAFETY: the elements can be read; they are side by side and aligned.
            let from = unsafe { slice::from_raw_parts(layout.address(row, 0).cast(), to.len()) };
            V::widen_slice(from, to);
        } else if layout.lane_stride == 0 {
            // SAFETY: the caller's.
            let element: V = unsafe { layout.address(row, 0).cast::<V>().read_unaligned() };
            to.fill(element.widen());
        } else {
            for (lane, slot) in to.iter_mut().enumerate() {
                // SAFETY: the caller's.
                let element: V = unsafe { layout.address(row, lane).cast::<V>().read_unaligned() };
                *slot = element.widen();
            }
        }
    }
}

/// Copy a buffer, narrowed, to all elements, row by row.
///
/// # Safety
/// Every element within the shape can be written as a `V`, aligned or not, by nobody else.
unsafe fn store<V: Element>(layout: &Layout, buffer: &[V::Real]) {
    for (row, from) in buffer.chunks_exact(layout.lanes.max(1)).enumerate() {
        assert!(row < layout.rows);
        if layout.has_slices(size_of::<V>(), align_of::<V>()) {
            // SAFETY: the elements can be written; they are side by side and aligned.
            let to =
                unsafe { slice::from_raw_parts_mut(layout.address(row, 0).cast(), from.len()) };
            V::narrow_slice(from, to);
        } else {
            for (lane, &real) in from.iter().enumerate() {
                // SAFETY: the caller's.
                unsafe {
                    layout
                        .address(row, lane)
                        .cast::<V>()
                        .write_unaligned(V::narrow(real));
                }
            }
        }
    }
}

/// An input array.
#[derive(Clone, Copy)]
pub struct Source<R: Real> {
    layout: Layout,
    format: &'static Format<R>,
}

// SAFETY: the memory is only read, and `Source::new` demands that nobody writes it meanwhile.
unsafe impl<R: Real> Send for Source<R> {}
// SAFETY: as above.
unsafe impl<R: Real> Sync for Source<R> {}

impl<R: Real> Source<R> {
    /// The array of `V` at `layout`.
    ///
    /// # Safety
    /// As long as the result or a copy of it is used, every element within the shape can be read
    /// as a `V`, aligned or not, and none is written.
    pub unsafe fn new<V: Element<Real = R>>(layout: Layout) -> Self {
        Self {
            layout,
            format: V::FORMAT,
        }
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

    /// Each `by` rows as one, where they lie side by side; rows too few for that are left out.
    pub fn folded(self, by: usize) -> Option<Self> {
        let (layout, size) = (self.layout, self.format.size);
        (layout.is_dense(size) && layout.is_flat(size)).then(|| Self {
            layout: Layout {
                row_stride: (layout.lanes * by * size) as isize,
                lane_stride: size as isize,
                rows: layout.rows / by,
                lanes: layout.lanes * by,
                ..layout
            },
            ..self
        })
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.layout.rows * self.layout.lanes
    }

    pub fn lanes(&self) -> usize {
        self.layout.lanes
    }

    /// Whether the elements of a row lie side by side.
    pub fn is_dense(&self) -> bool {
        self.layout.is_dense(self.format.size)
    }

    /// The array's own rows, where arithmetic can run on them as they lie.
    #[inline(always)]
    pub fn rows(&self) -> Option<Rows<'_, R>> {
        self.format.is_usable(&self.layout).then_some(Rows {
            layout: self.layout,
            lifetime: PhantomData,
        })
    }

    /// Copy all elements, widened, row by row.
    pub fn load(&self, buffer: &mut [R]) {
        // SAFETY: see `new`.
        unsafe { (self.format.load)(&self.layout, buffer) }
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

/// An output array.
pub struct Sink<'a, R: Real> {
    layout: Layout,
    format: &'static Format<R>,
    lifetime: PhantomData<&'a mut R>,
}

// SAFETY: a sink alone reaches its elements, see `Sink::new`.
unsafe impl<R: Real> Send for Sink<'_, R> {}

impl<R: Real> Sink<'_, R> {
    /// The array of `V` at `layout`.
    ///
    /// # Safety
    /// As long as the result or a part of it is used, every element within the shape can be
    /// written as a `V`, aligned or not, no two of them overlap, and nobody else reads or writes
    /// them.
    pub unsafe fn new<V: Element<Real = R>>(layout: Layout) -> Self {
        Self {
            layout,
            format: V::FORMAT,
            lifetime: PhantomData,
        }
    }

    /// A buffer in which each row takes `width` elements.
    pub fn of_buffer(buffer: &mut [R], width: usize) -> Sink<'_, R> {
        Sink {
            layout: buffer_layout(buffer.as_mut_ptr(), buffer.len(), width),
            format: R::FORMAT,
            lifetime: PhantomData,
        }
    }

    #[inline]
    pub fn part(&mut self, rows: Range<usize>, lanes: Range<usize>) -> Sink<'_, R> {
        Sink {
            layout: self.layout.part(rows, lanes),
            format: self.format,
            lifetime: PhantomData,
        }
    }

    /// Cut off the first rows.
    pub fn take_rows(&mut self, count: usize) -> Self {
        let Layout { rows, lanes, .. } = self.layout;
        let taken = self.layout.part(0..count, 0..lanes);
        self.layout = self.layout.part(count..rows, 0..lanes);
        Self {
            layout: taken,
            format: self.format,
            lifetime: PhantomData,
        }
    }

    /// Cut off the first lanes.
    pub fn take_lanes(&mut self, count: usize) -> Self {
        let Layout { rows, lanes, .. } = self.layout;
        let taken = self.layout.part(0..rows, 0..count);
        self.layout = self.layout.part(0..rows, count..lanes);
        Self {
            layout: taken,
            format: self.format,
            lifetime: PhantomData,
        }
    }

    pub fn transposed(self) -> Self {
        Self {
            layout: self.layout.transposed(),
            ..self
        }
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.layout.rows * self.layout.lanes
    }

    pub fn lanes(&self) -> usize {
        self.layout.lanes
    }

    /// The array's own rows, where results can be written as they are formed.
    #[inline(always)]
    pub fn rows(&mut self) -> Option<RowsMut<'_, R>> {
        self.format.is_usable(&self.layout).then_some(RowsMut {
            layout: self.layout,
            lifetime: PhantomData,
        })
    }

    /// Copy a buffer, narrowed, to all elements, row by row.
    pub fn store(&mut self, buffer: &[R]) {
        // SAFETY: see `new`.
        unsafe { (self.format.store)(&self.layout, buffer) }
    }
}
