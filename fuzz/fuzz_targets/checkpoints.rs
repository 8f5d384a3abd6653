//! Bodies of checkpoints, sealed with the checksum that a run would have written.

#![no_main]

use libfuzzer_sys::fuzz_target;
use secateur::run::{read_checkpoint, seal_checkpoint};

fuzz_target!(|body: &[u8]| {
    if let Ok(again) = read_checkpoint(&seal_checkpoint(body)) {
        assert_eq!(read_checkpoint(&again).expect("what was written is read"), again);
    }
    drop(read_checkpoint(body));
});
