//! Peak memory from the lifetimes of buffers.

use anyhow::Context;

use crate::operation::Operation;

/// One piece of memory: from the step that first writes it to the step that last reads it.
struct Buffer {
    bytes: u64,
    born: usize,
    dies: usize,
}

/// The largest sum of live buffers over all steps. An operation that works in place takes over the buffer of its input,
/// if nobody reads that input later.
pub(super) fn peak_bytes(operations: &[Operation]) -> anyhow::Result<u64> {
    let n = operations.len();
    // What nobody reads is the network's output and stays.
    let mut last_read = vec![n; n];
    for (step, operation) in operations.iter().enumerate() {
        operation.inputs.iter().for_each(|&input| last_read[input] = step);
    }
    let mut buffers: Vec<Buffer> = Vec::new();
    let mut held_in = vec![0; n];
    for (step, operation) in operations.iter().enumerate() {
        let taken_over = operation.inputs.first().filter(|&&input| operation.in_place && last_read[input] == step);
        held_in[step] = match taken_over {
            Some(&input) => held_in[input],
            None => {
                let bytes = operation.certified.output.iter().try_fold(4u64, |n, &d| n.checked_mul(d));
                buffers.push(Buffer {
                    bytes: bytes.context("a tensor does not fit in 64 bits")?,
                    born: step,
                    dies: step,
                });
                buffers.len() - 1
            }
        };
        let buffer = &mut buffers[held_in[step]];
        buffer.dies = buffer.dies.max(last_read[step]);
    }
    let mut dying = vec![0u64; n + 1];
    // Bytes of the buffers that die in a step; their sum is part of what was live, which is checked below.
    buffers.iter().for_each(|b| dying[b.dies] = dying[b.dies].saturating_add(b.bytes));
    let (mut live, mut peak) = (0u64, 0);
    // Buffers stand in the order of their births.
    let mut births = buffers.iter().peekable();
    for (step, &freed) in dying.iter().enumerate().take(n) {
        while let Some(born) = births.next_if(|b| b.born == step) {
            live = live.checked_add(born.bytes).context("the peak does not fit in 64 bits")?;
        }
        peak = peak.max(live);
        live = live.saturating_sub(freed);
    }
    Ok(peak)
}
