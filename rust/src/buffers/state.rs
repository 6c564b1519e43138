//! The whole contents of a buffer as named runs of bytes, to be kept in a file.

use std::borrow::Cow;

use super::NONE;
use super::priorities::Priorities;
use super::raw::{Plain, bytes_of, bytes_of_mut};
use super::records::Field;
use super::replay::{Part, Replay};
use super::tree::Tree;

/// A name and its bytes.
pub type Section<'a> = (String, Cow<'a, [u8]>);

/// Finds the bytes of a name.
pub type Sections<'a> = &'a dyn Fn(&str) -> Option<&'a [u8]>;

/// A section of just that size.
fn wanted<'a>(sections: Sections<'a>, name: &str, bytes: usize) -> Result<&'a [u8], String> {
    let found = sections(name).ok_or_else(|| format!("{name} is missing"))?;
    if found.len() != bytes {
        return Err(format!(
            "{name} has {} bytes, expected {bytes}",
            found.len()
        ));
    }
    Ok(found)
}

/// Fill numbers with the bytes of a section.
pub(super) fn fill<T: Plain>(
    sections: Sections,
    name: &str,
    numbers: &mut [T],
) -> Result<(), String> {
    let to = bytes_of_mut(numbers);
    to.copy_from_slice(wanted(sections, name, to.len())?);
    Ok(())
}

pub(super) fn section<T: Plain>(name: impl Into<String>, numbers: &[T]) -> Section<'_> {
    (name.into(), Cow::Borrowed(bytes_of(numbers)))
}

pub(super) fn owned<T: Plain>(name: impl Into<String>, numbers: &[T]) -> Section<'static> {
    (name.into(), Cow::Owned(bytes_of(numbers).to_vec()))
}

impl Replay {
    /// What [`Replay::restore`] needs.
    #[must_use]
    pub fn sections(&self) -> Vec<Section<'_>> {
        let len = self.len;
        let mut all = vec![owned("pushed", &[self.pushed])];
        let (field, records) = self.rewards();
        all.push(("rewards".into(), Cow::Owned(records.first(field, len))));
        for (name, field) in self.fields() {
            all.push((name, Cow::Owned(self.records.first(field, len))));
        }
        for (at, part) in self.parts.iter().enumerate() {
            if let Part::Once(frames) = part {
                frames.sections(at, len, &mut all);
            }
        }
        self.links.sections(len, &mut all);
        all
    }

    /// What records consist of, but for rewards.
    fn fields(&self) -> Vec<(String, Field)> {
        let mut fields = vec![
            ("actions".to_owned(), self.actions),
            ("flags".to_owned(), self.flags),
        ];
        for (at, part) in self.parts.iter().enumerate() {
            if let Part::Twice { obs, next } = part {
                fields.push((format!("obs.{at}"), *obs));
                fields.push((format!("next_obs.{at}"), *next));
            }
        }
        fields
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
        let (field, records) = self.rewards_mut();
        records.write(field, 0, wanted(sections, "rewards", len * field.width)?);
        for (name, field) in self.fields() {
            let values = wanted(sections, &name, len * field.width)?;
            self.records.write(field, 0, values);
        }
        for (at, part) in self.parts.iter_mut().enumerate() {
            if let Part::Once(frames) = part {
                frames.restore(at, len, sections)?;
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
