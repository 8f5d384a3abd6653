//! Safetensors with and without a description: the bytes are the header, behind which as many zeros lie as it asks for.

#![no_main]

use libfuzzer_sys::fuzz_target;
use secateur_formats::weights_from_bytes;
use secateur_net::Network;

/// So many bytes of elements are made at most.
const ELEMENT_BYTES_MAX: usize = 1 << 16;

fuzz_target!(|header: &[u8]| {
    // The numbers of bytes that the header may mean: a file of another size is refused at once.
    for n in numbers(header) {
        let file = [&(header.len() as u64).to_le_bytes()[..], header, &vec![0; n]].concat();
        if let Ok(file) = weights_from_bytes(&file)
            && let Some(description) = file.description
        {
            drop(Network::new(description.graph, file.weights));
        }
    }
});

/// The last numbers in brackets, each the end of a tensor's elements perhaps, and 0.
fn numbers(header: &[u8]) -> Vec<usize> {
    let text = String::from_utf8_lossy(header);
    let ends = text.rsplit(']').skip(1).filter_map(|part| part.rsplit([',', '[']).next()?.trim().parse().ok());
    let mut out: Vec<usize> = ends.filter(|&n| n <= ELEMENT_BYTES_MAX).take(4).chain([0]).collect();
    out.sort_unstable();
    out.dedup();
    out
}
