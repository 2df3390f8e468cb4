//! What a row needs in one more process.

use std::process::ExitCode;

use crate::context::Raw;
use crate::row::Halt;
use crate::{child, coredump, environment, floor, host_memory, images, owner};

/// Starts from nothing and gives one right answer.
pub(crate) const FIRST: &str = "first";
/// Keeps the device busy for 20 s and says when that has begun.
pub(crate) const SPIN: &str = "spin";

pub(crate) fn run(arguments: &[String]) -> ExitCode {
    child::end_with_parent();
    let Some((act, arguments)) = arguments.split_first() else { return ExitCode::from(2) };
    let done = match act.as_str() {
        environment::HEADER => {
            environment::tell_header();
            Ok(())
        }
        FIRST => first(),
        SPIN => spin(),
        floor::STRUCK => floor::struck(),
        floor::WARM => floor::warm(arguments),
        images::LOAD => images::load(),
        coredump::FAULT => coredump::fault(arguments),
        host_memory::WRITE => host_memory::write(arguments),
        host_memory::READ => host_memory::read(arguments),
        owner::GUEST => owner::guest(arguments),
        unknown => Err(Halt::Fail(format!("what is the act `{unknown}`?"))),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(halt) => {
            eprintln!("{act}: {halt}");
            ExitCode::FAILURE
        }
    }
}

fn first() -> Result<(), Halt> {
    Raw::open()?.primary()?.canary()?;
    child::tell(&true);
    Ok(())
}

fn spin() -> Result<(), Halt> {
    let raw = Raw::open()?;
    let context = raw.primary()?;
    let (stream, never, spin) = (context.stream()?, context.word()?, context.ready("rk_spin")?);
    context.spin(&spin, stream, never.there, SPIN_NS)?.ok("cuLaunchKernel")?;
    child::tell(&true);
    context.settle(stream)?.ok("cuStreamQuery")
}

const SPIN_NS: u64 = 20_000_000_000;
