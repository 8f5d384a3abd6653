// Operations that only move values: Pad, Slice, the parts of a Concat, Flatten. One invocation writes one quad of one pixel,
// lane by lane, since channels change their place within quads. Workgroups: x and y over output quads, z over candidates.

// Output channel `c` at (y, x) is input channel `c - shift` at (y * stride - pad, x * stride - pad). Other lanes become zero, or
// stay as an earlier part of a Concat left them.
@compute @workgroup_size(64, 1, 1)
fn shift(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>) {
    let at = id.y * n.x * 64u + id.x;
    let p = place(id.z, at);
    if !p.is_there {
        return;
    }
    let me = candidates[id.z];
    let x = i32(p.x * step_.stride_w) - i32(step_.pad_w);
    let y = i32(p.y * step_.stride_h) - i32(step_.pad_h);
    let inside = x >= 0 && y >= 0 && u32(x) < step_.in_w && u32(y) < step_.in_h;
    let start = input_image(id.z, p.image, quads(me.n_in)) + u32(y) * step_.in_w + u32(x);
    let to = id.z * step_.out_stride + at;
    var value = vec4(0.0);
    if step_.clears == 0u {
        value = output[to];
    }
    for (var lane = 0u; lane < 4u; lane++) {
        let c = i32(p.quad * 4u + lane) - me.shift;
        if inside && c >= 0 && u32(c) < me.n_in && p.quad * 4u + lane < me.n_out {
            value[lane] = input[start + u32(c) / 4u * step_.in_h * step_.in_w][u32(c) % 4u];
        }
    }
    output[to] = value;
}

// `[c, h, w]` to the vector `c * h * w + y * w + x`, PyTorch's order.
@compute @workgroup_size(64, 1, 1)
fn flatten(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>) {
    let at = id.y * n.x * 64u + id.x;
    let p = place(id.z, at);
    if !p.is_there {
        return;
    }
    let me = candidates[id.z];
    let n_pixels = step_.in_h * step_.in_w;
    let start = input_image(id.z, p.image, quads(me.n_in));
    var value = vec4(0.0);
    for (var lane = 0u; lane < 4u; lane++) {
        let i = p.quad * 4u + lane;
        if i < me.n_out {
            let c = i / n_pixels;
            value[lane] = input[start + c / 4u * n_pixels + i - c * n_pixels][c % 4u];
        }
    }
    output[id.z * step_.out_stride + at] = value;
}
