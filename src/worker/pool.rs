//! Blocks of shared memory, given out by the side that writes them first.
//!
//! A block keeps its place and its room for ever: what is given back is for the next one of the same room. So a driver that has pinned a
//! block once need not do it again. Rooms are a quarter apart at most, so that at most a fifth is waste.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::memory::{Memory, RESERVED_BYTES};

#[derive(Debug)]
pub(super) struct Pool {
    memory: Memory,
    /// A device may have pinned what was given back: the system would give other memory in its place.
    keeps_all: bool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// What lies behind has never been given out.
    end: usize,
    /// Given back, by room; and how much that is.
    free: BTreeMap<usize, Vec<usize>>,
    free_bytes: usize,
    /// Given back, to the system as well.
    empty: BTreeMap<usize, Vec<usize>>,
}

/// One of its blocks, until it is dropped.
#[derive(Debug)]
pub(super) struct Block {
    pool: Arc<Pool>,
    pub(super) offset: usize,
    pub(super) room: usize,
}

const PAGE_BYTES: usize = 4 << 10;
/// What was given back beyond this goes to the system.
const KEPT_BYTES: usize = 256 << 20;

impl Pool {
    pub(super) fn new(memory: Memory, keeps_all: bool) -> Arc<Self> {
        Arc::new(Self { memory, keeps_all, state: Mutex::default() })
    }

    pub(super) fn fd(&self) -> &OwnedFd {
        self.memory.fd()
    }

    /// Whether what is given back stays in its place.
    #[cfg(feature = "cuda")]
    pub(super) fn keeps_all(&self) -> bool {
        self.keeps_all
    }

    /// A block of at least `bytes` bytes. What is in it is not said.
    pub(super) fn allocate(self: &Arc<Self>, bytes: usize) -> io::Result<Block> {
        let room =
            room_for(bytes).filter(|room| *room <= RESERVED_BYTES).ok_or(io::ErrorKind::OutOfMemory)?;
        let offset = {
            let mut state = self.state();
            if let Some(offset) = state.free.get_mut(&room).and_then(Vec::pop) {
                state.free_bytes -= room;
                return Ok(Block { pool: Arc::clone(self), offset, room });
            }
            state.take_empty(room).ok_or(io::ErrorKind::OutOfMemory)?
        };
        if let Err(error) = self.memory.fill(offset, room) {
            self.state().empty.entry(room).or_default().push(offset);
            return Err(error);
        }
        Ok(Block { pool: Arc::clone(self), offset, room })
    }

    fn give_back(&self, offset: usize, room: usize) {
        let keeps = self.keeps_all || self.state().free_bytes + room <= KEPT_BYTES;
        let is_empty = !keeps && self.memory.punch(offset, room).is_ok();
        let mut state = self.state();
        if is_empty {
            state.empty.entry(room).or_default().push(offset);
        } else {
            state.free.entry(room).or_default().push(offset);
            state.free_bytes += room;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// A place without memory.
    fn take_empty(&mut self, room: usize) -> Option<usize> {
        if let Some(offset) = self.empty.get_mut(&room).and_then(Vec::pop) {
            return Some(offset);
        }
        let offset = self.end;
        self.end = offset.checked_add(room).filter(|end| *end <= RESERVED_BYTES)?;
        Some(offset)
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

/// The room that a block of so many bytes has.
pub(super) fn room_for(bytes: usize) -> Option<usize> {
    let pages = bytes.max(1).div_ceil(PAGE_BYTES);
    let step = (pages.checked_next_power_of_two()? / 8).max(1);
    pages.checked_next_multiple_of(step)?.checked_mul(PAGE_BYTES)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn rooms_are_whole_pages_with_little_waste() {
        for bytes in (0..5_000_000).step_by(977).chain([1 << 30, (1 << 30) + 1]) {
            let room = room_for(bytes).unwrap();
            assert!(room.is_multiple_of(PAGE_BYTES) && room >= bytes, "{bytes}: {room}");
            assert!(room <= (bytes + bytes / 4).max(bytes + PAGE_BYTES), "{bytes}: {room}");
        }
        assert_eq!(room_for(usize::MAX), None);
    }

    #[test]
    fn what_is_too_much_is_refused_and_takes_nothing() {
        let pool = Pool::new(Memory::new().unwrap(), false);
        assert!(pool.allocate(RESERVED_BYTES + 1).is_err() && pool.allocate(usize::MAX).is_err());
        assert_eq!(pool.allocate(1).unwrap().offset, 0);
    }

    #[test]
    fn what_is_given_back_beyond_a_bound_goes_to_the_system_unless_a_device_may_have_pinned_it() {
        for keeps_all in [false, true] {
            let pool = Pool::new(Memory::new().unwrap(), keeps_all);
            let room = 40 << 20;
            let blocks: Vec<_> = (0..8).map(|_| pool.allocate(room).unwrap()).collect();
            drop(blocks);
            let kept = if keeps_all { 8 } else { 6 };
            assert_eq!(pool.state().free_bytes, kept * room);
            let stat = rustix::fs::fstat(pool.fd()).unwrap();
            assert_eq!(stat.st_blocks * 512, i64::try_from(kept * room).unwrap());
            let again: Vec<_> = (0..8).map(|_| pool.allocate(room).unwrap()).collect();
            assert_eq!(pool.state().end, 8 * room, "the places are used again");
            drop(again);
        }
    }

    proptest! {
        #[test]
        fn no_two_blocks_overlap_whatever_is_given_back(
            steps in prop::collection::vec((any::<prop::sample::Index>(), 1_usize..300_000, any::<bool>()), 1..60),
        ) {
            let pool = Pool::new(Memory::new().unwrap(), false);
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
            prop_assert_eq!(in_use + state.free_bytes, state.end);
        }
    }
}
