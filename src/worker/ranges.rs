//! Ranges that are free.

use std::collections::{BTreeMap, BTreeSet};

/// Ranges of pages, none of which touches another.
#[derive(Debug, Default)]
pub(super) struct Ranges {
    /// Their lengths, by where they begin.
    by_start: BTreeMap<usize, usize>,
    by_length: BTreeSet<(usize, usize)>,
    total: usize,
}

impl Ranges {
    pub(super) fn total(&self) -> usize {
        self.total
    }

    /// Adds a range, which is one with its neighbours.
    pub(super) fn add(&mut self, mut start: usize, mut length: usize) {
        self.total += length;
        if let Some((before, of_before)) =
            self.by_start.range(..start).next_back().map(|(at, len)| (*at, *len))
            && before + of_before == start
        {
            self.remove(before, of_before);
            (start, length) = (before, of_before + length);
        }
        if let Some(of_behind) = self.by_start.get(&(start + length)).copied() {
            self.remove(start + length, of_behind);
            length += of_behind;
        }
        self.by_start.insert(start, length);
        self.by_length.insert((length, start));
    }

    /// Takes so much out of the shortest one that is long enough.
    pub(super) fn take(&mut self, length: usize) -> Option<usize> {
        let (found, start) = *self.by_length.range((length, 0)..).next()?;
        self.remove(start, found);
        self.total -= found;
        if found > length {
            self.add(start + length, found - length);
        }
        Some(start)
    }

    /// Takes the one that ends at `end`, if there is one, and gives where it begins.
    pub(super) fn take_last(&mut self, end: usize) -> Option<usize> {
        let (start, length) = self.by_start.last_key_value().map(|(start, length)| (*start, *length))?;
        if start + length != end {
            return None;
        }
        self.remove(start, length);
        self.total -= length;
        Some(start)
    }

    /// Takes all of them.
    pub(super) fn drain(&mut self) -> BTreeMap<usize, usize> {
        std::mem::take(self).by_start
    }

    fn remove(&mut self, start: usize, length: usize) {
        self.by_start.remove(&start);
        self.by_length.remove(&(length, start));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn neighbours_become_one_and_the_shortest_that_fits_is_taken() {
        let mut ranges = Ranges::default();
        for (start, length) in [(0, 10), (20, 10), (40, 3), (10, 10)] {
            ranges.add(start, length);
        }
        assert_eq!(ranges.by_start, BTreeMap::from([(0, 30), (40, 3)]));
        assert_eq!((ranges.take(3), ranges.take(31), ranges.take(25)), (Some(40), None, Some(0)));
        assert_eq!((ranges.total(), ranges.by_start), (5, BTreeMap::from([(25, 5)])));
    }

    proptest! {
        #[test]
        fn they_are_as_a_set_of_pages(
            steps in prop::collection::vec((0_usize..200, 1_usize..20, any::<bool>()), 1..100),
        ) {
            let (mut ranges, mut pages) = (Ranges::default(), BTreeSet::new());
            for (start, length, takes) in steps {
                if takes {
                    match ranges.take(length) {
                        Some(start) => prop_assert!((start..start + length).all(|page| pages.remove(&page))),
                        None => prop_assert!(!pages.iter().any(|page| (*page..page + length).all(|page| pages.contains(&page)))),
                    }
                } else if (start..start + length).all(|page| !pages.contains(&page)) {
                    ranges.add(start, length);
                    pages.extend(start..start + length);
                }
                prop_assert_eq!(ranges.total(), pages.len());
                let starts: Vec<_> = ranges.by_start.iter().map(|(start, length)| (*start, start + length)).collect();
                prop_assert!(starts.windows(2).all(|pair| pair[0].1 < pair[1].0), "none touches another");
            }
        }
    }
}
