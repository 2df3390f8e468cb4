//! Requests that were given up for good, kept for whoever wants to look at them or to try them again.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustkernel_core::clock::unix_millis;
use rustkernel_core::envelope::Header;
use rustkernel_core::error::Phase;
use rustkernel_core::excerpt::{MAX_REASON_BYTES, excerpt};
use rustkernel_core::{KernelError, KernelId};
use serde::{Deserialize, Serialize};

use crate::replay::ReplayError;

/// Dead letters kept; the oldest goes first.
const LETTERS: usize = 1024;
/// Encoded input kept with a dead letter, in bytes; a longer one is left out.
pub(crate) const INPUT_BYTES: usize = 64 * 1024;
/// Encoded inputs kept in all, in bytes; the oldest go first, their letters stay.
const INPUT_BYTES_IN_ALL: usize = 16 * 1024 * 1024;

/// A request that was given up after it had taken down as many incarnations as it may.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// The letter's own number, from 1; no other letter of its runtime has it.
    pub letter: u64,
    /// The request. Another process counts its requests anew.
    pub id: u64,
    /// The kernel.
    pub kernel: KernelId,
    /// The attempt that was the last, in the last replay if there was one.
    pub attempts: u32,
    /// Where on its way the request was.
    pub phase: Phase,
    /// The last error, as text; at most 1 KiB.
    pub error: String,
    /// When it was first given up, on the wall clock: milliseconds since 1970 (UTC).
    pub unix_millis: u64,
    /// The input as a codec frame that is named after the input's [schema](rustkernel_core::traits::Payload::schema). `None` where the
    /// kernel is registered without a codec, where the frame is longer than 64 KiB, and where it made room for the inputs of later
    /// letters.
    pub input: Option<Arc<[u8]>>,
}

impl DeadLetter {
    /// Whether both tell of the same request. Another process may have used the same numbers, but not at the same time.
    fn is_same(&self, other: &Self) -> bool {
        let identity = |letter: &Self| (letter.letter, letter.id, letter.unix_millis);
        identity(self) == identity(other) && self.kernel == other.kernel
    }
}

/// The dead letters of one runtime: at most 1024, with 16 MiB of inputs. Clones share them.
#[derive(Clone, Default)]
pub(crate) struct DeadLetters(Arc<Mutex<Kept>>);

#[derive(Default)]
struct Kept {
    letters: BTreeMap<u64, Entry>,
    input_bytes: usize,
    last_number: u64,
    total: u64,
}

struct Entry {
    letter: DeadLetter,
    /// The request by which it was replayed last.
    request: Option<u64>,
    is_replaying: bool,
}

impl DeadLetters {
    /// Keeps a request that was given up and returns its letter's number. `None` if it was the replay of a letter that is
    /// kept already: that one then tells of its last failure.
    pub(crate) fn bury(
        &self,
        kernel: &KernelId,
        header: &Header,
        error: &KernelError,
        input: Option<Vec<u8>>,
    ) -> Option<u64> {
        let input = input.filter(|input| input.len() <= INPUT_BYTES);
        let text = excerpt(error, MAX_REASON_BYTES);
        let mut kept = self.lock();
        if let Some(entry) = kept.letters.values_mut().find(|entry| entry.request == Some(header.id)) {
            entry.letter.attempts = header.attempt;
            entry.letter.phase = error.phase();
            entry.letter.error = text;
            return None;
        }
        kept.total += 1;
        kept.last_number += 1;
        let number = kept.last_number;
        kept.keep(DeadLetter {
            letter: number,
            id: header.id,
            kernel: kernel.clone(),
            attempts: header.attempt,
            phase: error.phase(),
            error: text,
            unix_millis: unix_millis(),
            input: input.map(Arc::from),
        });
        Some(number)
    }

    /// Puts the letters of an earlier process, oldest first, before those of this one, which keep their order and get higher numbers.
    pub(crate) fn restore(&self, earlier: Vec<DeadLetter>) {
        let mut kept = self.lock();
        let own = std::mem::take(&mut kept.letters);
        kept.input_bytes = 0;
        kept.last_number = 0;
        kept.total += earlier.len() as u64;
        for letter in earlier.into_iter().chain(own.into_values().map(|entry| entry.letter)) {
            let number = letter.letter.max(kept.last_number + 1);
            kept.last_number = number;
            kept.keep(DeadLetter { letter: number, ..letter });
        }
    }

    /// How many there were, and those that are kept, oldest first.
    pub(crate) fn all(&self) -> (u64, Vec<DeadLetter>) {
        let kept = self.lock();
        (kept.total, kept.letters.values().map(|entry| entry.letter.clone()).collect())
    }

    pub(crate) fn letter(&self, number: u64) -> Option<DeadLetter> {
        self.lock().letters.get(&number).map(|entry| entry.letter.clone())
    }

    /// Forgets a letter. `false` for one that is not kept.
    pub(crate) fn drop_letter(&self, number: u64) -> bool {
        self.lock().remove(number)
    }

    /// Takes a letter for a replay: nobody else replays it before the guard is dropped.
    pub(crate) fn begin_replay(&self, number: u64) -> Result<(DeadLetter, Replay), ReplayError> {
        let mut kept = self.lock();
        let entry = kept.letters.get_mut(&number).ok_or(ReplayError::UnknownLetter { letter: number })?;
        entry.begin_replay()?;
        Ok((entry.letter.clone(), Replay { letters: Some(self.clone()), number }))
    }

    /// As [`begin_replay`](Self::begin_replay), for a letter in the caller's hand: one that is not kept here is replayed all the
    /// same.
    pub(crate) fn begin_replay_of(&self, letter: &DeadLetter) -> Result<Replay, ReplayError> {
        let (mut kept, number) = (self.lock(), letter.letter);
        let same = kept.letters.get_mut(&number).filter(|entry| entry.letter.is_same(letter));
        let is_kept = same.is_some();
        if let Some(entry) = same {
            entry.begin_replay()?;
        }
        Ok(Replay { letters: is_kept.then(|| self.clone()), number })
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    fn begin_replay(&mut self) -> Result<(), ReplayError> {
        if self.is_replaying {
            return Err(ReplayError::AlreadyReplaying { letter: self.letter.letter });
        }
        self.is_replaying = true;
        Ok(())
    }
}

impl Kept {
    fn keep(&mut self, letter: DeadLetter) {
        if self.letters.len() >= LETTERS
            && let Some((oldest, _)) = self.letters.first_key_value()
        {
            self.remove(*oldest);
        }
        self.input_bytes += letter.input.as_ref().map_or(0, |input| input.len());
        self.letters.insert(letter.letter, Entry { letter, request: None, is_replaying: false });
        let mut oldest_first = self.letters.values_mut();
        while self.input_bytes > INPUT_BYTES_IN_ALL {
            let Some(entry) = oldest_first.next() else { break };
            self.input_bytes -= entry.letter.input.take().map_or(0, |input| input.len());
        }
        debug_assert!(self.letters.len() <= LETTERS, "letters are bounded");
        debug_assert!(self.input_bytes <= INPUT_BYTES_IN_ALL, "inputs are bounded");
    }

    fn remove(&mut self, number: u64) -> bool {
        let Some(entry) = self.letters.remove(&number) else { return false };
        self.input_bytes -= entry.letter.input.map_or(0, |input| input.len());
        true
    }
}

/// A letter's replay under way. Dropped, it gives the letter back.
pub(crate) struct Replay {
    /// `None` for a letter that is not kept here.
    letters: Option<DeadLetters>,
    number: u64,
}

impl Replay {
    /// It has become this request: if that is given up in its turn, it is the same letter.
    pub(crate) fn accepted_as(&self, request: u64) {
        self.with_entry(|entry| entry.request = Some(request));
    }

    /// It was answered: nothing is left to be done about it.
    pub(crate) fn answered(mut self) {
        if let Some(letters) = self.letters.take() {
            letters.drop_letter(self.number);
        }
    }

    fn with_entry(&self, change: impl FnOnce(&mut Entry)) {
        if let Some(letters) = &self.letters
            && let Some(entry) = letters.lock().letters.get_mut(&self.number)
        {
            change(entry);
        }
    }
}

impl Drop for Replay {
    fn drop(&mut self) {
        self.with_entry(|entry| entry.is_replaying = false);
    }
}

impl fmt::Debug for Replay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replay").field("letter", &self.number).finish_non_exhaustive()
    }
}

impl fmt::Debug for DeadLetters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeadLetters").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use rustkernel_core::clock::Timestamp;
    use rustkernel_core::error::KernelErrorKind;

    use super::*;

    fn bury(letters: &DeadLetters, request: u64, input: Option<Vec<u8>>) -> Option<u64> {
        let error = KernelError::new(KernelErrorKind::Crashed, Phase::Executing);
        letters.bury(&KernelId::new("a/b").unwrap(), &Header::new(request, Timestamp::NEVER), &error, input)
    }

    #[test]
    fn letters_of_an_earlier_process_come_first_and_no_number_is_used_twice() {
        let earlier = DeadLetters::default();
        for request in 0..3 {
            bury(&earlier, request, Some(vec![1; 10]));
        }
        let letters = DeadLetters::default();
        bury(&letters, 100, None);
        letters.restore(earlier.all().1);
        let (total, kept) = letters.all();
        let numbers: Vec<_> = kept.iter().map(|letter| (letter.letter, letter.id)).collect();
        assert_eq!((total, numbers), (4, vec![(1, 0), (2, 1), (3, 2), (4, 100)]));
        assert_eq!(bury(&letters, 101, None), Some(5));
    }

    #[test]
    fn the_last_1024_letters_are_kept_and_all_are_counted() {
        let letters = DeadLetters::default();
        for request in 1..=2000 {
            assert_eq!(bury(&letters, request, None), Some(request));
        }
        let (total, kept) = letters.all();
        assert_eq!((total, kept.len()), (2000, LETTERS));
        assert_eq!((kept[0].letter, kept[1023].letter), (977, 2000));
    }

    #[test]
    fn beyond_16_mib_the_oldest_inputs_go_first_and_their_letters_stay() {
        let letters = DeadLetters::default();
        let fit = INPUT_BYTES_IN_ALL / INPUT_BYTES;
        for request in 0..fit as u64 + 2 {
            bury(&letters, request, Some(vec![7; INPUT_BYTES]));
        }
        let (_, kept) = letters.all();
        assert_eq!(kept.len(), fit + 2);
        let without: Vec<u64> =
            kept.iter().filter(|letter| letter.input.is_none()).map(|letter| letter.letter).collect();
        assert_eq!(without, [1, 2]);
        for letter in &kept {
            assert!(letters.drop_letter(letter.letter));
            assert!(!letters.drop_letter(letter.letter));
        }
        assert_eq!(letters.lock().input_bytes, 0);
        bury(&letters, 1, Some(vec![7; INPUT_BYTES + 1]));
        assert_eq!(letters.all().1[0].input, None, "too long to be kept");
    }

    #[test]
    fn a_letter_is_replayed_by_one_at_a_time_and_comes_back_when_it_is_given_up() {
        let letters = DeadLetters::default();
        let number = bury(&letters, 5, Some(vec![1])).unwrap();
        let (letter, replay) = letters.begin_replay(number).unwrap();
        let again = ReplayError::AlreadyReplaying { letter: number }.to_string();
        assert_eq!(letters.begin_replay(number).unwrap_err().to_string(), again);
        assert_eq!(letters.begin_replay_of(&letter).unwrap_err().to_string(), again);
        drop(replay);
        letters.begin_replay_of(&letter).unwrap().answered();
        assert!(matches!(letters.begin_replay(number), Err(ReplayError::UnknownLetter { .. })));
        letters.begin_replay_of(&letter).unwrap().answered();
    }

    #[test]
    fn a_replay_that_is_given_up_too_is_the_same_letter() {
        let letters = DeadLetters::default();
        let number = bury(&letters, 5, Some(vec![1])).unwrap();
        let (_, replay) = letters.begin_replay(number).unwrap();
        replay.accepted_as(6);
        drop(replay);
        assert_eq!(bury(&letters, 6, None), None);
        let (total, kept) = letters.all();
        assert_eq!((total, kept.len()), (1, 1));
        assert_eq!(kept[0].input.as_deref(), Some(&[1][..]));
    }

    #[test]
    fn a_letter_of_another_process_with_the_same_number_is_another_letter() {
        let letters = DeadLetters::default();
        let number = bury(&letters, 5, Some(vec![1])).unwrap();
        let (letter, _replay) = letters.begin_replay(number).unwrap();
        let foreign = DeadLetter { unix_millis: 1, ..letter };
        letters.begin_replay_of(&foreign).unwrap().answered();
        assert!(letters.letter(number).is_some());
    }
}
