// What every step of a network shares. Put in front of each shader by crates/gpu/src/pipelines.rs.
//
// Activations are in groups of four channels ("quads"): `[candidate][image][quad][row][column]`, each candidate with as many
// quads as its own width needs, so that neighbouring invocations, which compute neighbouring pixels, read and write neighbouring
// memory. Channels past the width are zero, always.

// One operation; the same for all candidates. Mirrored by `Uniforms` in crates/gpu/src/layout.rs.
struct Uniforms {
    in_h: u32,
    in_w: u32,
    out_h: u32,
    out_w: u32,
    kernel_h: u32,
    kernel_w: u32,
    stride_h: u32,
    stride_w: u32,
    pad_h: u32,
    pad_w: u32,
    dilation_h: u32,
    dilation_w: u32,
    // Groups of an ordinary grouped convolution; 0 when every input channel is a group of its own.
    groups: u32,
    // 0 none, 1 relu, 2 relu6, 3 sigmoid, 4 tanh, 5 silu, 6 hard swish, 7 leaky relu, 8 hard sigmoid, 9 clip; from 10 on: rare
    // ones (elementwise.wgsl)
    activation: u32,
    // Whether `residual` is added before the activation.
    adds_residual: u32,
    // Whether the input, the residual, are the images: shared by all candidates.
    input_is_image: u32,
    residual_is_image: u32,
    // Quads from one candidate's part of a buffer to the next.
    in_stride: u32,
    residual_stride: u32,
    out_stride: u32,
    // Whether output lanes that this dispatch does not compute become zero, or stay.
    clears: u32,
    // Whether the output's old value is added.
    accumulates: u32,
    // Whether there are class probabilities of the original network to compare with (top1.wgsl).
    compares: u32,
    // Parameters of the activation: slope; alpha, beta; min, max.
    activation_a: f32,
    activation_b: f32,
    // Rows and columns of padding behind the image (pad_h and pad_w are in front), and whether averages count padding: pool.wgsl.
    pad_below: u32,
    pad_right: u32,
    counts_padding: u32,
}

// One candidate's part in a step. Mirrored by `Candidate` in crates/gpu/src/layout.rs.
struct Candidate {
    // Kept input and output channels.
    n_in: u32,
    n_out: u32,
    // First quad of its weights.
    weights: u32,
    // Channel `c` of the output is channel `c - shift` of the input, for steps that move channels.
    shift: i32,
}

// The images that pass through together. Mirrored by `Chunk` in crates/gpu/src/layout.rs.
struct Chunk {
    n_images: u32,
    // First quad of the first image, in the buffer of images.
    image_offset: u32,
    // Number of the first image in the buffer of images, and among all.
    first_image: u32,
    number: u32,
}

@group(0) @binding(0) var<uniform> step_: Uniforms;
@group(0) @binding(1) var<storage, read> candidates: array<Candidate>;
@group(0) @binding(2) var<storage, read> weights: array<vec4<f32>>;
@group(1) @binding(0) var<storage, read> input: array<vec4<f32>>;
@group(1) @binding(1) var<storage, read> residual: array<vec4<f32>>;
@group(1) @binding(2) var<storage, read_write> output: array<vec4<f32>>;
@group(2) @binding(0) var<uniform> chunk: Chunk;

fn quads(channels: u32) -> u32 {
    return (channels + 3u) / 4u;
}

// NaN by its bits: compilers may assume that `x != x` never holds.
fn is_nan(x: vec4<f32>) -> vec4<bool> {
    return (bitcast<vec4<u32>>(x) & vec4(0x7fffffffu)) > vec4(0x7f800000u);
}

// The common ones; a rare one has been applied before.
fn activate(x: vec4<f32>) -> vec4<f32> {
    let a = vec4(step_.activation_a);
    let b = vec4(step_.activation_b);
    var y = x;
    switch step_.activation {
        case 1u: { y = max(x, vec4(0.0)); }
        case 2u: { y = clamp(x, vec4(0.0), vec4(6.0)); }
        case 3u: { y = 1.0 / (1.0 + exp(-x)); }
        case 4u: { y = tanh(clamp(x, vec4(-20.0), vec4(20.0))); }
        case 5u: { y = x / (1.0 + exp(-x)); }
        case 6u: { y = x * clamp(x + 3.0, vec4(0.0), vec4(6.0)) / 6.0; }
        case 7u: { y = select(x, a * x, x < vec4(0.0)); }
        case 8u: { y = clamp(a * x + b, vec4(0.0), vec4(1.0)); }
        // Bounds may be infinite.
        case 9u: { y = select(select(x, a, x < a), b, x > b); }
        default: {}
    }
    // A broken image must not look sound: rectifiers let NaN through.
    return select(y, x, is_nan(x));
}

fn input_base(candidate: u32) -> u32 {
    return select(candidate * step_.in_stride, chunk.image_offset, step_.input_is_image != 0u);
}

fn residual_base(candidate: u32) -> u32 {
    return select(candidate * step_.residual_stride, chunk.image_offset, step_.residual_is_image != 0u);
}

// Which lanes of a quad are channels of a tensor of `n` channels.
fn lanes(quad: u32, n: u32) -> vec4<bool> {
    return vec4(quad * 4u) + vec4(0u, 1u, 2u, 3u) < vec4(n);
}

// What an invocation computes, one quad of one pixel each.
struct Place {
    image: u32,
    quad: u32,
    y: u32,
    x: u32,
    is_there: bool,
}

// Quad number `at` of a candidate's output.
fn place(candidate: u32, at: u32) -> Place {
    let n_quads = quads(candidates[candidate].n_out);
    let n_pixels = step_.out_h * step_.out_w;
    if n_quads == 0u || at >= chunk.n_images * n_pixels * n_quads {
        return Place(0u, 0u, 0u, 0u, false);
    }
    let plane = at / n_pixels;
    let pixel = at - plane * n_pixels;
    let image = plane / n_quads;
    let y = pixel / step_.out_w;
    return Place(image, plane - image * n_quads, y, pixel - y * step_.out_w, true);
}

// First quad of an image of the input, which has `n_quads` of each pixel.
fn input_image(candidate: u32, image: u32, n_quads: u32) -> u32 {
    return input_base(candidate) + image * n_quads * step_.in_h * step_.in_w;
}

// With what is added to quad `at` of a candidate's output.
fn with_addends(candidate: u32, at: u32, value: vec4<f32>) -> vec4<f32> {
    var v = value;
    if step_.adds_residual != 0u {
        v += residual[residual_base(candidate) + at];
    }
    if step_.accumulates != 0u {
        v += output[candidate * step_.out_stride + at];
    }
    return v;
}

// Adds what is added, applies the activation, zeroes the lanes past the width and writes quad `at` (of channels `4 * quad` and the
// next three) of a candidate's output.
fn finish(candidate: u32, n_out: u32, at: u32, quad: u32, value: vec4<f32>) {
    let v = activate(with_addends(candidate, at, value));
    output[candidate * step_.out_stride + at] = select(vec4(0.0), v, lanes(quad, n_out));
}
