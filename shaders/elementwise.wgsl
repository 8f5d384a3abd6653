// Sums and activations that stand alone, and softmax. Workgroups: x and y over output quads (softmax: pixels), z over candidates.

// Abramowitz and Stegun 7.1.26: within 1.5e-7.
fn error_function(x: vec4<f32>) -> vec4<f32> {
    let t = 1.0 / (1.0 + 0.3275911 * abs(x));
    let series = ((((1.061405429 * t - 1.453152027) * t + 1.421413741) * t - 0.284496736) * t + 0.254829592) * t;
    return sign(x) * (1.0 - series * exp(-x * x));
}

// `ln(1 + exp(x))` without an exponential that overflows.
fn softplus(x: vec4<f32>) -> vec4<f32> {
    let small = exp(-abs(x));
    // The logarithm of a sum of 1 and little keeps few digits of it.
    let series = small * (1.0 - small * (0.5 - small / 3.0));
    return max(x, vec4(0.0)) + select(log(1.0 + small), series, small < vec4(0.005));
}

// `exp(x) - 1` of negative values.
fn exp_minus_1(x: vec4<f32>) -> vec4<f32> {
    let series = x * (1.0 + x * (0.5 + x * (1.0 / 6.0 + x / 24.0)));
    return select(exp(x) - 1.0, series, x > vec4(-0.05));
}

fn tanh_of(x: vec4<f32>) -> vec4<f32> {
    return tanh(clamp(x, vec4(-20.0), vec4(20.0)));
}

// What a root or a logarithm of a negative number is: which one a card gives is left to it.
fn nan_where(y: vec4<f32>, broken: vec4<bool>) -> vec4<f32> {
    return select(y, bitcast<vec4<f32>>(bitcast<vec4<u32>>(y) | vec4(0x7fc00000u)), broken);
}

// The functions that layers do not end in: each takes instructions, and registers of whatever it is part of.
fn rare(x: vec4<f32>) -> vec4<f32> {
    let a = vec4(step_.activation_a);
    var y = x;
    switch step_.activation {
        case 10u: { y = 0.5 * x * (1.0 + error_function(x * 0.70710678)); }
        // The cube of what would overflow changes nothing.
        case 11u: {
            let c = clamp(x, vec4(-100.0), vec4(100.0));
            y = 0.5 * x * (1.0 + tanh_of(0.79788456 * (c + 0.044715 * c * c * c)));
        }
        case 12u: { y = select(x, a * exp_minus_1(x), x < vec4(0.0)); }
        case 13u: { y = softplus(x); }
        case 14u: { y = x * tanh_of(softplus(x)); }
        case 15u: { y = exp(x); }
        case 16u: { y = nan_where(sqrt(max(x, vec4(0.0))), x < vec4(0.0)); }
        case 17u: { y = abs(x); }
        case 18u: { y = -x; }
        case 19u: { y = error_function(x); }
        case 20u: { y = nan_where(log(max(x, vec4(0.0))), x < vec4(0.0)); }
        case 21u: { y = 1.0 / x; }
        case 22u: { y = a * x + vec4(step_.activation_b); }
        default: {}
    }
    return select(y, x, is_nan(x));
}

// `out = activation(input + residual + old output)`, the latter two where the step says so.
@compute @workgroup_size(64, 1, 1)
fn combine(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>) {
    let at = id.y * n.x * 64u + id.x;
    let p = place(id.z, at);
    if p.is_there {
        let sum = with_addends(id.z, at, input[input_base(id.z) + at]);
        let to = id.z * step_.out_stride + at;
        output[to] = select(vec4(0.0), activate(rare(sum)), lanes(p.quad, candidates[id.z].n_out));
    }
}

// `x` from 0 on, below a slope of its channel times `x`.
@compute @workgroup_size(64, 1, 1)
fn slopes(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>) {
    let at = id.y * n.x * 64u + id.x;
    let p = place(id.z, at);
    if p.is_there {
        let me = candidates[id.z];
        let x = input[input_base(id.z) + at];
        finish(id.z, me.n_out, at, p.quad, select(x, weights[me.weights + p.quad] * x, x < vec4(0.0)));
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
