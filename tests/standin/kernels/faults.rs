//! Deliberate faults, whatever the arguments. Which code each gives is the driver's decision; here it is
//! decided.

use crate::code::{Answer, Code};
use crate::launch::Launch;

pub(crate) fn illegal_address(_launch: &Launch) -> Answer {
    Err(Code::ILLEGAL_ADDRESS)
}

pub(crate) fn assert(_launch: &Launch) -> Answer {
    Err(Code::ASSERT)
}

pub(crate) fn trap(_launch: &Launch) -> Answer {
    Err(Code::LAUNCH_FAILED)
}

pub(crate) fn misaligned(_launch: &Launch) -> Answer {
    Err(Code::MISALIGNED_ADDRESS)
}

pub(crate) fn stack(_launch: &Launch) -> Answer {
    Err(Code::HARDWARE_STACK_ERROR)
}

pub(crate) fn shared(_launch: &Launch) -> Answer {
    Err(Code::ILLEGAL_ADDRESS)
}

pub(crate) fn illegal_instruction(_launch: &Launch) -> Answer {
    Err(Code::ILLEGAL_INSTRUCTION)
}
