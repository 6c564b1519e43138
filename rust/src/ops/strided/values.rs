//! Arrays of numbers, in and out.

use std::marker::PhantomData;
use std::ops::Range;
use std::slice;

use super::rows::buffer_layout;
use super::{Layout, Rows, RowsMut};
use crate::ops::element::{Element, Real};

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
