// Operations that only move values: Pad, Slice, the parts of a Concat, Flatten. One invocation writes one quad of one pixel,
// lane by lane, since channels change their place within quads. Workgroups: x and y over output quads, z over candidates.

// Where output channels of one pixel come from.
struct Origin {
    // First quad of the pixel in the input, and from one quad of its channels to the next.
    start: u32,
    plane: u32,
    is_inside: bool,
}

// Channel number `c` of the output; `otherwise` where nothing is moved there.
fn moved(me: Candidate, origin: Origin, c: u32, otherwise: f32) -> f32 {
    let source = i32(c) - me.shift;
    if origin.is_inside && source >= 0 && u32(source) < me.n_in && c < me.n_out {
        return input[origin.start + u32(source) / 4u * origin.plane][u32(source) % 4u];
    }
    return otherwise;
}

// Output channel `c` at (y, x) is input channel `c - shift` at (y * stride - pad, x * stride - pad). Other lanes become zero, or
// stay as an earlier part of a Concat left them. Lanes are never stored one by one: FXC (DX12) refuses that.
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
    let origin = Origin(start, step_.in_h * step_.in_w, inside);
    let to = id.z * step_.out_stride + at;
    var old = vec4(0.0);
    if step_.clears == 0u {
        old = output[to];
    }
    let c = p.quad * 4u;
    output[to] = vec4(
        moved(me, origin, c, old.x), moved(me, origin, c + 1u, old.y), moved(me, origin, c + 2u, old.z), moved(me, origin, c + 3u, old.w)
    );
}

// Element `i` of the vector; 0 behind its end.
fn element(me: Candidate, start: u32, i: u32) -> f32 {
    if i >= me.n_out {
        return 0.0;
    }
    let n_pixels = step_.in_h * step_.in_w;
    let c = i / n_pixels;
    return input[start + c / 4u * n_pixels + i - c * n_pixels][c % 4u];
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
    let start = input_image(id.z, p.image, quads(me.n_in));
    let i = p.quad * 4u;
    output[id.z * step_.out_stride + at] =
        vec4(element(me, start, i), element(me, start, i + 1u), element(me, start, i + 2u), element(me, start, i + 3u));
}
