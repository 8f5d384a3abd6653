// What dense convolutions share; put between prelude.wgsl and their own file by crates/gpu/src/pipelines.rs.

// Invocations of a workgroup.
override TILE: u32 = 64u;
// Output quads of a block, 1 to 4.
override QUADS: u32 = 4u;

// One quad of four pixels.
struct Four {
    p0: vec4<f32>,
    p1: vec4<f32>,
    p2: vec4<f32>,
    p3: vec4<f32>,
}

const NOTHING = Four(vec4(0.0), vec4(0.0), vec4(0.0), vec4(0.0));

// Four input channels of a pixel times their rows of weights.
fn accumulate(sum: vec4<f32>, x: vec4<f32>, w: Four) -> vec4<f32> {
    return fma(vec4(x.w), w.p3, fma(vec4(x.z), w.p2, fma(vec4(x.y), w.p1, fma(vec4(x.x), w.p0, sum))));
}
