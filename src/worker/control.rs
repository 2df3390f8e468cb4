//! The control socket: one message a packet, and a kernel's socket and memory beside it where they are handed over.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use rustkernel_core::codec;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::wire::{MAX_PACKET_BYTES, WireError};

/// The two ends of a control socket. Neither is inherited by other processes that happen to be started.
pub(super) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
}

/// Sends a message, with at most two descriptors beside it. Does not wait: a peer that reads nothing is as bad as one that is gone.
pub(super) fn send(
    socket: impl AsFd,
    message: &impl Serialize,
    beside: &[BorrowedFd<'_>],
) -> Result<(), WireError> {
    let bytes = codec::encode(message)?;
    if bytes.len() > MAX_PACKET_BYTES {
        let (bytes, limit) = (bytes.len() as u64, MAX_PACKET_BYTES as u64);
        return Err(WireError::TooLong { part: "message", bytes, limit });
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !beside.is_empty() {
        let fits = ancillary.push(SendAncillaryMessage::ScmRights(beside));
        debug_assert!(fits, "the space is for two");
    }
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    retry(|| sendmsg(&socket, &[IoSlice::new(&bytes)], &mut ancillary, flags))?;
    Ok(())
}

/// What [`receive`] found.
pub(super) enum Received<T> {
    Message(T, Vec<OwnedFd>),
    /// Nothing yet, where the caller does not wait.
    Nothing,
    Closed,
}

/// Receives a message.
pub(super) fn receive<T: DeserializeOwned>(
    socket: impl AsFd,
    buffer: &mut Vec<u8>,
    wait: bool,
) -> Result<Received<T>, WireError> {
    buffer.resize(MAX_PACKET_BYTES, 0);
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC | if wait { RecvFlags::empty() } else { RecvFlags::DONTWAIT };
    let received =
        retry(|| recvmsg(&socket, &mut [IoSliceMut::new(buffer.as_mut_slice())], &mut ancillary, flags));
    let received = match received {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Received::Nothing),
        // As good as closed: the other process is gone, with something unread.
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(Received::Closed),
        received => received?,
    };
    if received.bytes == 0 {
        return Ok(Received::Closed);
    }
    if received.flags.contains(ReturnFlags::TRUNC) {
        return Err(WireError::NotAFrame);
    }
    let message = codec::decode(&buffer[..received.bytes])?;
    let mut beside = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(fds) = message {
            beside.extend(fds);
        }
    }
    Ok(Received::Message(message, beside))
}

fn retry<T>(mut call: impl FnMut() -> rustix::io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(rustix::io::Errno::INTR) => {}
            result => return Ok(result?),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use super::super::wire::{FromWorker, ToWorker};
    use super::*;

    #[test]
    fn a_socket_travels_beside_its_message() {
        let (here, there) = pair().unwrap();
        let (mut mine, theirs) = UnixStream::pair().unwrap();
        let attach = ToWorker::Attach { kernel: 3, name: "a/b".into(), settings: vec![1, 2] };
        send(&here, &attach, &[theirs.as_fd()]).unwrap();
        let mut buffer = Vec::new();
        let Received::Message(ToWorker::Attach { kernel: 3, .. }, mut beside) =
            receive(&there, &mut buffer, true).unwrap()
        else {
            panic!("another message")
        };
        UnixStream::from(beside.remove(0)).write_all(b"hello").unwrap();
        let mut said = [0; 5];
        mine.read_exact(&mut said).unwrap();
        assert_eq!(&said, b"hello");
    }

    #[test]
    fn garbage_and_a_close_are_told_apart_from_nothing() {
        let (here, there) = pair().unwrap();
        let mut buffer = Vec::new();
        assert!(matches!(receive::<FromWorker>(&here, &mut buffer, false), Ok(Received::Nothing)));
        rustix::io::write(&there, b"garbage").unwrap();
        assert!(matches!(receive::<FromWorker>(&here, &mut buffer, false), Err(WireError::Message(_))));
        drop(there);
        assert!(matches!(receive::<FromWorker>(&here, &mut buffer, false), Ok(Received::Closed)));
    }

    #[test]
    fn a_message_that_is_too_long_is_refused_by_its_sender() {
        let (here, _there) = pair().unwrap();
        let attach = ToWorker::Attach { kernel: 1, name: "a/b".into(), settings: vec![0; MAX_PACKET_BYTES] };
        assert!(matches!(send(&here, &attach, &[]), Err(WireError::TooLong { part: "message", .. })));
    }
}
