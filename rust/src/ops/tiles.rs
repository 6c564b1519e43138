//! Rows of an array as the walks want them: as they lie in memory, or through a small buffer.

use super::element::Real;
use super::strided::{FlagSource, Rows, RowsMut, Sink, Source};

/// Rows of inputs.
pub struct Feed<R> {
    buffer: Vec<R>,
}

impl<R: Real> Feed<R> {
    pub fn new() -> Self {
        Self { buffer: Vec::new() }
    }

    #[inline(always)]
    pub fn rows<'a>(&'a mut self, source: &'a Source<R>) -> Rows<'a, R> {
        match source.rows() {
            Some(rows) => rows,
            None => self.changed_rows(source, |_| ()),
        }
    }

    /// Rows of a copy that `change` was applied to.
    #[inline(always)]
    pub fn changed_rows<'a>(
        &'a mut self,
        source: &'a Source<R>,
        change: impl FnOnce(&mut [R]),
    ) -> Rows<'a, R> {
        let buffer = first(&mut self.buffer, source.len());
        source.load(buffer);
        change(buffer);
        Rows::of_buffer(buffer, source.lanes())
    }
}

/// Rows of flags.
pub struct FlagFeed {
    buffer: Vec<u8>,
}

impl FlagFeed {
    pub fn new() -> Self {
        Self { buffer: Vec::new() }
    }

    #[inline(always)]
    pub fn rows<'a>(&'a mut self, source: &'a FlagSource) -> Rows<'a, u8> {
        match source.rows() {
            Some(rows) => rows,
            None => self.changed_rows(source, |_| ()),
        }
    }

    /// Rows of a copy that `change` was applied to.
    #[inline(always)]
    pub fn changed_rows<'a>(
        &'a mut self,
        source: &'a FlagSource,
        change: impl FnOnce(&mut [u8]),
    ) -> Rows<'a, u8> {
        let buffer = first(&mut self.buffer, source.len());
        source.load(buffer);
        change(buffer);
        Rows::of_buffer(buffer, source.lanes())
    }
}

/// Rows of outputs.
pub struct Drain<R> {
    buffer: Vec<R>,
}

impl<R: Real> Drain<R> {
    pub fn new() -> Self {
        Self { buffer: Vec::new() }
    }

    /// Rows to be written and then passed on by [`Drain::flush`].
    #[inline(always)]
    pub fn rows<'a>(&'a mut self, sink: &'a mut Sink<'_, R>) -> RowsMut<'a, R> {
        let (length, width) = (sink.len(), sink.lanes());
        match sink.rows() {
            Some(rows) => rows,
            None => RowsMut::of_buffer(first(&mut self.buffer, length), width),
        }
    }

    #[inline(always)]
    pub fn flush(&self, sink: &mut Sink<'_, R>) {
        if sink.rows().is_none() {
            sink.store(&self.buffer[..sink.len()]);
        }
    }
}

/// The first elements of a buffer that grows as needed.
fn first<T: Copy + Default>(buffer: &mut Vec<T>, length: usize) -> &mut [T] {
    if buffer.len() < length {
        buffer.resize(length, T::default());
    }
    &mut buffer[..length]
}
