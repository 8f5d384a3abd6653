// Convolution of many candidates in one dispatch: `out = activation(sum of kept input channels * weights + bias + residual)`.
//
// A candidate keeps some channels of every layer. Its activations and weights hold the kept ones only, so a removed channel costs
// nothing: it is skipped, never multiplied by zero. Weights come from pack_weights.wgsl, either out of a candidate's own repaired
// weights or out of shared ones by the bit mask of what it keeps.
//
// Dense: each invocation computes four pixels of QUADS output quads in registers; four input channels under one tap of the kernel
// are one step: 4 loads of pixels and 4 QUADS of weights for 64 QUADS multiply-adds. Weights of one candidate are
// `[block of QUADS output quads][input quad][tap][input channel of the quad][output quad of the block]`, each block followed by
// its biases: what a workgroup reads lies together, in the order in which it is read. Neighbouring invocations compute neighbouring
// pixels, so their loads are one access; the taps of a pixel meet in the first-level cache. Which taps lie inside the image is worked
// out once per pixel. Blocks are cut for the widest candidate: what a narrower one lacks of its last block is left out (`n_quads`,
// the same for a whole workgroup). Workgroups: x over blocks (neighbours read the same pixels), y over pixels, z over candidates.
//
// Staged, an invocation holds 16 QUADS sums, 16 pixels and 16 weights: about 80 registers for two quads, 25 workgroups of 32 on a
// multiprocessor of 65,536, with 1 KB of workgroup memory each; four quads take about 120 registers and 2 KB. Two in workgroups of
// 32 were the best for layers that strips (conv_strips.wgsl) do not suit, measured on an H100: 38 to 49 % of the peak for 3x3 kernels,
// 29 to 39 % for 1x1. A Linear has one pixel an image and the most weights for it: four in workgroups of 64 reach 29 %, two 19.
//
// Depthwise and grouped: `[input channel of a group][tap][output quad]`, then the biases. Workgroups: x and y over output quads, z
// over candidates. CPU twin: `Plan` of secateur-kernels. `Linear` is a 1x1 convolution of a 1x1 image.

// The input pixels under the taps of an output pixel.
struct Window {
    // Quad of the first tap, in the plane of the first four channels. It may lie outside the image; the sum with a tap inside does not.
    start: u32,
    // Rows of taps that lie inside the image, bit by bit, and columns in the upper half: kernels have at most 16 of each.
    inside: u32,
}

fn window(candidate: u32, in_quads: u32, pixel: u32, n_pixels: u32) -> Window {
    let per_image = step_.out_h * step_.out_w;
    let image = pixel / per_image;
    let at = pixel - image * per_image;
    let row = at / step_.out_w;
    let y = i32(row * step_.stride_h) - i32(step_.pad_h);
    let x = i32((at - row * step_.out_w) * step_.stride_w) - i32(step_.pad_w);
    var inside = 0u;
    for (var k = 0u; k < step_.kernel_h; k++) {
        inside |= u32(u32(y + i32(k * step_.dilation_h)) < step_.in_h) << k;
    }
    for (var k = 0u; k < step_.kernel_w; k++) {
        inside |= u32(u32(x + i32(k * step_.dilation_w)) < step_.in_w) << (16u + k);
    }
    let start = input_image(candidate, image, in_quads) + u32(y * i32(step_.in_w) + x);
    return Window(start, select(0u, inside, pixel < n_pixels));
}

fn load(w: Window, tap: u32, ky: u32, kx: u32) -> vec4<f32> {
    if ((w.inside >> ky) & (w.inside >> (16u + kx)) & 1u) != 0u {
        return input[w.start + tap];
    }
    return vec4(0.0);
}

// The same of four pixels.
fn accumulate_four(sum: Four, x: Four, w: Four) -> Four {
    return Four(
        accumulate(sum.p0, x.p0, w), accumulate(sum.p1, x.p1, w), accumulate(sum.p2, x.p2, w), accumulate(sum.p3, x.p3, w)
    );
}

// Writes one quad of four pixels that are TILE apart.
fn finish_four(candidate: u32, n_out: u32, first: u32, n_pixels: u32, quad: u32, sum: Four, bias: vec4<f32>) {
    finish_pixel(candidate, n_out, first, n_pixels, quad, sum.p0 + bias);
    finish_pixel(candidate, n_out, first + TILE, n_pixels, quad, sum.p1 + bias);
    finish_pixel(candidate, n_out, first + 2u * TILE, n_pixels, quad, sum.p2 + bias);
    finish_pixel(candidate, n_out, first + 3u * TILE, n_pixels, quad, sum.p3 + bias);
}

fn finish_pixel(candidate: u32, n_out: u32, pixel: u32, n_pixels: u32, quad: u32, value: vec4<f32>) {
    let out_quads = quads(n_out);
    if pixel < n_pixels && quad < out_quads {
        let per_image = step_.out_h * step_.out_w;
        let image = pixel / per_image;
        let at = (image * out_quads + quad) * per_image + pixel - image * per_image;
        finish(candidate, n_out, at, quad, value);
    }
}

// Rows of weights of the quad that begins at `at`, straight from memory: without barriers, for adapters where those are slow
// (software Vulkan).
fn filters_at(at: u32) -> Four {
    return Four(weights[at], weights[at + QUADS], weights[at + 2u * QUADS], weights[at + 3u * QUADS]);
}

@compute @workgroup_size(TILE, 1, 1)
fn direct(@builtin(local_invocation_id) local: vec3<u32>, @builtin(workgroup_id) group: vec3<u32>) {
    let me = candidates[group.z];
    let in_quads = quads(me.n_in);
    let quad = group.x * QUADS;
    let n_pixels = chunk.n_images * step_.out_h * step_.out_w;
    let first = group.y * 4u * TILE + local.x;
    if quad >= quads(me.n_out) || first >= n_pixels {
        return;
    }
    let n_quads = quads(me.n_out) - quad;
    var w0 = window(group.z, in_quads, first, n_pixels);
    var w1 = window(group.z, in_quads, first + TILE, n_pixels);
    var w2 = window(group.z, in_quads, first + 2u * TILE, n_pixels);
    var w3 = window(group.z, in_quads, first + 3u * TILE, n_pixels);
    let plane = step_.in_h * step_.in_w;
    var row = me.weights + group.x * (in_quads * step_.kernel_h * step_.kernel_w * 4u + 1u) * QUADS;
    var s0 = NOTHING;
    var s1 = NOTHING;
    var s2 = NOTHING;
    var s3 = NOTHING;
    for (var q = 0u; q < in_quads; q++) {
        for (var ky = 0u; ky < step_.kernel_h; ky++) {
            for (var kx = 0u; kx < step_.kernel_w; kx++) {
                let tap = ky * step_.dilation_h * step_.in_w + kx * step_.dilation_w;
                let x = Four(load(w0, tap, ky, kx), load(w1, tap, ky, kx), load(w2, tap, ky, kx), load(w3, tap, ky, kx));
                s0 = accumulate_four(s0, x, filters_at(row));
                if QUADS > 1u {
                    if n_quads > 1u {
                        s1 = accumulate_four(s1, x, filters_at(row + 1u));
                    }
                }
                if QUADS > 2u {
                    if n_quads > 2u {
                        s2 = accumulate_four(s2, x, filters_at(row + 2u));
                    }
                }
                if QUADS > 3u {
                    if n_quads > 3u {
                        s3 = accumulate_four(s3, x, filters_at(row + 3u));
                    }
                }
                row += 4u * QUADS;
            }
        }
        w0.start += plane;
        w1.start += plane;
        w2.start += plane;
        w3.start += plane;
    }
    finish_four(group.z, me.n_out, first, n_pixels, quad, s0, weights[row]);
    if QUADS > 1u {
        finish_four(group.z, me.n_out, first, n_pixels, quad + 1u, s1, weights[row + 1u]);
    }
    if QUADS > 2u {
        finish_four(group.z, me.n_out, first, n_pixels, quad + 2u, s2, weights[row + 2u]);
    }
    if QUADS > 3u {
        finish_four(group.z, me.n_out, first, n_pixels, quad + 3u, s3, weights[row + 3u]);
    }
}

// Steps whose weights a workgroup holds at a time.
const STEPS: u32 = 8u;

var<workgroup> filters: array<vec4<f32>, STEPS * 4u * QUADS>;

fn staged_filters_at(at: u32) -> Four {
    return Four(filters[at], filters[at + QUADS], filters[at + 2u * QUADS], filters[at + 3u * QUADS]);
}

// As `direct`, with the weights in workgroup memory: every invocation reads all of them, so a workgroup fetches them once. Computes a
// block of `n_quads` output quads; `is_whole` tells the compiler that those are QUADS.
fn convolve(candidate: u32, me: Candidate, block: u32, first: u32, local: u32, n_quads: u32, is_whole: bool) {
    let in_quads = quads(me.n_in);
    let quad = block * QUADS;
    let n_pixels = chunk.n_images * step_.out_h * step_.out_w;
    var w0 = window(candidate, in_quads, first, n_pixels);
    var w1 = window(candidate, in_quads, first + TILE, n_pixels);
    var w2 = window(candidate, in_quads, first + 2u * TILE, n_pixels);
    var w3 = window(candidate, in_quads, first + 3u * TILE, n_pixels);
    let plane = step_.in_h * step_.in_w;
    let n_steps = in_quads * step_.kernel_h * step_.kernel_w;
    let rows = me.weights + block * (n_steps * 4u + 1u) * QUADS;
    var s0 = NOTHING;
    var s1 = NOTHING;
    var s2 = NOTHING;
    var s3 = NOTHING;
    var ky = 0u;
    var kx = 0u;
    for (var begin = 0u; begin < n_steps; begin += STEPS) {
        let n_here = min(STEPS, n_steps - begin);
        workgroupBarrier();
        for (var i = local; i < n_here * 4u * QUADS; i += TILE) {
            filters[i] = weights[rows + begin * 4u * QUADS + i];
        }
        workgroupBarrier();
        for (var k = 0u; k < n_here; k++) {
            let tap = ky * step_.dilation_h * step_.in_w + kx * step_.dilation_w;
            let x = Four(load(w0, tap, ky, kx), load(w1, tap, ky, kx), load(w2, tap, ky, kx), load(w3, tap, ky, kx));
            let row = k * 4u * QUADS;
            s0 = accumulate_four(s0, x, staged_filters_at(row));
            if QUADS > 1u {
                if is_whole || n_quads > 1u {
                    s1 = accumulate_four(s1, x, staged_filters_at(row + 1u));
                }
            }
            if QUADS > 2u {
                if is_whole || n_quads > 2u {
                    s2 = accumulate_four(s2, x, staged_filters_at(row + 2u));
                }
            }
            if QUADS > 3u {
                if is_whole || n_quads > 3u {
                    s3 = accumulate_four(s3, x, staged_filters_at(row + 3u));
                }
            }
            kx += 1u;
            if kx == step_.kernel_w {
                kx = 0u;
                ky += 1u;
            }
            if ky == step_.kernel_h {
                ky = 0u;
                w0.start += plane;
                w1.start += plane;
                w2.start += plane;
                w3.start += plane;
            }
        }
    }
    let bias = rows + n_steps * 4u * QUADS;
    finish_four(candidate, me.n_out, first, n_pixels, quad, s0, weights[bias]);
    if QUADS > 1u {
        finish_four(candidate, me.n_out, first, n_pixels, quad + 1u, s1, weights[bias + 1u]);
    }
    if QUADS > 2u {
        finish_four(candidate, me.n_out, first, n_pixels, quad + 2u, s2, weights[bias + 2u]);
    }
    if QUADS > 3u {
        finish_four(candidate, me.n_out, first, n_pixels, quad + 3u, s3, weights[bias + 3u]);
    }
}

@compute @workgroup_size(TILE, 1, 1)
fn staged(@builtin(local_invocation_id) local: vec3<u32>, @builtin(workgroup_id) group: vec3<u32>) {
    let me = candidates[group.z];
    let quad = group.x * QUADS;
    let out_quads = quads(me.n_out);
    let first = group.y * 4u * TILE + local.x;
    // The same for a whole workgroup. Twice the code, since a question within the inner loop keeps loads from being moved ahead.
    if quad + QUADS <= out_quads {
        convolve(group.z, me, group.x, first, local.x, QUADS, true);
    } else if quad < out_quads {
        convolve(group.z, me, group.x, first, local.x, out_quads - quad, false);
    }
}

// The input pixel under a tap of an output pixel, within its plane.
struct Tap {
    at: u32,
    is_inside: bool,
}

fn tap_of(p: Place, ky: u32, kx: u32) -> Tap {
    let y = i32(p.y * step_.stride_h + ky * step_.dilation_h) - i32(step_.pad_h);
    let x = i32(p.x * step_.stride_w + kx * step_.dilation_w) - i32(step_.pad_w);
    let inside = u32(y) < step_.in_h && u32(x) < step_.in_w;
    return Tap(select(0u, u32(y) * step_.in_w + u32(x), inside), inside);
}

// Every channel has a filter of its own: one invocation computes one quad of one pixel.
@compute @workgroup_size(TILE, 1, 1)
fn depthwise(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>) {
    let at = id.y * n.x * TILE + id.x;
    let p = place(id.z, at);
    if !p.is_there {
        return;
    }
    let me = candidates[id.z];
    let n_quads = quads(me.n_out);
    let start = input_image(id.z, p.image, n_quads) + p.quad * step_.in_h * step_.in_w;
    var row = me.weights + p.quad;
    var sum = vec4(0.0);
    for (var ky = 0u; ky < step_.kernel_h; ky++) {
        for (var kx = 0u; kx < step_.kernel_w; kx++) {
            let tap = tap_of(p, ky, kx);
            if tap.is_inside {
                sum = fma(input[start + tap.at], weights[row], sum);
            }
            row += n_quads;
        }
    }
    finish(id.z, me.n_out, at, p.quad, sum + weights[row]);
}

// Grouped convolution, also depthwise with several filters per channel, and dense with a kernel of more than 16 rows or columns:
// one invocation computes one quad of one pixel, whose lanes may belong to different groups.
@compute @workgroup_size(TILE, 1, 1)
fn grouped(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>) {
    let at = id.y * n.x * TILE + id.x;
    let p = place(id.z, at);
    if !p.is_there {
        return;
    }
    let me = candidates[id.z];
    let out_quads = quads(me.n_out);
    let plane = step_.in_h * step_.in_w;
    let start = input_image(id.z, p.image, quads(me.n_in));
    let n_groups = max(select(step_.groups, me.n_in, step_.groups == 0u), 1u);
    let in_group = me.n_in / n_groups;
    let out_group = max(me.n_out / n_groups, 1u);
    // Lanes past the width compute what the last channel does, and are zeroed.
    let filter_of = min(vec4(p.quad * 4u) + vec4(0u, 1u, 2u, 3u), vec4(me.n_out - 1u));
    let first = filter_of / vec4(out_group) * vec4(in_group);
    var row = me.weights + p.quad;
    var sum = vec4(0.0);
    for (var i = 0u; i < in_group; i++) {
        let c = first + vec4(i);
        let planes = vec4(start) + c / vec4(4u) * vec4(plane);
        for (var ky = 0u; ky < step_.kernel_h; ky++) {
            for (var kx = 0u; kx < step_.kernel_w; kx++) {
                let tap = tap_of(p, ky, kx);
                if tap.is_inside {
                    let t = planes + vec4(tap.at);
                    let x = vec4(input[t.x][c.x % 4u], input[t.y][c.y % 4u], input[t.z][c.z % 4u], input[t.w][c.w % 4u]);
                    sum = fma(x, weights[row], sum);
                }
                row += out_quads;
            }
        }
    }
    finish(id.z, me.n_out, at, p.quad, sum + weights[row]);
}
