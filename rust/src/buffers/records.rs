//! Records of equal size in one piece of memory.
//!
//! What a sample takes from a transition lies together: a record at a random place costs two or
//! three cache lines, one column for each field would cost one or two lines for each of them.

#![allow(unsafe_code)]

use std::marker::PhantomData;
use std::ptr;

use super::gather::{BLOCK, Slots, copy_rows, fetch};
use super::raw::{Plain, bytes_of_mut};
use super::table::Table;

/// Records begin at multiples of this.
const ALIGNMENT: usize = 4;

/// Bytes at the same place of every record.
#[derive(Clone, Copy, Debug)]
pub(super) struct Field {
    offset: usize,
    pub(super) width: usize,
}

/// What records consist of.
#[derive(Default)]
pub(super) struct Fields {
    bytes: usize,
}

impl Field {
    /// From the beginning of this field to the end of another one.
    pub(super) fn through(self, last: Self) -> Self {
        Self {
            offset: self.offset,
            width: last.offset + last.width - self.offset,
        }
    }
}

impl Fields {
    /// One field more.
    pub(super) fn add(&mut self, width: usize) -> Field {
        let offset = self.bytes;
        self.bytes += width;
        Field { offset, width }
    }
}

/// Zero at first.
pub(super) struct Records {
    table: Table,
}

impl Records {
    /// # Panics
    /// If the size is not addressable or there is no memory.
    pub(super) fn new(count: usize, fields: &Fields) -> Self {
        let stride = fields.bytes.next_multiple_of(ALIGNMENT);
        Self {
            table: Table::new(count, stride),
        }
    }

    #[inline]
    pub(super) fn get(&self, field: Field, slot: u32) -> &[u8] {
        &self.table.row(slot)[field.offset..][..field.width]
    }

    #[inline]
    pub(super) fn get_mut(&mut self, field: Field, slot: usize) -> &mut [u8] {
        &mut self.table.row_mut(slot)[field.offset..][..field.width]
    }

    /// What a field of four bytes holds in each slot.
    ///
    /// # Panics
    /// If there is no such slot.
    pub(super) fn numbers(&self, field: Field) -> impl Fn(u32) -> f32 {
        let (bytes, stride) = (self.table.bytes(), self.table.width());
        move |slot| {
            let number = bytes[slot as usize * stride + field.offset..].first_chunk();
            f32::from_ne_bytes(*number.expect("a number"))
        }
    }

    /// A field of the first `count` records.
    pub(super) fn first(&self, field: Field, count: usize) -> Vec<u8> {
        let mut values = Vec::with_capacity(count * field.width);
        for slot in 0..count as u32 {
            values.extend_from_slice(self.get(field, slot));
        }
        values
    }

    /// Write a field of consecutive records from `slot` on, and what does not fit there from the
    /// first one on.
    ///
    /// # Panics
    /// If there are more values than records.
    pub(super) fn write(&mut self, field: Field, slot: usize, values: &[u8]) {
        let count = values.len() / field.width;
        let here = count.min(self.table.rows() - slot);
        let (first, wrapped) = values.split_at(here * field.width);
        self.write_run(field, slot, first);
        self.write_run(field, 0, wrapped);
    }

    fn write_run(&mut self, field: Field, slot: usize, values: &[u8]) {
        let (stride, count) = (self.table.width(), values.len() / field.width);
        let records = &mut self.table.bytes_mut()[slot * stride..][..count * stride];
        assert!(field.offset + field.width <= stride, "a field");
        let to = records.as_mut_ptr().wrapping_add(field.offset);
        let from = |i: usize| values.as_ptr().wrapping_add(i * field.width);
        // SAFETY: there are as many values and records, and the field lies within them.
        unsafe { copy_rows(count, field.width, from, |i| to.wrapping_add(i * stride)) };
    }

    /// Write zeros in the same way.
    pub(super) fn clear(&mut self, field: Field, slot: usize, count: usize) {
        let capacity = self.table.rows();
        for i in slot..slot + count {
            self.get_mut(field, i % capacity).fill(0);
        }
    }

    /// Ask for `span` of the records at `slots`, at most a block of them.
    ///
    /// # Panics
    /// If there may be no such record.
    pub(super) fn fetch<'a>(&'a self, span: Field, slots: Slots, fetched: &mut Fetched<'a>) {
        let (first, stride) = (self.table.bytes().as_ptr(), self.table.width());
        slots.check(self.table.rows());
        for (i, place) in fetched.places[..slots.len()].iter_mut().enumerate() {
            *place = first.wrapping_add(slots.at(i) * stride);
            fetch(place.wrapping_add(span.offset), span.width);
        }
        fetched.count = slots.len();
        fetched.stride = stride;
    }
}

/// Records that have been asked for; at first none.
pub(super) struct Fetched<'a> {
    places: [*const u8; BLOCK],
    count: usize,
    stride: usize,
    records: PhantomData<&'a Records>,
}

impl Fetched<'_> {
    pub(super) fn new() -> Self {
        Self {
            places: [ptr::null(); BLOCK],
            count: 0,
            stride: 0,
            records: PhantomData,
        }
    }

    /// Write a field of each of them to `out`, one after the other.
    ///
    /// # Panics
    /// If `out` has room for another number of them.
    pub(super) fn copy<T: Plain>(&self, field: Field, out: &mut [T]) {
        let (out, width) = (bytes_of_mut(out), field.width);
        assert!(field.offset + width <= self.stride, "a field");
        assert_eq!(out.len(), self.count * width, "room for the rows");
        let to = out.as_mut_ptr();
        // SAFETY: no more are asked for than there are, and all are whole records.
        let from = |i: usize| unsafe { self.places.get_unchecked(i).add(field.offset) };
        // SAFETY: there is room for all of them.
        unsafe { copy_rows(self.count, width, from, |i| to.wrapping_add(i * width)) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_wrap_around_and_leave_the_others_alone() {
        let mut fields = Fields::default();
        let (first, second, third) = (fields.add(3), fields.add(1), fields.add(2));
        let mut records = Records::new(5, &fields);
        assert_eq!(records.table.width(), 8);
        records.write(first, 3, b"aaabbbcccddd");
        records.write(third, 0, b"1122334455");
        records.get_mut(second, 4)[0] = b'!';
        assert_eq!(records.first(first, 5), b"cccddd\0\0\0aaabbb");
        records.clear(first, 4, 2);
        assert_eq!(records.first(first, 5), b"\0\0\0ddd\0\0\0aaa\0\0\0");
        assert_eq!(records.first(second, 5), b"\0\0\0\0!");
        assert_eq!(records.get(third, 1), b"22");
        let mut out = [9; 6];
        let slots = [3, 1];
        let mut fetched = Fetched::new();
        let whole = first.through(third);
        assert_eq!((whole.offset, whole.width), (0, 6));
        records.fetch(whole, Slots::new(&slots, 4), &mut fetched);
        fetched.copy(first, &mut out);
        assert_eq!(&out, b"aaaddd");
        fetched.copy(third, &mut out[..4]);
        assert_eq!(&out[..4], b"4422");
    }

    #[test]
    #[should_panic(expected = "rows for the slots")]
    fn slots_that_may_not_exist_are_refused() {
        let mut fields = Fields::default();
        let field = fields.add(4);
        let records = Records::new(5, &fields);
        records.fetch(field, Slots::new(&[1], 6), &mut Fetched::new());
    }
}
