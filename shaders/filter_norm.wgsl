// Sums of absolute values and of squares of many rows of weights at once: every filter and every input channel of every layer of
// a network is a row. `segments` adds up pieces of rows, `rows` the pieces of each row; both run in one submission. Adding in two
// stages keeps long sums precise. CPU twin: `channel_norms` of secateur-kernels.
//
// Element `e` of a row is `source[first + e / inner * outer_stride + e % inner]`: a filter is contiguous, an input channel is
// `inner` taps out of every filter of its group.

// Mirrored by `NormRow` in crates/gpu/src/layout.rs.
struct NormRow {
    first: u32,
    n: u32,
    inner: u32,
    outer_stride: u32,
    // First and number of its segments.
    first_segment: u32,
    n_segments: u32,
    reserved_0: u32,
    reserved_1: u32,
}

@group(0) @binding(0) var<storage, read> norm_rows: array<NormRow>;
// The row of every segment.
@group(0) @binding(1) var<storage, read> row_of: array<u32>;
@group(0) @binding(2) var<storage, read> source: array<f32>;
// (sum of absolute values, sum of squares) of segments, of rows.
@group(0) @binding(3) var<storage, read_write> partial: array<vec2<f32>>;
@group(0) @binding(4) var<storage, read_write> norms: array<vec2<f32>>;

// Elements of a segment.
override SEGMENT: u32 = 64u;

@compute @workgroup_size(64, 1, 1)
fn segments(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>) {
    let at = id.y * n.x * 64u + id.x;
    if at >= arrayLength(&row_of) {
        return;
    }
    let row = norm_rows[row_of[at]];
    let begin = (at - row.first_segment) * SEGMENT;
    var sum = vec2(0.0);
    for (var e = begin; e < min(begin + SEGMENT, row.n); e++) {
        let outer = e / row.inner;
        let w = source[row.first + outer * row.outer_stride + e - outer * row.inner];
        sum += vec2(abs(w), w * w);
    }
    partial[at] = sum;
}

@compute @workgroup_size(64, 1, 1)
fn rows(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>) {
    let at = id.y * n.x * 64u + id.x;
    if at >= arrayLength(&norm_rows) {
        return;
    }
    let row = norm_rows[at];
    var total = vec2(0.0);
    for (var block = 0u; block < row.n_segments; block += 32u) {
        var sum = vec2(0.0);
        for (var s = block; s < min(block + 32u, row.n_segments); s++) {
            sum += partial[row.first_segment + s];
        }
        total += sum;
    }
    norms[at] = total;
}
