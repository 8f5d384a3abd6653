// Dense convolution of many candidates whose kernel moves down by one row: the same work, weights and results as masked_conv2d.wgsl.
//
// Each invocation computes a strip of one column, eight pixels one below the other, for QUADS output quads. A column of taps reads
// 8 + KERNEL_H - 1 pixels and uses each of them under every tap that it meets, so a 3x3 kernel takes 3.3 loads of pixels and
// 4 QUADS of weights for 128 QUADS multiply-adds where masked_conv2d.wgsl takes 4 and 4 QUADS for 64 QUADS. Neighbouring invocations
// compute neighbouring columns, so their loads are one access. Weights lie in workgroup memory, as many input quads as it holds at a
// time. Workgroups: x over blocks (neighbours read the same pixels), y over strips, z over candidates.
//
// What to expect, on a card of 67 TFLOP/s and 3.35 TB/s, where 20 operations a byte keep both busy (an H100; activations read and
// written once, `+` with the residual read too):
//
//     layer of ResNet-56        operations a byte     half of the inner channels
//     16 -> 16 @ 32x32          36, + 24              16 -> 8: 24, 8 -> 16 +: 14
//     32 -> 32 @ 16x16          72, + 48              48, + 29
//     64 -> 64 @ 8x8            144, + 96             96, + 58
//
// So all but 8 -> 16 are bound by arithmetic. A block of one quad holds 32 sums, 40 pixels and 16 weights: about 100 registers, 10
// workgroups of 64 on a multiprocessor of 65,536, 2.3 KB of workgroup memory each. Two quads take about 150 registers, 6 workgroups
// and 4.6 KB, four about 250, 4 and 9.2 KB. 16 candidates of 512 images are 16,384 workgroups per block of the 32x32 layers, 12 times
// what 132 multiprocessors hold. Measured, more quads are slower although they load less: 52, 45 and 35 % of the peak for 1, 2 and 4
// on 16 -> 16, 59, 56 and 51 % on 256 -> 256. Taking most of the address arithmetic and all questions about the edge out of the inner
// loop brought one to three points, so neither is what holds it back. 8 -> 16 reaches 44 % of the memory's rate. Images of a batch's candidates, 16 MB for 1,000, stay in
// the second-level cache (50 MB), as z is the slowest to change; smaller buffers of activations, which would stay there too, are slower: 381
// candidates/s with 512 MB, 330 with 64, 236 with 16, since each dispatch then has too little to do.

// Rows of the kernel and columns of the input: known to the compiler, so that a strip stays in registers while the taps move down,
// and the places of its pixels are one address and constants.
override KERNEL_H: u32 = 3u;
override IN_W: u32 = 32u;
// Rows of taps at either end of a strip that may lie outside the image; those between them never do.
override EDGE: u32 = 99u;

// One quad of eight pixels, one below the other.
struct Strip {
    p0: vec4<f32>,
    p1: vec4<f32>,
    p2: vec4<f32>,
    p3: vec4<f32>,
    p4: vec4<f32>,
    p5: vec4<f32>,
    p6: vec4<f32>,
    p7: vec4<f32>,
}

const ROWS: u32 = 8u;
const NO_STRIP = Strip(vec4(0.0), vec4(0.0), vec4(0.0), vec4(0.0), vec4(0.0), vec4(0.0), vec4(0.0), vec4(0.0));

// Where a strip lies.
struct Where {
    image: u32,
    y: u32,
    x: u32,
    is_there: bool,
}

fn where_is(number: u32) -> Where {
    let per_image = (step_.out_h + ROWS - 1u) / ROWS * step_.out_w;
    let image = number / per_image;
    let at = number - image * per_image;
    let down = at / step_.out_w;
    return Where(image, down * ROWS, at - down * step_.out_w, image < chunk.n_images);
}

// Input rows from `first` that lie inside the image, bit by bit: kernels have at most 16 rows.
fn rows_inside(first: i32) -> u32 {
    let above = u32(clamp(-first, 0, 31));
    let below = u32(clamp(i32(step_.in_h) - first, 0, 31));
    return select(0u, (1u << below) - (1u << above), below > above);
}

// Pixel of row `row` of a strip whose first one is at `at`.
fn pixel(rows: u32, row: u32, at: u32) -> vec4<f32> {
    if (row >= EDGE && row + EDGE < ROWS + KERNEL_H - 1u) || ((rows >> row) & 1u) != 0u {
        return input[at + row * IN_W];
    }
    return vec4(0.0);
}

fn accumulate_strip(sum: Strip, x: Strip, w: Four) -> Strip {
    return Strip(
        accumulate(sum.p0, x.p0, w), accumulate(sum.p1, x.p1, w), accumulate(sum.p2, x.p2, w), accumulate(sum.p3, x.p3, w),
        accumulate(sum.p4, x.p4, w), accumulate(sum.p5, x.p5, w), accumulate(sum.p6, x.p6, w), accumulate(sum.p7, x.p7, w)
    );
}

fn finish_strip(candidate: u32, n_out: u32, w: Where, quad: u32, sum: Strip, bias: vec4<f32>) {
    let out_quads = quads(n_out);
    if !w.is_there || quad >= out_quads {
        return;
    }
    let at = ((w.image * out_quads + quad) * step_.out_h + w.y) * step_.out_w + w.x;
    finish_row(candidate, n_out, w.y, at, quad, sum.p0 + bias);
    finish_row(candidate, n_out, w.y + 1u, at + step_.out_w, quad, sum.p1 + bias);
    finish_row(candidate, n_out, w.y + 2u, at + 2u * step_.out_w, quad, sum.p2 + bias);
    finish_row(candidate, n_out, w.y + 3u, at + 3u * step_.out_w, quad, sum.p3 + bias);
    finish_row(candidate, n_out, w.y + 4u, at + 4u * step_.out_w, quad, sum.p4 + bias);
    finish_row(candidate, n_out, w.y + 5u, at + 5u * step_.out_w, quad, sum.p5 + bias);
    finish_row(candidate, n_out, w.y + 6u, at + 6u * step_.out_w, quad, sum.p6 + bias);
    finish_row(candidate, n_out, w.y + 7u, at + 7u * step_.out_w, quad, sum.p7 + bias);
}

fn finish_row(candidate: u32, n_out: u32, y: u32, at: u32, quad: u32, value: vec4<f32>) {
    if y < step_.out_h {
        finish(candidate, n_out, at, quad, value);
    }
}

// Steps, four input channels under one tap each, whose weights a workgroup holds at a time; a kernel has no more taps.
const STEPS: u32 = 36u;

var<workgroup> filters: array<vec4<f32>, STEPS * 4u * QUADS>;

fn filters_at(at: u32) -> Four {
    return Four(filters[at], filters[at + QUADS], filters[at + 2u * QUADS], filters[at + 3u * QUADS]);
}

// Computes a block of `n_quads` output quads; `is_whole` tells the compiler that those are QUADS.
fn convolve(candidate: u32, me: Candidate, block: u32, first: u32, local: u32, n_quads: u32, is_whole: bool) {
    let in_quads = quads(me.n_in);
    let w = where_is(first + local);
    let in_y = i32(w.y) - i32(step_.pad_h);
    let in_x = i32(w.x * step_.stride_w) - i32(step_.pad_w);
    let rows = rows_inside(in_y);
    // The first pixel may lie outside the image; its sum with a row and a column inside does not.
    var start = input_image(candidate, w.image, in_quads) + u32(in_y * i32(IN_W) + in_x);
    let taps = KERNEL_H * step_.kernel_w;
    let per_quad = taps * 4u * QUADS;
    let first_row = me.weights + block * (in_quads * per_quad + QUADS);
    let at_a_time = STEPS / taps;
    var s0 = NO_STRIP;
    var s1 = NO_STRIP;
    var s2 = NO_STRIP;
    var s3 = NO_STRIP;
    for (var begin = 0u; begin < in_quads; begin += at_a_time) {
        let n_here = min(at_a_time, in_quads - begin);
        workgroupBarrier();
        for (var i = local; i < n_here * per_quad; i += TILE) {
            filters[i] = weights[first_row + begin * per_quad + i];
        }
        workgroupBarrier();
        for (var q = 0u; q < n_here; q++) {
            for (var kx = 0u; kx < step_.kernel_w; kx++) {
                let column = kx * step_.dilation_w;
                // A column outside the image adds nothing.
                if w.is_there && u32(in_x + i32(column)) < IN_W {
                    let at = start + column;
                    var x = Strip(
                        pixel(rows, 0u, at), pixel(rows, 1u, at), pixel(rows, 2u, at), pixel(rows, 3u, at),
                        pixel(rows, 4u, at), pixel(rows, 5u, at), pixel(rows, 6u, at), pixel(rows, 7u, at)
                    );
                    var row = q * per_quad + kx * 4u * QUADS;
                    for (var ky = 0u; ky < KERNEL_H; ky++) {
                        s0 = accumulate_strip(s0, x, filters_at(row));
                        if QUADS > 1u {
                            if is_whole || n_quads > 1u {
                                s1 = accumulate_strip(s1, x, filters_at(row + 1u));
                            }
                        }
                        if QUADS > 2u {
                            if is_whole || n_quads > 2u {
                                s2 = accumulate_strip(s2, x, filters_at(row + 2u));
                            }
                        }
                        if QUADS > 3u {
                            if is_whole || n_quads > 3u {
                                s3 = accumulate_strip(s3, x, filters_at(row + 3u));
                            }
                        }
                        if ky + 1u < KERNEL_H {
                            x = Strip(x.p1, x.p2, x.p3, x.p4, x.p5, x.p6, x.p7, pixel(rows, ROWS + ky, at));
                            row += step_.kernel_w * 4u * QUADS;
                        }
                    }
                }
            }
            start += step_.in_h * IN_W;
        }
    }
    let bias = first_row + in_quads * per_quad;
    let quad = block * QUADS;
    finish_strip(candidate, me.n_out, w, quad, s0, weights[bias]);
    if QUADS > 1u {
        finish_strip(candidate, me.n_out, w, quad + 1u, s1, weights[bias + 1u]);
    }
    if QUADS > 2u {
        finish_strip(candidate, me.n_out, w, quad + 2u, s2, weights[bias + 2u]);
    }
    if QUADS > 3u {
        finish_strip(candidate, me.n_out, w, quad + 3u, s3, weights[bias + 3u]);
    }
}

@compute @workgroup_size(TILE, 1, 1)
fn strips(@builtin(local_invocation_id) local: vec3<u32>, @builtin(workgroup_id) group: vec3<u32>) {
    let me = candidates[group.z];
    let quad = group.x * QUADS;
    let out_quads = quads(me.n_out);
    // The same for a whole workgroup. Twice the code, since a question within the inner loop keeps loads from being moved ahead.
    if quad + QUADS <= out_quads {
        convolve(group.z, me, group.x, group.y * TILE, local.x, QUADS, true);
    } else if quad < out_quads {
        convolve(group.z, me, group.x, group.y * TILE, local.x, out_quads - quad, false);
    }
}
