// Puts the weights of one layer of every candidate into the order that masked_conv2d.wgsl reads, kept channels only.
//
// Two ways in. A candidate's own weights, already without the removed channels: one source each, no masks. Or weights that all
// candidates share, `[full outputs][full inputs of a group][taps]`, and two bit masks per candidate, bit `c` of word `c / 32`
// telling whether channel `c` stays. Workgroups: x and y over the quads written, z over candidates.

// Mirrored by `PackLayer` in crates/gpu/src/layout.rs.
struct PackLayer {
    taps: u32,
    // Input channels are padded to a multiple of this: 4, or 1 where filters read channel by channel.
    in_multiple: u32,
    // Output quads that are computed together, and lie together; 0: all of a candidate's.
    block: u32,
    reserved_0: u32,
}

// Mirrored by `PackJob` in crates/gpu/src/layout.rs.
struct PackJob {
    // First weight and first bias in `source`; no bias: NONE.
    weight: u32,
    bias: u32,
    // Inputs of a filter in the source.
    full_in: u32,
    // Inputs of a filter and number of filters that stay.
    n_in: u32,
    n_out: u32,
    // First words of the masks of inputs (of one group) and of outputs; NONE: all stay.
    in_mask: u32,
    out_mask: u32,
    // First quad written.
    packed: u32,
}

const NONE: u32 = 0xffffffffu;

@group(0) @binding(0) var<uniform> layer: PackLayer;
@group(0) @binding(1) var<storage, read> jobs: array<PackJob>;
@group(0) @binding(2) var<storage, read> source: array<f32>;
@group(0) @binding(3) var<storage, read> masks: array<u32>;
@group(0) @binding(4) var<storage, read_write> packed: array<vec4<f32>>;

// The channel that is the `n`-th to stay.
fn kept(mask: u32, n: u32) -> u32 {
    if mask == NONE {
        return n;
    }
    var word = 0u;
    var left = n;
    var bits = masks[mask];
    // The host counted the bits: there is an n-th one.
    while left >= countOneBits(bits) {
        left -= countOneBits(bits);
        word += 1u;
        bits = masks[mask + word];
    }
    for (; left > 0u; left--) {
        bits &= bits - 1u;
    }
    return word * 32u + firstTrailingBit(bits);
}

// Rows of one block: the taps of `in_multiple` input channels, then those of the next ones, at last the biases.
fn n_rows(job: PackJob) -> u32 {
    return layer.taps * ((job.n_in + layer.in_multiple - 1u) / layer.in_multiple * layer.in_multiple) + 1u;
}

fn value(job: PackJob, row: u32, filter_: u32) -> f32 {
    if filter_ >= job.n_out {
        return 0.0;
    }
    let o = kept(job.out_mask, filter_);
    if row + 1u == n_rows(job) {
        if job.bias == NONE {
            return 0.0;
        }
        return source[job.bias + o];
    }
    let tap = row / layer.in_multiple % layer.taps;
    let i = row / (layer.in_multiple * layer.taps) * layer.in_multiple + row % layer.in_multiple;
    if i >= job.n_in {
        return 0.0;
    }
    return source[job.weight + (o * job.full_in + kept(job.in_mask, i)) * layer.taps + tap];
}

@compute @workgroup_size(64, 1, 1)
fn pack(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>) {
    let job = jobs[id.z];
    let at = id.y * n.x * 64u + id.x;
    let out_quads = (job.n_out + 3u) / 4u;
    let block = max(select(layer.block, out_quads, layer.block == 0u), 1u);
    let per_block = n_rows(job) * block;
    let n_blocks = (out_quads + block - 1u) / block;
    if at >= n_blocks * per_block {
        return;
    }
    let in_block = at % per_block;
    let row = in_block / block;
    let first = (at / per_block * block + in_block % block) * 4u;
    packed[job.packed + at] =
        vec4(value(job, row, first), value(job, row, first + 1u), value(job, row, first + 2u), value(job, row, first + 3u));
}
