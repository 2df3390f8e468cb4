//! Blocks of shared memory, given out by the side that writes them first.

use std::io;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::memory::Memory;
use super::ranges::Ranges;

#[derive(Debug)]
pub(super) struct Pool {
    memory: Memory,
    /// A device may have pinned what was given back: the system would give other memory in its place.
    keeps_all: bool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// What lies behind is not in use.
    end: usize,
    free: Ranges,
    /// Free, and without memory.
    empty: Ranges,
}

/// One of its blocks, until it is dropped.
#[derive(Debug)]
pub(super) struct Block {
    pool: Arc<Pool>,
    pub(super) offset: usize,
    room: usize,
}

const PAGE_BYTES: usize = 4 << 10;
/// What was given back beyond this goes to the system.
const KEPT_BYTES: usize = 256 << 20;
/// What a device pins at once: memory that stays in its place is asked for in pieces of this.
pub(super) const CHUNK_BYTES: usize = 8 << 20;

/// Why there is no block.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoRoom {
    #[error(
        "there is no more shared memory: payloads that are in use take the {0} bytes that there may be on one side of a domain"
    )]
    Full(usize),
    #[error(
        "the system gives no shared memory: {0}; is it limited (cgroup, ulimit -f), or all of it in use?"
    )]
    System(#[from] io::Error),
}

impl Pool {
    pub(super) fn new(memory: Memory, keeps_all: bool) -> Arc<Self> {
        Arc::new(Self { memory, keeps_all, state: Mutex::default() })
    }

    pub(super) fn memory(&self) -> &Memory {
        &self.memory
    }

    /// Whether what is given back stays in its place.
    #[cfg(feature = "cuda")]
    pub(super) fn keeps_all(&self) -> bool {
        self.keeps_all
    }

    /// A block of at least `bytes` bytes. What is in it is not said.
    pub(super) fn allocate(self: &Arc<Self>, bytes: usize) -> Result<Block, NoRoom> {
        let full = || NoRoom::Full(self.memory.reserved());
        let room = bytes.max(1).checked_next_multiple_of(PAGE_BYTES).ok_or_else(full)?;
        let (offset, length) = {
            let mut state = self.state();
            if let Some(offset) = state.free.take(room) {
                return Ok(Block { pool: Arc::clone(self), offset, room });
            }
            self.take_empty(&mut state, room).ok_or_else(full)?
        };
        // Without the lock: the system has to find the memory.
        let filled = self.memory.fill(offset, length);
        if let Err(error) = filled {
            // Some of it may have been found.
            let is_empty = self.keeps_all || self.memory.punch(offset, length).is_ok();
            let mut state = self.state();
            if is_empty {
                state.empty.add(offset, length)
            } else {
                state.free.add(offset, length)
            }
            return Err(error.into());
        }
        let mut state = self.state();
        if length > room {
            state.free.add(offset + room, length - room);
        }
        drop(state);
        Ok(Block { pool: Arc::clone(self), offset, room })
    }

    /// A place without memory, at least so long, and how long it is.
    fn take_empty(&self, state: &mut State, room: usize) -> Option<(usize, usize)> {
        // Where all is kept, whole chunks are real or not.
        if !self.keeps_all
            && let Some(offset) = state.empty.take(room)
        {
            return Some((offset, room));
        }
        if let Some(grown) = self.grow(state, room) {
            return Some(grown);
        }
        if self.keeps_all {
            return None;
        }
        // Its neighbours may be free as well, and have memory.
        for (offset, length) in state.free.drain() {
            match self.memory.punch(offset, length) {
                Ok(()) => state.empty.add(offset, length),
                Err(_) => state.free.add(offset, length),
            }
        }
        state.empty.take(room).map(|offset| (offset, room))
    }

    /// A place at the end. What is free before the end is too short by itself, and a part of it.
    fn grow(&self, state: &mut State, room: usize) -> Option<(usize, usize)> {
        let (mut start, mut before) = (state.end, Vec::new());
        loop {
            let (found, is_real) = match state.empty.take_last(start) {
                Some(found) => (found, false),
                None => match state.free.take_last(start) {
                    Some(found) => (found, true),
                    None => break,
                },
            };
            before.push((found, start - found, is_real));
            start = found;
        }
        let end = start.checked_add(room);
        let end =
            if self.keeps_all { end.and_then(|end| end.checked_next_multiple_of(CHUNK_BYTES)) } else { end };
        let end = end.map(|end| end.max(state.end)).filter(|end| *end <= self.memory.reserved());
        if let Some(end) = end {
            state.end = end;
            return Some((start, end - start));
        }
        for (offset, length, is_real) in before {
            if is_real { state.free.add(offset, length) } else { state.empty.add(offset, length) }
        }
        None
    }

    fn give_back(&self, offset: usize, room: usize) {
        let keeps = self.keeps_all || self.state().free.total() + room <= KEPT_BYTES;
        let is_empty = !keeps && self.memory.punch(offset, room).is_ok();
        let mut state = self.state();
        if is_empty { state.empty.add(offset, room) } else { state.free.add(offset, room) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Block {
    pub(super) fn start(&self) -> NonNull<u8> {
        self.pool.memory.at(self.offset)
    }

    pub(super) fn is_of(&self, pool: &Arc<Pool>) -> bool {
        Arc::ptr_eq(&self.pool, pool)
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        self.pool.give_back(self.offset, self.room);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pool(keeps_all: bool) -> Arc<Pool> {
        Pool::new(Memory::new().unwrap(), keeps_all)
    }

    fn real_bytes(pool: &Pool) -> usize {
        usize::try_from(rustix::fs::fstat(pool.memory().fd()).unwrap().st_blocks * 512).unwrap()
    }

    #[test]
    fn what_is_too_much_is_refused_and_takes_nothing() {
        let pool = pool(false);
        for bytes in [pool.memory().reserved() + 1, usize::MAX] {
            assert!(matches!(pool.allocate(bytes), Err(NoRoom::Full(_))));
        }
        assert_eq!(pool.allocate(1).unwrap().offset, 0);
    }

    #[test]
    fn what_is_given_back_beyond_a_bound_goes_to_the_system_unless_a_device_may_have_pinned_it() {
        for keeps_all in [false, true] {
            let pool = pool(keeps_all);
            let room = 40 << 20;
            let blocks: Vec<_> = (0..8).map(|_| pool.allocate(room).unwrap()).collect();
            drop(blocks);
            let kept = if keeps_all { 8 } else { 6 };
            assert_eq!((pool.state().free.total(), real_bytes(&pool)), (kept * room, kept * room));
            let again: Vec<_> = (0..8).map(|_| pool.allocate(room).unwrap()).collect();
            assert_eq!(pool.state().end, 8 * room, "the places are used again");
            drop(again);
        }
    }

    /// Sizes that grow: a place that was given back served none of the next ones.
    #[test]
    fn payloads_of_ever_larger_sizes_find_room_and_leave_no_more_than_they_took() {
        for keeps_all in [false, true] {
            let pool = pool(keeps_all);
            for megabytes in 1..40_usize {
                let blocks: Vec<_> = (0..3).map(|_| pool.allocate(megabytes << 20).unwrap()).collect();
                drop(blocks);
            }
            let most = 3 * (40 << 20);
            let end = pool.state().end;
            assert!(real_bytes(&pool) <= 2 * most && end <= 2 * most, "{} {end}", real_bytes(&pool));
        }
    }

    #[test]
    fn what_was_given_back_at_the_end_is_room_for_something_longer() {
        for keeps_all in [false, true] {
            let pool = pool(keeps_all);
            pool.state().end = pool.memory().reserved() - (48 << 20);
            for megabytes in [24, 32, 40, 48, 1] {
                assert!(pool.allocate(megabytes << 20).is_ok(), "{megabytes}");
            }
        }
    }

    #[test]
    fn what_lies_around_in_pieces_is_one_where_there_is_nothing_else() {
        let pool = pool(false);
        let half = pool.memory().reserved() / 2;
        pool.state().end = half;
        let pieces: Vec<_> = (0..3).map(|_| pool.allocate(1 << 20).unwrap()).collect();
        pool.state().end = pool.memory().reserved();
        assert!(pool.allocate(3 << 20).is_err());
        drop(pieces);
        assert_eq!(pool.allocate(3 << 20).unwrap().offset, half);
    }

    proptest! {
        #[test]
        fn no_two_blocks_overlap_whatever_is_given_back(
            steps in prop::collection::vec((any::<prop::sample::Index>(), 1_usize..300_000, any::<bool>()), 1..60),
            keeps_all in any::<bool>(),
        ) {
            let pool = pool(keeps_all);
            let mut blocks: Vec<Block> = Vec::new();
            for (which, bytes, gives_back) in steps {
                if gives_back && !blocks.is_empty() {
                    blocks.swap_remove(which.index(blocks.len()));
                } else {
                    blocks.push(pool.allocate(bytes).unwrap());
                }
                let mut places: Vec<_> = blocks.iter().map(|block| (block.offset, block.room)).collect();
                places.sort_unstable();
                prop_assert!(places.windows(2).all(|pair| pair[0].0 + pair[0].1 <= pair[1].0));
            }
            let in_use: usize = blocks.iter().map(|block| block.room).sum();
            let state = pool.state();
            prop_assert_eq!(in_use + state.free.total() + state.empty.total(), state.end);
        }
    }
}
