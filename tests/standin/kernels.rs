//! The kernels, as functions of the host. They do what those of the same names in `src/cuda/kernels` do.

mod faults;
mod matmul;
mod pagerank;
mod small;

use crate::code::Answer;
use crate::launch::Launch;

use Parameter::{F32, F64, Pointer, U32, U64};

/// A kernel.
pub(crate) struct Kernel {
    name: &'static str,
    pub(crate) parameters: &'static [Parameter],
    /// Runs all of its threads, or says with what it faults.
    pub(crate) run: fn(&Launch) -> Answer,
}

/// What a parameter is.
#[derive(Clone, Copy)]
pub(crate) enum Parameter {
    Pointer,
    U32,
    U64,
    F32,
    F64,
}

impl Parameter {
    /// Its size.
    pub(crate) fn bytes(self) -> usize {
        match self {
            U32 | F32 => 4,
            Pointer | U64 | F64 => 8,
        }
    }
}

pub(crate) fn find(name: &str) -> Option<&'static Kernel> {
    KERNELS.iter().find(|kernel| kernel.name == name)
}

const fn kernel(name: &'static str, parameters: &'static [Parameter], run: fn(&Launch) -> Answer) -> Kernel {
    Kernel { name, parameters, run }
}

static KERNELS: &[Kernel] = &[
    kernel("rk_probe", &[Pointer, Pointer, U32], small::probe),
    kernel("rk_matmul_f32", &[Pointer, Pointer, Pointer, U32, U32, U32], matmul::matmul),
    kernel("rk_pagerank_shares", &[Pointer, Pointer, Pointer, Pointer, U32], pagerank::shares),
    kernel("rk_pagerank_base", &[Pointer, U32, Pointer, F64, U32], pagerank::base),
    kernel(
        "rk_pagerank_pull",
        &[Pointer, Pointer, Pointer, Pointer, Pointer, Pointer, Pointer, F64, U32],
        pagerank::pull,
    ),
    kernel("rk_sum", &[Pointer, U32, Pointer], pagerank::sum),
    kernel("rk_nothing", &[], small::nothing),
    kernel("rk_add", &[Pointer, U32, U32], small::add),
    kernel("rk_saxpy", &[F32, Pointer, Pointer, U32], small::saxpy),
    kernel("rk_spin", &[Pointer, U64, Pointer], small::spin),
    kernel("rk_fault_illegal_address", &[], faults::illegal_address),
    kernel("rk_fault_assert", &[], faults::assert),
    kernel("rk_fault_trap", &[], faults::trap),
    kernel("rk_fault_misaligned", &[], faults::misaligned),
    kernel("rk_fault_stack", &[], faults::stack),
    kernel("rk_fault_shared", &[], faults::shared),
    kernel("rk_fault_illegal_instruction", &[], faults::illegal_instruction),
];
