// Sums and activations that stand alone, and softmax. Workgroups: x and y over output quads (softmax: pixels), z over candidates.

// `out = activation(input + residual + old output)`, the latter two where the step says so.
@compute @workgroup_size(64, 1, 1)
fn combine(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>) {
    let at = id.y * n.x * 64u + id.x;
    let n_out = candidates[id.z].n_out;
    let n_quads = quads(n_out);
    if n_quads == 0u || at >= chunk.n_images * step_.out_h * step_.out_w * n_quads {
        return;
    }
    finish(id.z, n_out, at, at % n_quads, input[input_base(id.z) + at]);
}

// Over the channels of one pixel, relative to the largest.
@compute @workgroup_size(64, 1, 1)
fn softmax(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>) {
    let pixel = id.y * n.x * 64u + id.x;
    let n_out = candidates[id.z].n_out;
    let n_quads = quads(n_out);
    if pixel >= chunk.n_images * step_.out_h * step_.out_w {
        return;
    }
    let start = input_base(id.z) + pixel * n_quads;
    let to = id.z * step_.out_stride + pixel * n_quads;
    var most = input[start].x;
    for (var c = 1u; c < n_out; c++) {
        most = max(most, input[start + c / 4u][c % 4u]);
    }
    var sum = 0.0;
    for (var c = 0u; c < n_out; c++) {
        sum += exp(input[start + c / 4u][c % 4u] - most);
    }
    for (var quad = 0u; quad < n_quads; quad++) {
        let x = input[start + quad];
        // An exponential of NaN may be anything.
        let y = select(exp(x - most) / sum, x, is_nan(x));
        output[to + quad] = select(vec4(0.0), y, lanes(quad, n_out));
    }
}
