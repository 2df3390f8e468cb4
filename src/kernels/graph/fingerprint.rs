//! A stable hash of a sequence of words.
//!
//! It tells contents apart across processes and releases, where `std`'s hasher promises neither. It follows
//! `FxHasher` (rotate, exclusive or, multiply), which is fast on words, with the finaliser of SplitMix64 for the low
//! bits. It is no defence against somebody who searches for collisions.

/// The hash so far.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fingerprint(u64);

impl Fingerprint {
    /// The hash of nothing, apart from `domain`: what the words stand for.
    pub(crate) fn new(domain: u64) -> Self {
        Self(domain).words([domain])
    }

    /// The hash with `words` behind what came before. The words are not counted: add the length of a part
    /// whose end the parts around it do not tell.
    pub(crate) fn words(self, words: impl IntoIterator<Item = u64>) -> Self {
        Self(words.into_iter().fold(self.0, |hash, word| (hash.rotate_left(5) ^ word).wrapping_mul(FACTOR)))
    }

    /// The hash.
    pub(crate) fn finish(self) -> u64 {
        let hash = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        hash ^ (hash >> 31)
    }
}

const FACTOR: u64 = 0x517c_c1b7_2722_0a95;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_length_and_domain_are_told_apart() {
        let hash = |domain, words: &[u64]| Fingerprint::new(domain).words(words.iter().copied()).finish();
        assert_ne!(hash(1, &[1, 2]), hash(1, &[2, 1]));
        assert_ne!(hash(1, &[0]), hash(1, &[0, 0]));
        assert_ne!(hash(1, &[7]), hash(2, &[7]));
        assert_eq!(hash(1, &[1, 2]), Fingerprint::new(1).words([1]).words([2]).finish());
    }

    #[test]
    fn the_hash_stays_the_same_across_releases() {
        assert_eq!(Fingerprint::new(1).words([1, 2, 3]).finish(), STABLE);
    }

    const STABLE: u64 = 131_181_473_111_411_788;
}
