//! Memory that a device may touch: its own, and the host's that is pinned or registered.

use std::alloc::{self, Layout};
use std::collections::BTreeMap;
use std::ffi::{c_int, c_uint};
use std::sync::{Arc, Mutex};

use crate::call::{self, Out};
use crate::code::{Answer, Code};
use crate::device::Device;

/// One piece of it. Work in flight holds it, so that a free does not take memory from under a kernel that
/// runs.
pub(crate) struct Block {
    address: usize,
    bytes: usize,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Device(Device),
    Pinned,
    /// The caller's own.
    Registered,
}

/// Bytes inside a block.
pub(crate) struct Range {
    pub(crate) address: usize,
    pub(crate) bytes: usize,
    block: Option<Arc<Block>>,
}

impl Range {
    /// What a device may touch. An empty range is anywhere.
    pub(crate) fn find(address: usize, bytes: usize) -> Option<Self> {
        if bytes == 0 {
            return Some(Self { address, bytes, block: None });
        }
        let blocks = BLOCKS.lock().unwrap();
        let (_, block) = blocks.range(..=address).next_back()?;
        let holds = bytes <= block.bytes && address - block.address <= block.bytes - bytes;
        holds.then(|| Self { address, bytes, block: Some(Arc::clone(block)) })
    }

    pub(crate) fn is_of_a_device(&self) -> bool {
        self.block.as_ref().is_some_and(|block| matches!(block.kind, Kind::Device(_)))
    }

    pub(crate) fn pointer<T>(&self) -> *mut T {
        std::ptr::with_exposed_provenance_mut(self.address)
    }
}

impl Block {
    fn new(bytes: usize, kind: Kind) -> Answer<Self> {
        let layout = layout(bytes).ok_or(Code::OUT_OF_MEMORY)?;
        // SAFETY: it is not empty: `allocate` has refused that.
        let pointer = unsafe { alloc::alloc_zeroed(layout) };
        if pointer.is_null() {
            return Err(Code::OUT_OF_MEMORY);
        }
        if matches!(kind, Kind::Device(_)) {
            // SAFETY: these are the first bytes of the new block, or all of them.
            unsafe { pointer.write_bytes(RUBBISH, bytes.min(MAX_RUBBISH_BYTES)) };
        }
        Ok(Self { address: pointer.expose_provenance(), bytes, kind })
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        if self.kind != Kind::Registered
            && let Some(layout) = layout(self.bytes)
        {
            // SAFETY: `new` has allocated it with this layout, and the last who held it lets go.
            unsafe { alloc::dealloc(std::ptr::with_exposed_provenance_mut(self.address), layout) };
        }
    }
}

/// By their addresses; they do not overlap.
static BLOCKS: Mutex<BTreeMap<usize, Arc<Block>>> = Mutex::new(BTreeMap::new());
const ALIGNMENT: usize = 256;
const RUBBISH: u8 = 0xa5;
/// More would make a large allocation real that nobody ever writes to.
const MAX_RUBBISH_BYTES: usize = 1 << 20;

#[unsafe(no_mangle)]
extern "C" fn cuMemAlloc_v2(address: Out<usize>, bytes: usize) -> c_int {
    call::in_context("cuMemAlloc_v2", |device| allocate(&address, bytes, Kind::Device(device)))
}

#[unsafe(no_mangle)]
extern "C" fn cuMemFree_v2(address: usize) -> c_int {
    call::in_context("cuMemFree_v2", |_| {
        if address == 0 {
            return Ok(());
        }
        remove(address, |kind| matches!(kind, Kind::Device(_))).ok_or(Code::INVALID_VALUE)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuMemGetInfo_v2(free: Out<usize>, total: Out<usize>) -> c_int {
    call::in_context("cuMemGetInfo_v2", |device| {
        total.set(device.memory_bytes())?;
        free.set(device.memory_bytes() - used_bytes(&BLOCKS.lock().unwrap(), device))
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuMemAllocHost_v2(pointer: Out<usize>, bytes: usize) -> c_int {
    call::in_context("cuMemAllocHost_v2", |_| allocate(&pointer, bytes, Kind::Pinned))
}

#[unsafe(no_mangle)]
extern "C" fn cuMemHostAlloc(pointer: Out<usize>, bytes: usize, _flags: c_uint) -> c_int {
    call::in_context("cuMemHostAlloc", |_| allocate(&pointer, bytes, Kind::Pinned))
}

#[unsafe(no_mangle)]
extern "C" fn cuMemFreeHost(pointer: usize) -> c_int {
    call::in_context("cuMemFreeHost", |_| {
        remove(pointer, |kind| kind == Kind::Pinned).ok_or(Code::INVALID_VALUE)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuMemHostRegister_v2(pointer: usize, bytes: usize, _flags: c_uint) -> c_int {
    call::in_context("cuMemHostRegister_v2", |_| {
        let end = pointer.checked_add(bytes).filter(|_| pointer != 0 && bytes != 0);
        let end = end.ok_or(Code::INVALID_VALUE)?;
        let mut blocks = BLOCKS.lock().unwrap();
        let before = blocks.range(..end).next_back();
        if before.is_some_and(|(address, block)| address + block.bytes > pointer) {
            return Err(Code::HOST_MEMORY_ALREADY_REGISTERED);
        }
        blocks.insert(pointer, Arc::new(Block { address: pointer, bytes, kind: Kind::Registered }));
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuMemHostUnregister(pointer: usize) -> c_int {
    call::in_context("cuMemHostUnregister", |_| {
        remove(pointer, |kind| kind == Kind::Registered).ok_or(Code::HOST_MEMORY_NOT_REGISTERED)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuMemHostGetDevicePointer_v2(address: Out<usize>, pointer: usize, _flags: c_uint) -> c_int {
    call::in_context("cuMemHostGetDevicePointer_v2", |_| {
        let found = Range::find(pointer, 1).filter(|range| !range.is_of_a_device());
        address.set(found.ok_or(Code::INVALID_VALUE)?.address)
    })
}

fn allocate(address: &Out<usize>, bytes: usize, kind: Kind) -> Answer {
    if bytes == 0 {
        return Err(Code::INVALID_VALUE);
    }
    let mut blocks = BLOCKS.lock().unwrap();
    if let Kind::Device(device) = kind
        && bytes > device.memory_bytes() - used_bytes(&blocks, device)
    {
        return Err(Code::OUT_OF_MEMORY);
    }
    let block = Block::new(bytes, kind)?;
    address.set(block.address)?;
    blocks.insert(block.address, Arc::new(block));
    Ok(())
}

/// None if there is none of that kind at the address.
fn remove(address: usize, is_meant: impl Fn(Kind) -> bool) -> Option<()> {
    let mut blocks = BLOCKS.lock().unwrap();
    blocks.get(&address).filter(|block| is_meant(block.kind))?;
    blocks.remove(&address).map(|_| ())
}

/// Never more than the device has: `allocate` sees to that.
fn used_bytes(blocks: &BTreeMap<usize, Arc<Block>>, device: Device) -> usize {
    let own = blocks.values().filter(|block| block.kind == Kind::Device(device));
    own.map(|block| block.bytes).sum()
}

fn layout(bytes: usize) -> Option<Layout> {
    Layout::from_size_align(bytes, ALIGNMENT).ok()
}
