//! A device whose memory is full.

use rustkernel::core::fault::FaultClass;
use rustkernel::core::traits::{Context, LocalKernel};
use rustkernel::cuda::{Buffer, CudaError, Device, Stream};

use crate::device::{Order, Rig};
use crate::row::{Bench, Found, Halt, Outcome, ensure};
use crate::scene::play;

/// What is asked for at a time, and at last.
const PIECES: [usize; 3] = [1 << 30, 64 << 20, 1 << 20];
/// What a stand-in for the driver may take of this machine's memory.
const STANDIN_MOST: u64 = 4 << 30;
/// Of no piece's size.
const ANOTHER: usize = 4 << 20;

/// Fills it, is refused, computes, gives it back, and computes again.
pub(crate) fn find(bench: Bench) -> Outcome {
    let device = Device::open(0)?;
    let (stream, other, mut rig) = (device.stream()?, device.stream()?, Rig::new(0)?);
    let free = device.memory()?.0;
    if bench.is_standin && free > STANDIN_MOST {
        return Err(Halt::Skip("stand-in driver, whose memory is this machine's".to_owned()));
    }
    works(&mut rig)?;
    let (held, refusal) = fill(&stream)?;
    let left = device.memory()?.0;
    let Some(fault) = refusal.fault() else { return Err(refusal.into()) };
    ensure(fault.class == FaultClass::Resource, || format!("it is refused with {refusal}"))?;
    ensure(device.lost().is_none(), || format!("{refusal} has lost the device"))?;
    let full = works(&mut rig);
    drop(held);
    // The stream keeps what it was given back, until it asks for a size that it has not and there is too little.
    let kept = other.alloc::<u8>(PIECES[0]).map(drop);
    drop(stream.alloc::<u8>(ANOTHER)?);
    drop(other.alloc::<u8>(PIECES[0])?);
    works(&mut rig)?;
    ensure(device.lost().is_none(), || "the device is lost".to_owned())?;
    let full = full.map_or_else(|halt| format!("does not: {halt}"), |()| "computes".to_owned());
    let text = format!("refused with {} ({}); full, it {full}; emptied, it computes", fault.name, fault.code);
    let kept = kept.map_or_else(|error| error.to_string(), |()| "success".to_owned());
    let found = Found::new(text).figure("free_bytes", free).figure("left_bytes", left);
    Ok(found.figure("another_stream_before_it_is_given_back", kept))
}

/// Everything that there is, and how the last piece was refused.
fn fill(stream: &Stream) -> Result<(Vec<Buffer<u8>>, CudaError), Halt> {
    let mut held = Vec::new();
    let mut refusal = None;
    for piece in PIECES {
        loop {
            match stream.alloc::<u8>(piece) {
                Ok(buffer) => held.push(buffer),
                Err(error @ CudaError::Call { .. }) => {
                    refusal = Some(error);
                    break;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
    refusal.map(|refusal| (held, refusal)).ok_or_else(|| Halt::Fail("nothing was refused".to_owned()))
}

fn works(rig: &mut Rig) -> Result<(), Halt> {
    let order = Order::Add(vec![1, 2, 3], 10);
    let told = play(async { Ok(rig.execute_local(&order, &mut Context::detached()).await?) })?;
    ensure(told.values == [11, 12, 13], || format!("1, 2, 3 and 10 give {:?}", told.values))
}
