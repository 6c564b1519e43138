//! The whole contents of a buffer as named runs of bytes, to be kept in a file.

use std::borrow::Cow;

use super::NONE;
use super::column::Column;
use super::priorities::Priorities;
use super::raw::{Plain, bytes_of, bytes_of_mut};
use super::replay::{Part, Replay};
use super::tree::Tree;

/// A name and its bytes.
pub type Section<'a> = (String, Cow<'a, [u8]>);

/// Finds the bytes of a name.
pub type Sections<'a> = &'a dyn Fn(&str) -> Option<&'a [u8]>;

fn wanted<'a>(sections: Sections<'a>, name: &str) -> Result<&'a [u8], String> {
    sections(name).ok_or_else(|| format!("{name} is missing"))
}

/// Fill numbers with the bytes of a section of just that size.
pub(super) fn fill<T: Plain>(
    sections: Sections,
    name: &str,
    numbers: &mut [T],
) -> Result<(), String> {
    let (from, to) = (wanted(sections, name)?, bytes_of_mut(numbers));
    if from.len() != to.len() {
        return Err(format!(
            "{name} has {} bytes, expected {}",
            from.len(),
            to.len()
        ));
    }
    to.copy_from_slice(from);
    Ok(())
}

pub(super) fn section<T: Plain>(name: impl Into<String>, numbers: &[T]) -> Section<'_> {
    (name.into(), Cow::Borrowed(bytes_of(numbers)))
}

pub(super) fn owned<T: Plain>(name: impl Into<String>, numbers: &[T]) -> Section<'static> {
    (name.into(), Cow::Owned(bytes_of(numbers).to_vec()))
}

fn rows(column: &Column, len: usize) -> &[u8] {
    &column.bytes()[..len * column.width()]
}

fn fill_rows(
    sections: Sections,
    name: &str,
    column: &mut Column,
    len: usize,
) -> Result<(), String> {
    let bytes = len * column.width();
    fill(sections, name, &mut column.bytes_mut()[..bytes])
}

impl Replay {
    /// What [`Replay::restore`] needs.
    #[must_use]
    pub fn sections(&self) -> Vec<Section<'_>> {
        let len = self.len;
        let mut all = vec![
            owned("pushed", &[self.pushed]),
            section("actions", rows(&self.actions, len)),
            section("rewards", &self.rewards[..len]),
            section("flags", &self.flags[..len]),
        ];
        for (at, part) in self.parts.iter().enumerate() {
            match part {
                Part::Twice { obs, next } => {
                    all.push(section(format!("obs.{at}"), rows(obs, len)));
                    all.push(section(format!("next_obs.{at}"), rows(next, len)));
                }
                Part::Once(frames) => frames.sections(at, len, &mut all),
            }
        }
        self.links.sections(len, &mut all);
        all
    }

    /// Take over the contents of a buffer of the same layout.
    ///
    /// # Errors
    /// If something is missing or does not fit; the buffer is empty then.
    pub fn restore(&mut self, sections: Sections) -> Result<(), String> {
        self.clear();
        let done = self.fill(sections);
        if done.is_err() {
            self.clear();
        }
        done
    }

    fn fill(&mut self, sections: Sections) -> Result<(), String> {
        let mut pushed = [0_u64];
        fill(sections, "pushed", &mut pushed)?;
        let capacity = self.layout.capacity as u64;
        let len = pushed[0].min(capacity) as usize;
        fill_rows(sections, "actions", &mut self.actions, len)?;
        fill(sections, "rewards", &mut self.rewards[..len])?;
        fill(sections, "flags", &mut self.flags[..len])?;
        for (at, part) in self.parts.iter_mut().enumerate() {
            match part {
                Part::Twice { obs, next } => {
                    fill_rows(sections, &format!("obs.{at}"), obs, len)?;
                    fill_rows(sections, &format!("next_obs.{at}"), next, len)?;
                }
                Part::Once(frames) => frames.restore(at, len, sections)?,
            }
        }
        self.links.restore(len, pushed[0], sections)?;
        self.pushed = pushed[0];
        self.len = len;
        self.head = (pushed[0] % capacity) as usize;
        Ok(())
    }
}

impl Priorities {
    /// The weights of the first `len` slots and the largest so far.
    #[must_use]
    pub fn sections(&self, len: usize) -> [Section<'static>; 2] {
        let weights: Vec<f64> = (0..len as u32).map(|i| self.tree.weight(i)).collect();
        [
            owned("weights", &weights),
            owned("largest", &[self.largest]),
        ]
    }

    /// Take over weights.
    ///
    /// # Errors
    /// If something is missing or does not fit.
    pub fn restore(&mut self, len: usize, sections: Sections) -> Result<(), String> {
        let mut weights = vec![0.0; len];
        let mut largest = [0.0];
        fill(sections, "weights", &mut weights)?;
        fill(sections, "largest", &mut largest)?;
        if let Some(bad) = weights
            .iter()
            .chain(&largest)
            .find(|x| !(0.0..=1e290).contains(*x))
        {
            return Err(format!("weights hold {bad}"));
        }
        self.clear();
        let slots: Vec<u32> = (0..len as u32).collect();
        Tree::set_all(&mut self.tree, &slots, weights.into_iter());
        self.largest = largest[0];
        Ok(())
    }
}

/// Whether all are numbers below `stop`, or none where that is allowed.
pub(super) fn check_below(
    name: &str,
    mut numbers: impl Iterator<Item = u32>,
    stop: usize,
    none: bool,
) -> Result<(), String> {
    let bad = numbers.find(|&x| x as usize >= stop && !(none && x == NONE));
    bad.map_or(Ok(()), |bad| {
        Err(format!("{name} holds {bad}, expected numbers below {stop}"))
    })
}
