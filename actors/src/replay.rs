//! Running a dead letter again.
//!
//! The kept input becomes a fresh request: it is admitted like every other, with all its attempts before it. A letter that is answered
//! is removed; one that fails again stays and tells of its last failure.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use rustkernel_core::codec::CodecError;
use rustkernel_core::envelope::Deadline;
use rustkernel_core::traits::Payload;
use rustkernel_core::{KernelError, KernelId};

use crate::contain::contain;
use crate::dead_letter::{DeadLetter, Replay};
use crate::kernel_ref::KernelRef;
use crate::slot::Slot;

/// Why a dead letter was not answered. The letter stays, if it is kept.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReplayError {
    /// No such letter is kept.
    #[error("no dead letter has the number {letter}")]
    UnknownLetter {
        /// The number asked for.
        letter: u64,
    },
    /// The letter's kernel is not here. Nothing ran.
    #[error("kernel {kernel} of the letter is not here")]
    UnknownKernel {
        /// The letter's kernel.
        kernel: KernelId,
    },
    /// The letter is being replayed. That replay goes on.
    #[error("dead letter {letter} is being replayed already")]
    AlreadyReplaying {
        /// The letter.
        letter: u64,
    },
    /// The letter's input was not kept: it was too long, or made room for later ones. Nothing ran.
    #[error("the input of dead letter {letter} was not kept")]
    NoInput {
        /// The letter.
        letter: u64,
    },
    /// The kernel is registered without a codec. Nothing ran.
    #[error("kernel {kernel} is registered without a codec")]
    NotPortable {
        /// The kernel.
        kernel: KernelId,
    },
    /// The kept input cannot be decoded. Nothing ran.
    #[error("the input cannot be decoded: {0}")]
    Codec(#[source] CodecError),
    /// The input's own decoding panicked. Nothing ran.
    #[error("decoding the input panicked")]
    CodecPanicked,
    /// The request was refused, or failed again; the error says which, and whether it ran.
    #[error("the request failed: {0}")]
    Failed(#[source] KernelError),
}

/// A replay whose answer nobody reads.
pub(crate) type Replaying = Pin<Box<dyn Future<Output = Result<(), ReplayError>> + Send>>;

impl<I: Payload, O: Payload> KernelRef<I, O> {
    /// Runs a dead letter of this kernel again and returns its answer. One that the runtime still keeps is removed when it has been
    /// answered; one that comes from elsewhere, from an earlier process for example, is run all the same.
    ///
    /// # Errors
    /// [`ReplayError`] says what is missing, or how the request failed.
    ///
    /// # Cancel safety
    /// Dropping the future cancels the request and gives the letter back.
    pub async fn replay(&self, letter: &DeadLetter, deadline: impl Into<Deadline>) -> Result<O, ReplayError> {
        if letter.kernel != *self.id() {
            return Err(ReplayError::UnknownKernel { kernel: letter.kernel.clone() });
        }
        let replay = self.slot.links.operator.letters().begin_replay_of(letter)?;
        self.run_again(letter, replay, deadline.into()).await
    }

    async fn run_again(
        &self,
        letter: &DeadLetter,
        replay: Replay,
        deadline: Deadline,
    ) -> Result<O, ReplayError> {
        let codec = self.slot.rules.codec;
        let codec = codec.ok_or_else(|| ReplayError::NotPortable { kernel: self.id().clone() })?;
        let frame = letter.input.as_ref().ok_or(ReplayError::NoInput { letter: letter.letter })?;
        let decoded = contain("a codec", || (codec.decode)(frame)).ok_or(ReplayError::CodecPanicked)?;
        let input = decoded.map_err(ReplayError::Codec)?;
        let reply = self.submit(input, deadline, |request| replay.accepted_as(request));
        let reply = reply.map_err(|refused| {
            contain("dropping an input", || drop(refused.input));
            ReplayError::Failed(refused.error)
        })?;
        let answer = reply.await.map_err(ReplayError::Failed)?;
        replay.answered();
        Ok(answer)
    }
}

/// Runs `letter` again in `slot`, whose types the caller does not know.
pub(crate) fn replay_in<I: Payload, O: Payload>(
    slot: Arc<Slot<I, O>>,
    letter: DeadLetter,
    replay: Replay,
    deadline: Deadline,
) -> Replaying {
    Box::pin(async move {
        let answer = KernelRef { slot }.run_again(&letter, replay, deadline).await?;
        contain("dropping an answer", || drop(answer));
        Ok(())
    })
}
