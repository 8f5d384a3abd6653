// Operations that only move values: Pad, Slice, the parts of a Concat, Flatten. One invocation writes one quad of one pixel,
// lane by lane, since channels change their place within quads. Workgroups: x and y over output quads, z over candidates.

struct Target {
    pixel: u32,
    quad: u32,
    is_there: bool,
}

fn aim(candidate: u32, at: u32) -> Target {
    let n_quads = quads(candidates[candidate].n_out);
    if n_quads == 0u || at >= chunk.n_images * step_.out_h * step_.out_w * n_quads {
        return Target(0u, 0u, false);
    }
    let pixel = at / n_quads;
    return Target(pixel, at - pixel * n_quads, true);
}

// Output channel `c` at (y, x) is input channel `c - shift` at (y * stride - pad, x * stride - pad). Other lanes become zero, or
// stay as an earlier part of a Concat left them.
@compute @workgroup_size(64, 1, 1)
fn shift(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>) {
    let at = id.y * n.x * 64u + id.x;
    let t = aim(id.z, at);
    if !t.is_there {
        return;
    }
    let me = candidates[id.z];
    let in_quads = quads(me.n_in);
    let x = i32(t.pixel % step_.out_w * step_.stride_w) - i32(step_.pad_w);
    let y = i32(t.pixel / step_.out_w % step_.out_h * step_.stride_h) - i32(step_.pad_h);
    let image = t.pixel / (step_.out_w * step_.out_h);
    let inside = x >= 0 && y >= 0 && u32(x) < step_.in_w && u32(y) < step_.in_h;
    let start = input_base(id.z) + (image * step_.in_h * step_.in_w + u32(y) * step_.in_w + u32(x)) * in_quads;
    let to = id.z * step_.out_stride + at;
    var value = vec4(0.0);
    if step_.clears == 0u {
        value = output[to];
    }
    for (var lane = 0u; lane < 4u; lane++) {
        let c = i32(t.quad * 4u + lane) - me.shift;
        if inside && c >= 0 && u32(c) < me.n_in && t.quad * 4u + lane < me.n_out {
            value[lane] = input[start + u32(c) / 4u][u32(c) % 4u];
        }
    }
    output[to] = value;
}

// `[h, w, c]` to the channel-major vector `c * h * w + y * w + x`, PyTorch's order.
@compute @workgroup_size(64, 1, 1)
fn flatten(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>) {
    let at = id.y * n.x * 64u + id.x;
    let t = aim(id.z, at);
    if !t.is_there {
        return;
    }
    let me = candidates[id.z];
    let in_quads = quads(me.n_in);
    let n_pixels = step_.in_h * step_.in_w;
    let start = input_base(id.z) + t.pixel * n_pixels * in_quads;
    var value = vec4(0.0);
    for (var lane = 0u; lane < 4u; lane++) {
        let i = t.quad * 4u + lane;
        if i < me.n_out {
            let c = i / n_pixels;
            value[lane] = input[start + (i - c * n_pixels) * in_quads + c / 4u][c % 4u];
        }
    }
    output[id.z * step_.out_stride + at] = value;
}
