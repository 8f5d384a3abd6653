// Maximum and mean over windows; the mean over a whole image is a window of its size. One invocation computes one quad of one
// pixel. Workgroups: x and y over output quads, z over candidates. CPU twins: MaxPool, AvgPool, GlobalAvgPool of secateur-kernels.

// Rows and columns of a window, within the image, where the image begins, and by how many pixels an average is divided.
struct Window {
    start: u32,
    top: i32,
    bottom: i32,
    left: i32,
    right: i32,
    counted: f32,
}

fn window(candidate: u32, p: Place) -> Window {
    let n_quads = quads(candidates[candidate].n_out);
    let y = i32(p.y * step_.stride_h) - i32(step_.pad_h);
    let x = i32(p.x * step_.stride_w) - i32(step_.pad_w);
    let top = max(y, 0);
    let left = max(x, 0);
    let bottom = min(y + i32(step_.kernel_h), i32(step_.in_h));
    let right = min(x + i32(step_.kernel_w), i32(step_.in_w));
    var rows = bottom - top;
    var columns = right - left;
    if step_.counts_padding != 0u {
        // What lies beyond the padding does not count.
        rows = min(y + i32(step_.kernel_h), i32(step_.in_h + step_.pad_below)) - y;
        columns = min(x + i32(step_.kernel_w), i32(step_.in_w + step_.pad_right)) - x;
    }
    let start = input_image(candidate, p.image, n_quads) + p.quad * step_.in_h * step_.in_w;
    return Window(start, top, bottom, left, right, f32(rows) * f32(columns));
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
    let w = window(id.z, p);
    var most = vec4(0.0);
    var is_first = true;
    for (var y = w.top; y < w.bottom; y++) {
        for (var x = w.left; x < w.right; x++) {
            let v = input[w.start + u32(y) * step_.in_w + u32(x)];
            most = select(larger(most, v), v, is_first);
            is_first = false;
        }
    }
    finish(id.z, candidates[id.z].n_out, at, p.quad, most);
}

// Padding counts as zeros, or not at all.
@compute @workgroup_size(64, 1, 1)
fn average_pool(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>) {
    let at = id.y * n.x * 64u + id.x;
    let p = place(id.z, at);
    if !p.is_there {
        return;
    }
    let w = window(id.z, p);
    var sum = vec4(0.0);
    for (var y = w.top; y < w.bottom; y++) {
        // Row by row, so that large images lose no precision.
        var row = vec4(0.0);
        for (var x = w.left; x < w.right; x++) {
            row += input[w.start + u32(y) * step_.in_w + u32(x)];
        }
        sum += row;
    }
    finish(id.z, candidates[id.z].n_out, at, p.quad, sum / w.counted);
}
