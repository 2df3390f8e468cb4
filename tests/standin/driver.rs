//! A stand-in for the CUDA driver, for tests alone: the code that drives a GPU runs against it unchanged, and
//! a script says what goes wrong.
//!
//! Never built under the driver's own name: a test puts it into a folder of its own under that name, and
//! shows that folder to one child process. The script is the variable `STANDIN_DRIVER`, read once a process:
//! entries with commas between them, as in `count=2,cuDeviceGetName=999,kernel@3=700`. What it does not name
//! succeeds. An entry that cannot be read ends the process.
//!
//! | entry | meaning |
//! |---|---|
//! | `version=N` | the driver's CUDA version, as 13000 for 13.0, which is the default |
//! | `count=N` | how many devices there are; 1 unless said |
//! | `oom=BYTES` | the memory of each device; 80 GiB unless said |
//! | `context_ms=N` | making a device's primary context takes that long |
//! | `FUNCTION=CODE` | the function answers the code and does nothing. With 0 it works as always |
//! | `FUNCTION@N=CODE` | call number N of the function does, counted from 1 in each process |
//! | `kernel@N=CODE` | kernel number N faults with the code, counted from 1 as they begin to run |
//! | `hang@N` | kernel number N never ends |
//! | `first=PATH` | entries with `@` are for the one process that makes the file PATH, see below |
//! | `loads=PATH` | each module that is loaded is written there, as the process's number and its functions |
//! | `later` | entries without `@` are for processes that are started when that file is there |
//!
//! With `first`, entries with `@` are for one process alone: the one that makes the file PATH, as the first
//! that comes upon such an entry does. A process that is started again after that is well; with `later`, it is
//! not.
//!
//! What it models:
//!
//! - Device memory is host memory, and a device address is a host address. New device memory holds rubbish,
//!   not zeros.
//! - A stream is a thread that does one thing after the other, so that what is asynchronous is so here. As
//!   with the driver, memory that is neither pinned nor registered is the caller's again when a copy from or
//!   to it returns: a copy to it waits for its turn in the stream.
//! - A kernel is a Rust function, found by the kernel's name in the PTX (see `kernels`). Where it would touch
//!   what is not allocated it faults with 700, and with 716 where an array is not aligned, before it has
//!   written anything.
//! - A fault is sticky and belongs to the process: from then on every call that needs a context answers it,
//!   whatever was queued is dropped, and nobody waits for anything. The launch of a kernel that will fault
//!   succeeds.
//! - A launch waits while its stream has 1021 things before it that are not done: as many as an H100 took
//!   (docs/gpu/README.md).
//! - Calls before `cuInit` answer 3; those that need a context and find none current on their thread, 201, or
//!   709 if it has been released; those with a handle that is unknown or gone, 400.
//!
//! What it does NOT do: order the default stream against others; make a free or a destroy wait for a busy
//! device; free a context's memory with the context; read what a kernel in the PTX does.

#![allow(unsafe_code, reason = "it is a C library")]
#![allow(non_snake_case, reason = "the names are the driver's")]
#![allow(missing_docs, reason = "the driver's documentation is theirs")]
#![allow(
    clippy::unwrap_used,
    reason = "a lock is poisoned only by a defect of the stand-in, which then ends the test"
)]

mod call;
mod code;
mod context;
mod copy;
mod device;
mod event;
mod fault;
mod handle;
mod kernels;
mod launch;
mod memory;
mod module;
mod ptx;
mod script;
mod stream;
mod wait;
