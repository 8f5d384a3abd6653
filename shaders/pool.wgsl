// Maximum and mean over windows; the mean over a whole image is a window of its size. One invocation computes one quad of one
// pixel. Workgroups: x and y over output quads, z over candidates. CPU twins: MaxPool, AvgPool, GlobalAvgPool of secateur-kernels.

struct Place {
    quad: u32,
    n_quads: u32,
    // First quad of the input image.
    image: u32,
    y: i32,
    x: i32,
    is_there: bool,
}

fn place(candidate: u32, at: u32) -> Place {
    let n_quads = quads(candidates[candidate].n_out);
    if n_quads == 0u || at >= chunk.n_images * step_.out_h * step_.out_w * n_quads {
        return Place(0u, 0u, 0u, 0, 0, false);
    }
    let pixel = at / n_quads;
    let column = pixel % step_.out_w;
    let row = pixel / step_.out_w % step_.out_h;
    let image = pixel / (step_.out_w * step_.out_h);
    return Place(
        at - pixel * n_quads,
        n_quads,
        input_base(candidate) + image * step_.in_h * step_.in_w * n_quads,
        i32(row * step_.stride_h) - i32(step_.pad_h),
        i32(column * step_.stride_w) - i32(step_.pad_w),
        true,
    );
}

// NaN wins.
fn larger(a: vec4<f32>, b: vec4<f32>) -> vec4<f32> {
    return select(select(a, b, b > a), select(b, a, is_nan(a)), is_nan(a) | is_nan(b));
}

@compute @workgroup_size(64, 1, 1)
fn max_pool(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>) {
    let at = id.y * n.x * 64u + id.x;
    let p = place(id.z, at);
    if !p.is_there {
        return;
    }
    var most = vec4(0.0);
    var is_first = true;
    for (var y = max(p.y, 0); y < min(p.y + i32(step_.kernel_h), i32(step_.in_h)); y++) {
        for (var x = max(p.x, 0); x < min(p.x + i32(step_.kernel_w), i32(step_.in_w)); x++) {
            let v = input[p.image + (u32(y) * step_.in_w + u32(x)) * p.n_quads + p.quad];
            most = select(larger(most, v), v, is_first);
            is_first = false;
        }
    }
    finish(id.z, candidates[id.z].n_out, at, p.quad, most);
}

// Padding counts as zeros.
@compute @workgroup_size(64, 1, 1)
fn average_pool(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>) {
    let at = id.y * n.x * 64u + id.x;
    let p = place(id.z, at);
    if !p.is_there {
        return;
    }
    var sum = vec4(0.0);
    for (var y = max(p.y, 0); y < min(p.y + i32(step_.kernel_h), i32(step_.in_h)); y++) {
        // Row by row, so that large images lose no precision.
        var row = vec4(0.0);
        for (var x = max(p.x, 0); x < min(p.x + i32(step_.kernel_w), i32(step_.in_w)); x++) {
            row += input[p.image + (u32(y) * step_.in_w + u32(x)) * p.n_quads + p.quad];
        }
        sum += row;
    }
    finish(id.z, candidates[id.z].n_out, at, p.quad, sum / f32(step_.kernel_h * step_.kernel_w));
}
