//! What a state folder holds is a record of this kernel, or an error.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rustkernel::core::KernelId;
use rustkernel::core::checkpoint;
use rustkernel::core::codec;
use rustkernel::core::trace::TraceContext;
use rustkernel::kernels::graph::Graph;

fuzz_target!(|bytes: &[u8]| {
    let kernel = KernelId::new("a/b").unwrap();
    if let Ok(opened) = checkpoint::open(&kernel, bytes) {
        assert_eq!(checkpoint::seal(&kernel, opened.sequence, opened.payload), bytes);
    }
    // A checksum is not guessed.
    let mut frame = b"RKF\x01".to_vec();
    frame.extend((bytes.len() as u32).to_le_bytes());
    frame.extend(crc32fast::hash(bytes).to_le_bytes());
    frame.extend(bytes);
    if let Ok(graph) = codec::decode::<Graph>(&frame) {
        assert_eq!(codec::decode::<Graph>(&codec::encode(&graph).unwrap()).unwrap(), graph);
    }
    let _ = codec::decode::<TraceContext>(&frame);
    let _ = codec::decode::<Vec<(String, Option<u64>)>>(&frame);
    let _ = codec::decode_as::<u64>("count", bytes);
});
