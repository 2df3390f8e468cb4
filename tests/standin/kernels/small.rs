//! Small kernels.

use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::code::Answer;
use crate::launch::Launch;
use crate::{fault, wait};

/// `(in, out, count)`
pub(crate) fn probe(launch: &Launch) -> Answer {
    let count = launch.u32(2);
    let input = launch.array::<u32>(0, count as usize)?;
    let output = launch.array::<u32>(1, count as usize)?;
    for (index, word) in (0..count).enumerate() {
        output.set(index, input.get(index).wrapping_mul(2_654_435_761).wrapping_add(word));
    }
    Ok(())
}

pub(crate) fn nothing(_launch: &Launch) -> Answer {
    Ok(())
}

/// `(data, count, by)`
pub(crate) fn add(launch: &Launch) -> Answer {
    let data = launch.array::<u32>(0, launch.count(1))?;
    for index in 0..data.len() {
        data.set(index, data.get(index).wrapping_add(launch.u32(2)));
    }
    Ok(())
}

/// `(a, x, y, count)`: y = a * x + y, rounded after the product and after the sum.
pub(crate) fn saxpy(launch: &Launch) -> Answer {
    let a = launch.f32(0);
    let x = launch.array::<f32>(1, launch.count(3))?;
    let y = launch.array::<f32>(2, launch.count(3))?;
    for index in 0..x.len() {
        y.set(index, a * x.get(index) + y.get(index));
    }
    Ok(())
}

/// `(stop, limit_ns, out)`: until `stop[0]` is not 0, and no longer than the limit. A fault elsewhere ends it
/// without an answer.
pub(crate) fn spin(launch: &Launch) -> Answer {
    let stop = launch.array::<u32>(0, 1)?;
    let out = launch.array::<u32>(2, 1)?;
    let is_stopped = || stop.atomic(0).load(Ordering::Acquire) != 0;
    let limit = Duration::from_nanos(launch.u64(1));
    let ended = wait::poll(limit, || is_stopped() || fault::healthy().is_err());
    if fault::healthy().is_ok() {
        out.atomic(0).store(if ended { 1 } else { 2 }, Ordering::Release);
    }
    Ok(())
}
