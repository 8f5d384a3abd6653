// Sums and activations that stand alone, and softmax. Workgroups: x and y over output quads (softmax: pixels), z over candidates.

// `out = activation(input + residual + old output)`, the latter two where the step says so.
@compute @workgroup_size(64, 1, 1)
fn combine(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>) {
    let at = id.y * n.x * 64u + id.x;
    let p = place(id.z, at);
    if p.is_there {
        finish(id.z, candidates[id.z].n_out, at, p.quad, input[input_base(id.z) + at]);
    }
}

// Over the channels of one pixel, relative to the largest.
@compute @workgroup_size(64, 1, 1)
fn softmax(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>) {
    let at = id.y * n.x * 64u + id.x;
    let n_out = candidates[id.z].n_out;
    let n_quads = quads(n_out);
    let n_pixels = step_.out_h * step_.out_w;
    if at >= chunk.n_images * n_pixels {
        return;
    }
    // First quad of the pixel; the others follow at a distance of a plane.
    let image = at / n_pixels;
    let first = image * n_pixels * n_quads + at - image * n_pixels;
    let start = input_base(id.z) + first;
    let to = id.z * step_.out_stride + first;
    var most = input[start].x;
    for (var c = 1u; c < n_out; c++) {
        most = max(most, input[start + c / 4u * n_pixels][c % 4u]);
    }
    var sum = 0.0;
    for (var c = 0u; c < n_out; c++) {
        sum += exp(input[start + c / 4u * n_pixels][c % 4u] - most);
    }
    for (var quad = 0u; quad < n_quads; quad++) {
        let x = input[start + quad * n_pixels];
        // An exponential of NaN may be anything.
        let y = select(exp(x - most) / sum, x, is_nan(x));
        output[to + quad * n_pixels] = select(vec4(0.0), y, lanes(quad, n_out));
    }
}
