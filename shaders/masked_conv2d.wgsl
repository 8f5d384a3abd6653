// Convolution of many candidates in one dispatch: `out = activation(sum of kept input channels * weights + bias + residual)`.
//
// A candidate keeps some channels of every layer. Its activations and weights hold the kept ones only, so a removed channel costs
// nothing: it is skipped, never multiplied by zero. Weights come from pack_weights.wgsl, either out of a candidate's own repaired
// weights or out of shared ones by the bit mask of what it keeps.
//
// Weights of one candidate: quads `[tap][input channel, padded to fours][output quad]`, then one row of biases. Depthwise and
// grouped: `[tap][input channel of a group][output quad]`, then the biases. Workgroups: x over output pixels, y over output
// quads, z over candidates. CPU twin: `Plan` of secateur-kernels. `Linear` is a 1x1 convolution of a 1x1 image.

override TILE_X: u32 = 64u;
override TILE_Y: u32 = 1u;

// Where the window of an output pixel begins.
struct Origin {
    // First quad of the image.
    base: u32,
    y: i32,
    x: i32,
    is_pixel: bool,
}

fn origin(candidate: u32, n_in_quads: u32, pixel: u32, n_pixels: u32) -> Origin {
    let per_image = step_.out_h * step_.out_w;
    let image = pixel / per_image;
    let at = pixel - image * per_image;
    let y = at / step_.out_w;
    let x = at - y * step_.out_w;
    return Origin(
        input_base(candidate) + image * step_.in_h * step_.in_w * n_in_quads,
        i32(y * step_.stride_h) - i32(step_.pad_h),
        i32(x * step_.stride_w) - i32(step_.pad_w),
        pixel < n_pixels,
    );
}

// First quad of the input pixel under a tap; the second value tells whether it lies inside the image.
struct Tap {
    at: u32,
    is_inside: bool,
}

fn tap_of(o: Origin, n_in_quads: u32, ky: u32, kx: u32) -> Tap {
    let y = o.y + i32(ky * step_.dilation_h);
    let x = o.x + i32(kx * step_.dilation_w);
    let inside = o.is_pixel && y >= 0 && x >= 0 && u32(y) < step_.in_h && u32(x) < step_.in_w;
    let at = o.base + (u32(y) * step_.in_w + u32(x)) * n_in_quads;
    return Tap(select(0u, at, inside), inside);
}

fn load(tap: Tap, quad: u32) -> vec4<f32> {
    if tap.is_inside {
        return input[tap.at + quad];
    }
    return vec4(0.0);
}

// Four input channels times their rows of weights.
fn accumulate(sum: vec4<f32>, x: vec4<f32>, w0: vec4<f32>, w1: vec4<f32>, w2: vec4<f32>, w3: vec4<f32>) -> vec4<f32> {
    return fma(vec4(x.w), w3, fma(vec4(x.z), w2, fma(vec4(x.y), w1, fma(vec4(x.x), w0, sum))));
}

// Each invocation computes four neighbouring pixels of one quad, in registers, without barriers: for adapters where those are
// slow (software Vulkan).
@compute @workgroup_size(TILE_X, 1, 1)
fn direct(@builtin(global_invocation_id) id: vec3<u32>, @builtin(workgroup_id) group: vec3<u32>) {
    let me = candidates[group.z];
    let in_quads = quads(me.n_in);
    let out_quads = quads(me.n_out);
    let quad = group.y;
    let n_pixels = chunk.n_images * step_.out_h * step_.out_w;
    let first = id.x * 4u;
    if quad >= out_quads || first >= n_pixels {
        return;
    }
    let o0 = origin(group.z, in_quads, first, n_pixels);
    let o1 = origin(group.z, in_quads, first + 1u, n_pixels);
    let o2 = origin(group.z, in_quads, first + 2u, n_pixels);
    let o3 = origin(group.z, in_quads, first + 3u, n_pixels);
    var row = me.weights + quad;
    var s0 = vec4(0.0);
    var s1 = vec4(0.0);
    var s2 = vec4(0.0);
    var s3 = vec4(0.0);
    for (var ky = 0u; ky < step_.kernel_h; ky++) {
        for (var kx = 0u; kx < step_.kernel_w; kx++) {
            let t0 = tap_of(o0, in_quads, ky, kx);
            let t1 = tap_of(o1, in_quads, ky, kx);
            let t2 = tap_of(o2, in_quads, ky, kx);
            let t3 = tap_of(o3, in_quads, ky, kx);
            for (var q = 0u; q < in_quads; q++) {
                let w0 = weights[row];
                let w1 = weights[row + out_quads];
                let w2 = weights[row + 2u * out_quads];
                let w3 = weights[row + 3u * out_quads];
                row += 4u * out_quads;
                s0 = accumulate(s0, load(t0, q), w0, w1, w2, w3);
                s1 = accumulate(s1, load(t1, q), w0, w1, w2, w3);
                s2 = accumulate(s2, load(t2, q), w0, w1, w2, w3);
                s3 = accumulate(s3, load(t3, q), w0, w1, w2, w3);
            }
        }
    }
    let bias = weights[row];
    finish_pixel(group.z, me.n_out, first, n_pixels, quad, s0 + bias);
    finish_pixel(group.z, me.n_out, first + 1u, n_pixels, quad, s1 + bias);
    finish_pixel(group.z, me.n_out, first + 2u, n_pixels, quad, s2 + bias);
    finish_pixel(group.z, me.n_out, first + 3u, n_pixels, quad, s3 + bias);
}

fn finish_pixel(candidate: u32, n_out: u32, pixel: u32, n_pixels: u32, quad: u32, value: vec4<f32>) {
    let out_quads = quads(n_out);
    if pixel < n_pixels && quad < out_quads {
        finish(candidate, n_out, pixel * out_quads + quad, quad, value);
    }
}

// Input quads (of one tap) that a workgroup holds at a time.
const DEPTH: u32 = 4u;

// [slice][pixel], and [input channel][output quad].
var<workgroup> pixels: array<vec4<f32>, DEPTH * 4u * TILE_X>;
var<workgroup> filters: array<vec4<f32>, DEPTH * 4u * 2u * TILE_Y>;

// A workgroup of TILE_X * TILE_Y computes a tile of 4 TILE_X pixels by 2 TILE_Y quads; each invocation four pixels of two quads.
// TILE_X is at least 32 and TILE_Y is 1, 2 or 4, so that each invocation loads 4 / TILE_Y pixels and at most one quad of weights.
@compute @workgroup_size(TILE_X, TILE_Y, 1)
fn tiled(@builtin(local_invocation_id) local: vec3<u32>, @builtin(workgroup_id) group: vec3<u32>) {
    let me = candidates[group.z];
    let in_quads = quads(me.n_in);
    let out_quads = quads(me.n_out);
    let first_quad = group.y * 2u * TILE_Y;
    if first_quad >= out_quads {
        return;
    }
    let n_pixels = chunk.n_images * step_.out_h * step_.out_w;
    let tile = 4u * TILE_X;
    let first = group.x * tile;
    let n_slices = step_.kernel_h * step_.kernel_w * in_quads;
    let lane = local.y * TILE_X + local.x;
    let loaders = TILE_X * TILE_Y;
    let o0 = origin(group.z, in_quads, first + lane, n_pixels);
    let o1 = origin(group.z, in_quads, first + lane + loaders, n_pixels);
    let o2 = origin(group.z, in_quads, first + lane + 2u * loaders, n_pixels);
    let o3 = origin(group.z, in_quads, first + lane + 3u * loaders, n_pixels);
    let my_row = lane / (2u * TILE_Y);
    let my_quad = first_quad + lane % (2u * TILE_Y);
    let loads_weights = lane < DEPTH * 8u * TILE_Y;

    var s00 = vec4(0.0);
    var s01 = vec4(0.0);
    var s10 = vec4(0.0);
    var s11 = vec4(0.0);
    var s20 = vec4(0.0);
    var s21 = vec4(0.0);
    var s30 = vec4(0.0);
    var s31 = vec4(0.0);
    var ky = 0u;
    var kx = 0u;
    var q = 0u;
    for (var slice = 0u; slice < n_slices; slice += DEPTH) {
        workgroupBarrier();
        for (var k = 0u; k < DEPTH; k++) {
            let to = k * tile + lane;
            // Past the last slice no row of the kernel is left: ky is kernel_h.
            let is_slice = ky < step_.kernel_h;
            pixels[to] = load_slice(o0, in_quads, ky, kx, q, is_slice);
            if TILE_Y < 4u {
                pixels[to + loaders] = load_slice(o1, in_quads, ky, kx, q, is_slice);
            }
            if TILE_Y < 2u {
                pixels[to + 2u * loaders] = load_slice(o2, in_quads, ky, kx, q, is_slice);
                pixels[to + 3u * loaders] = load_slice(o3, in_quads, ky, kx, q, is_slice);
            }
            q += 1u;
            if q == in_quads {
                q = 0u;
                kx += 1u;
                if kx == step_.kernel_w {
                    kx = 0u;
                    ky += 1u;
                }
            }
        }
        if loads_weights {
            let row = slice * 4u + my_row;
            var w = vec4(0.0);
            if row < n_slices * 4u && my_quad < out_quads {
                w = weights[me.weights + row * out_quads + my_quad];
            }
            filters[lane] = w;
        }
        workgroupBarrier();
        for (var k = 0u; k < DEPTH; k++) {
            let at = k * tile + local.x;
            let x0 = pixels[at];
            let x1 = pixels[at + TILE_X];
            let x2 = pixels[at + 2u * TILE_X];
            let x3 = pixels[at + 3u * TILE_X];
            let row = k * 8u * TILE_Y + 2u * local.y;
            var w0 = filters[row];
            var w1 = filters[row + 2u * TILE_Y];
            var w2 = filters[row + 4u * TILE_Y];
            var w3 = filters[row + 6u * TILE_Y];
            s00 = accumulate(s00, x0, w0, w1, w2, w3);
            s10 = accumulate(s10, x1, w0, w1, w2, w3);
            s20 = accumulate(s20, x2, w0, w1, w2, w3);
            s30 = accumulate(s30, x3, w0, w1, w2, w3);
            w0 = filters[row + 1u];
            w1 = filters[row + 2u * TILE_Y + 1u];
            w2 = filters[row + 4u * TILE_Y + 1u];
            w3 = filters[row + 6u * TILE_Y + 1u];
            s01 = accumulate(s01, x0, w0, w1, w2, w3);
            s11 = accumulate(s11, x1, w0, w1, w2, w3);
            s21 = accumulate(s21, x2, w0, w1, w2, w3);
            s31 = accumulate(s31, x3, w0, w1, w2, w3);
        }
    }
    let bias_row = me.weights + n_slices * 4u * out_quads;
    let quad = first_quad + 2u * local.y;
    if quad < out_quads {
        let bias = weights[bias_row + quad];
        let at = first + local.x;
        finish_pixel(group.z, me.n_out, at, n_pixels, quad, s00 + bias);
        finish_pixel(group.z, me.n_out, at + TILE_X, n_pixels, quad, s10 + bias);
        finish_pixel(group.z, me.n_out, at + 2u * TILE_X, n_pixels, quad, s20 + bias);
        finish_pixel(group.z, me.n_out, at + 3u * TILE_X, n_pixels, quad, s30 + bias);
    }
    if quad + 1u < out_quads {
        let bias = weights[bias_row + quad + 1u];
        let at = first + local.x;
        finish_pixel(group.z, me.n_out, at, n_pixels, quad + 1u, s01 + bias);
        finish_pixel(group.z, me.n_out, at + TILE_X, n_pixels, quad + 1u, s11 + bias);
        finish_pixel(group.z, me.n_out, at + 2u * TILE_X, n_pixels, quad + 1u, s21 + bias);
        finish_pixel(group.z, me.n_out, at + 3u * TILE_X, n_pixels, quad + 1u, s31 + bias);
    }
}

fn load_slice(o: Origin, in_quads: u32, ky: u32, kx: u32, q: u32, is_slice: bool) -> vec4<f32> {
    var tap = tap_of(o, in_quads, ky, kx);
    tap.is_inside = tap.is_inside && is_slice;
    return load(tap, q);
}

// Every channel has a filter of its own: one invocation computes one quad of one pixel.
@compute @workgroup_size(TILE_X, 1, 1)
fn depthwise(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>) {
    let me = candidates[id.z];
    let n_quads = quads(me.n_out);
    let at = id.y * n.x * TILE_X + id.x;
    let n_pixels = chunk.n_images * step_.out_h * step_.out_w;
    if n_quads == 0u || at >= n_pixels * n_quads {
        return;
    }
    let pixel = at / n_quads;
    let quad = at - pixel * n_quads;
    let o = origin(id.z, n_quads, pixel, n_pixels);
    var row = me.weights + quad;
    var sum = vec4(0.0);
    for (var ky = 0u; ky < step_.kernel_h; ky++) {
        for (var kx = 0u; kx < step_.kernel_w; kx++) {
            sum = fma(load(tap_of(o, n_quads, ky, kx), quad), weights[row], sum);
            row += n_quads;
        }
    }
    finish(id.z, me.n_out, at, quad, sum + weights[row]);
}

fn channel(tap: Tap, c: u32) -> f32 {
    if tap.is_inside {
        return input[tap.at + c / 4u][c % 4u];
    }
    return 0.0;
}

// Grouped convolution, also depthwise with several filters per channel: one invocation computes one quad of one pixel, whose
// lanes may belong to different groups.
@compute @workgroup_size(TILE_X, 1, 1)
fn grouped(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>) {
    let me = candidates[id.z];
    let out_quads = quads(me.n_out);
    let at = id.y * n.x * TILE_X + id.x;
    let n_pixels = chunk.n_images * step_.out_h * step_.out_w;
    if out_quads == 0u || at >= n_pixels * out_quads {
        return;
    }
    let in_quads = quads(me.n_in);
    let pixel = at / out_quads;
    let quad = at - pixel * out_quads;
    let o = origin(id.z, in_quads, pixel, n_pixels);
    let n_groups = max(select(step_.groups, me.n_in, step_.groups == 0u), 1u);
    let in_group = me.n_in / n_groups;
    let out_group = max(me.n_out / n_groups, 1u);
    // Lanes past the width compute what the last channel does, and are zeroed.
    let filter_of = min(vec4(quad * 4u) + vec4(0u, 1u, 2u, 3u), vec4(me.n_out - 1u));
    let first = filter_of / vec4(out_group) * vec4(in_group);
    var row = me.weights + quad;
    var sum = vec4(0.0);
    for (var ky = 0u; ky < step_.kernel_h; ky++) {
        for (var kx = 0u; kx < step_.kernel_w; kx++) {
            let tap = tap_of(o, in_quads, ky, kx);
            for (var i = 0u; i < in_group; i++) {
                let c = first + vec4(i);
                let x = vec4(channel(tap, c.x), channel(tap, c.y), channel(tap, c.z), channel(tap, c.w));
                sum = fma(x, weights[row], sum);
                row += out_quads;
            }
        }
    }
    finish(id.z, me.n_out, at, quad, sum + weights[row]);
}
