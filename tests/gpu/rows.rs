//! The rows, in the order in which they run: what decides most comes first, so that a suite that is stopped has said that.

use std::time::Duration;

use crate::rebuild::Way;
use crate::row::Row;
use crate::{
    chain, completion, coredump, correct, environment, faults, floor, hang, host_memory, images, launches,
    neighbour, owner, pressure, rates, rebuild, recovery, siblings, start, tracking, waits, xid,
};

const SHORT: Duration = Duration::from_secs(20);
const LONG: Duration = Duration::from_secs(60);

/// What the driver alone decides: whatever is found is a finding.
const RECORDED: &str = "recorded";

/// Nothing is asserted about time.
const TARGET: &str = "recorded; the target is a ratio of 0.9";

macro_rules! rows {
    ($($name:literal, $limit:expr, $hardware:literal, $about:literal, $expected:expr, $find:expr;)*) => {
        /// All of them.
        pub(crate) const ROWS: &[Row] = &[$(Row {
            name: $name,
            about: $about,
            expected: $expected,
            limit: $limit,
            needs_hardware: $hardware,
            find: $find,
        },)*];
    };
}

rows! {
    "E0", SHORT, false, "what the device can do", RECORDED, environment::find;
    "matmul", LONG, false, "CudaMatMul beside MatMul", "the same to the bit", correct::matmul;
    "pagerank", LONG, false, "CudaPageRank beside PageRank",
        "at most 1e-12 apart in L1 norm", correct::pagerank;
    "E1", SHORT, false, "steps of a start, once each", RECORDED, start::find;
    "E1.images", SHORT, false, "PTX, CUDA C and a cubin", "PTX computes; the others where their tools are", images::find;
    "E4", SHORT, false, "700 in stream A, a good kernel and host functions beside it",
        "700 at the first answer; A's host function is never called", siblings::streams;
    "E6.release", SHORT, false, "700, then the primary context released and retained",
        RECORDED, |_| rebuild::find(Way::Release, "rk_fault_illegal_address");
    "E6.reset", SHORT, true, "700, then the primary context reset and retained",
        RECORDED, |_| rebuild::find(Way::Reset, "rk_fault_illegal_address");
    "E6.destroy", SHORT, true, "700 in a context of its own, destroyed and made anew",
        RECORDED, |_| rebuild::find(Way::Destroy, "rk_fault_illegal_address");
    "E6.assert", SHORT, true, "the same with an assertion",
        RECORDED, |_| rebuild::find(Way::Destroy, "rk_fault_assert");
    "E6.trap", SHORT, true, "the same with a trap",
        RECORDED, |_| rebuild::find(Way::Destroy, "rk_fault_trap");
    "E6.misaligned", SHORT, true, "the same with a store to an odd address",
        RECORDED, |_| rebuild::find(Way::Destroy, "rk_fault_misaligned");
    "E6.stack", SHORT, true, "the same with a recursion without end",
        RECORDED, |_| rebuild::find(Way::Destroy, "rk_fault_stack");
    "E8.driver", LONG, false, "700 in a process by hand that is killed, and another one beside it",
        RECORDED, floor::fault;
    "E8.beside", LONG, false, "launches by hand beside a process whose kernel does not end",
        RECORDED, floor::beside;
    "E8.first", LONG, false, "the steps of a warm process to its first answer, alone and beside others",
        RECORDED, floor::first;
    "E8.spare", LONG, false, "700 in a worker, with a warm spare: until the first right answer",
        "the spare worker's answer, right", recovery::with_spare;
    "E8.cold", LONG, false, "700 in a worker, without a spare, beside a process by hand",
        "a new worker's answer, right", recovery::cold;
    "E8.deaf", LONG, false, "a kernel that reads no flag, at its deadline of 50 ms",
        "answered at the deadline; the worker is killed, the spare one computes", recovery::deaf;
    "E8.kill", LONG, false, "a process by hand, killed with its kernel on the device",
        "it ends; a new process computes", recovery::kill;
    "E8.xid", LONG, true, "the Xids of faults, and of a process that is killed", RECORDED, xid::find;
    "E7.illegal", SHORT, false, "a store to no memory", "700, latched",
        |_| faults::sticky("rk_fault_illegal_address", &[700]);
    "E7.assert", SHORT, false, "an assertion in a kernel", "710, latched",
        |_| faults::sticky("rk_fault_assert", &[710]);
    "E7.trap", SHORT, false, "a trap", "719, latched", |_| faults::sticky("rk_fault_trap", &[719]);
    "E7.misaligned", SHORT, false, "a store to an odd address", "716, latched",
        |_| faults::sticky("rk_fault_misaligned", &[716]);
    "E7.stack", SHORT, false, "a recursion without end", "714, 700 or 719, latched",
        |_| faults::sticky("rk_fault_stack", &[714, 700, 719]);
    "E7.shared", SHORT, false, "a store beyond shared memory", "700, 717 or 719, latched",
        |_| faults::sticky("rk_fault_shared", &[700, 717, 719]);
    "E7.refused", SHORT, false, "calls that the driver refuses",
        "1 or 701, 1, 2, 500, 222 or 218; the context computes after each", faults::refused;
    "launches.waited", LONG, false, "requests of 64 launches, beside cuLaunchKernel by hand",
        TARGET, launches::waited_for;
    "launches.single", LONG, false, "requests of one launch, beside cuLaunchKernel by hand",
        RECORDED, launches::single;
    "launches.streamed", LONG, false, "one long request, beside cuLaunchKernel by hand, 256 under way",
        TARGET, launches::streamed;
    "launches.sixty_four", LONG, false, "one long request, beside cuLaunchKernel by hand, 64 under way",
        TARGET, launches::sixty_four;
    "chain.small", LONG, false, "1000 values through three kernels that hand buffers on, beside one stream by hand",
        "every result right", chain::small;
    "chain.large", LONG, false, "the same with 4 million values", "every result right", chain::large;
    "chain.kept", LONG, false, "64 million values made, doubled three times and kept on the device",
        RECORDED, chain::kept;
    "E5", SHORT, true, "700 in context X; Y and the primary one beside it", RECORDED, siblings::contexts;
    "E9.flag", LONG, false, "a kernel that is given up and reads its flag",
        "it ends by its flag, and the device computes on", hang::flag;
    "E9.reset", SHORT, true, "the primary context reset under a kernel that runs", RECORDED, hang::reset;
    "E9.destroy", SHORT, true, "a context destroyed under a kernel that runs", RECORDED, hang::destroy;
    "E2.streams", LONG, false, "launches by hand over streams", RECORDED, rates::streams;
    "E2.graph", LONG, true, "a graph of launches by hand", RECORDED, rates::graph;
    "E2.depth", SHORT, true, "launches that a stream takes behind a kernel that runs",
        "more than 256", rates::depth;
    "E2.builder", LONG, true, "launches with a buffer: by hand, by cudarc with its events and without, and ours",
        RECORDED, tracking::find;
    "E3.many", LONG, false, "kernels of 2 ms on 1, 8 and 64 streams: how late it is heard, and what waiting costs",
        RECORDED, waits::find;
    "E3", LONG, false, "from a launch to the knowledge that it is done", RECORDED, completion::find;
    "E10", LONG, false, "a healthy worker beside one that dies again and again",
        "no error and no death of the healthy one", neighbour::find;
    "E15", LONG, false, "workers that die one after the other, without a spare",
        "one death a fault, every answer right", recovery::soak;
    "E11.cost", LONG, false, "host memory registered: what it costs, and copies there",
        RECORDED, host_memory::cost;
    "E11.survival", LONG, false, "host memory that outlives the process which has registered it",
        "the next process finds the results", host_memory::survival;
    "E12", SHORT, true, "device memory of an owner, used by a process that faults",
        "the owner finds what was written, and computes", owner::find;
    "E13", LONG, false, "a device whose memory is full",
        "refused with 2; nothing is lost", pressure::find;
    "E14", LONG, true, "a device core dump of a fault", RECORDED, coredump::find;
}
