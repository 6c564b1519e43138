//! Rows of an array as the walk wants them: as they lie in memory, or through a small buffer.

use std::ops::Range;

use super::element::Element;
use super::strided::{FlagSource, Rows, RowsMut, Sink, Source};

/// Rows of an input.
pub struct Feed<V: Element> {
    source: Source<V>,
    buffer: Vec<V::Real>,
}

impl<V: Element> Feed<V> {
    /// `length` elements are buffered at a time unless the rows can be used in place.
    pub fn new(source: Source<V>, length: usize) -> Self {
        let length = if source.rows().is_some() { 0 } else { length };
        Self {
            source,
            buffer: vec![V::Real::default(); length],
        }
    }

    #[inline(always)]
    pub fn rows(&mut self, times: Range<usize>, width: usize) -> Rows<'_, V::Real> {
        match self.source.rows() {
            Some(rows) => rows.part(times),
            None => {
                self.source.load(times, &mut self.buffer);
                Rows::of_buffer(&self.buffer, width)
            }
        }
    }
}

/// Rows of flags.
pub struct FlagFeed {
    source: FlagSource,
    buffer: Vec<u8>,
}

impl FlagFeed {
    /// See [`Feed::new`].
    pub fn new(source: FlagSource, length: usize) -> Self {
        let length = if source.rows().is_some() { 0 } else { length };
        Self {
            source,
            buffer: vec![0; length],
        }
    }

    #[inline(always)]
    pub fn rows(&mut self, times: Range<usize>, width: usize) -> Rows<'_, u8> {
        match self.source.rows() {
            Some(rows) => rows.part(times),
            None => {
                self.source.load(times, &mut self.buffer);
                Rows::of_buffer(&self.buffer, width)
            }
        }
    }
}

/// Rows of an output.
pub struct Drain<V: Element> {
    sink: Sink<V>,
    buffer: Vec<V::Real>,
}

impl<V: Element> Drain<V> {
    /// See [`Feed::new`].
    pub fn new(mut sink: Sink<V>, length: usize) -> Self {
        let length = if sink.rows().is_some() { 0 } else { length };
        Self {
            sink,
            buffer: vec![V::Real::default(); length],
        }
    }

    /// Rows to be written and then passed on by [`Drain::flush`].
    #[inline(always)]
    pub fn rows(&mut self, times: Range<usize>, width: usize) -> RowsMut<'_, V::Real> {
        match self.sink.rows() {
            Some(rows) => rows.part(times),
            None => RowsMut::of_buffer(&mut self.buffer, width),
        }
    }

    #[inline(always)]
    pub fn flush(&mut self, times: Range<usize>) {
        if !self.buffer.is_empty() {
            self.sink.store(times, &self.buffer);
        }
    }
}
