//! Maps whose keys this process counts up itself: nobody else chooses them, so they need no hash that keeps a secret.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// A map from slots, child keys or actors, whose numbers are counted up from zero.
pub(crate) type CountedMap<K, V> = HashMap<K, V, BuildHasherDefault<Spread>>;

/// Spreads a counted number over the bits that a map looks at: one multiplication by 2^64 over the golden ratio.
#[derive(Debug, Default)]
pub(crate) struct Spread(u64);

impl Hasher for Spread {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u32(&mut self, number: u32) {
        self.write_u64(u64::from(number));
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = (self.0 ^ number).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }

    fn write_isize(&mut self, number: isize) {
        // The tag of an enum, which is small.
        self.write_u64(number as u64);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::hash::Hash;

    use ractor::ActorId;

    use super::*;

    fn hash(key: impl Hash) -> u64 {
        let mut spread = Spread::default();
        key.hash(&mut spread);
        spread.finish()
    }

    #[test]
    fn numbers_in_a_row_fall_into_buckets_of_their_own() {
        let slots: HashSet<u64> = (0..1024_u32).map(|slot| hash(slot) % 1024).collect();
        assert_eq!(slots.len(), 1024);
        let actors: HashSet<u64> = (0..1024).map(|pid| hash(ActorId::Local(pid)) % 1024).collect();
        assert!(actors.len() > 600, "{}", actors.len());
    }

    #[test]
    fn the_top_bits_tell_neighbours_apart() {
        let tags: HashSet<u64> = (0..64_u32).map(|slot| hash(slot) >> 57).collect();
        assert!(tags.len() > 32, "{}", tags.len());
    }
}
