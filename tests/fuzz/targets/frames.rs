//! What the other side of a worker's sockets sends is messages, or an error; nothing that is only claimed is allocated.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rustkernel::worker::fuzz_frames;

fuzz_target!(|bytes: &[u8]| {
    fuzz_frames(bytes);
    // A checksum is not guessed: the same bytes as the head of a frame that has one, with a body behind it.
    let (head, body) = bytes.split_at(bytes.len().min(usize::from(bytes.first().copied().unwrap_or(0))));
    let head = codec_frame(head);
    let mut frame = b"RKW1".to_vec();
    frame.extend((head.len() as u32).to_le_bytes());
    frame.extend((body.len() as u64).to_le_bytes());
    frame.extend(head);
    frame.extend(body);
    fuzz_frames(&frame);
});

fn codec_frame(body: &[u8]) -> Vec<u8> {
    let mut frame = b"RKF\x01".to_vec();
    frame.extend((body.len() as u32).to_le_bytes());
    frame.extend(crc32fast::hash(body).to_le_bytes());
    frame.extend(body);
    frame
}
