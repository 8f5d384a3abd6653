//! Structs shared with the shaders, byte for byte; `tests/shaders.rs` compares them with naga's layouts.

use bytemuck::{Pod, Zeroable};

/// "No such mask", "no bias", "no such image".
pub const NONE: u32 = u32::MAX;

/// One operation; see shaders/prelude.wgsl.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Pod, Zeroable)]
pub struct Uniforms {
    pub in_h: u32,
    pub in_w: u32,
    pub out_h: u32,
    pub out_w: u32,
    pub kernel_h: u32,
    pub kernel_w: u32,
    pub stride_h: u32,
    pub stride_w: u32,
    pub pad_h: u32,
    pub pad_w: u32,
    pub dilation_h: u32,
    pub dilation_w: u32,
    pub groups: u32,
    pub activation: u32,
    pub adds_residual: u32,
    pub input_is_image: u32,
    pub residual_is_image: u32,
    pub in_stride: u32,
    pub residual_stride: u32,
    pub out_stride: u32,
    pub clears: u32,
    pub accumulates: u32,
    pub compares: u32,
    pub activation_a: f32,
    pub activation_b: f32,
    pub pad_below: u32,
    pub pad_right: u32,
    pub counts_padding: u32,
}

/// One candidate's part in a step; see shaders/prelude.wgsl.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Candidate {
    pub n_in: u32,
    pub n_out: u32,
    pub weights: u32,
    pub shift: i32,
}

/// The images that pass through together; see shaders/prelude.wgsl.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Chunk {
    pub n_images: u32,
    pub image_offset: u32,
    pub first_image: u32,
    pub number: u32,
}

/// One layer's packing; see shaders/pack_weights.wgsl.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct PackLayer {
    pub taps: u32,
    pub in_multiple: u32,
    pub block: u32,
    pub reserved: u32,
}

/// One candidate's part in it; see shaders/pack_weights.wgsl.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct PackJob {
    pub weight: u32,
    pub bias: u32,
    pub full_in: u32,
    pub n_in: u32,
    pub n_out: u32,
    pub in_mask: u32,
    pub out_mask: u32,
    pub packed: u32,
}

/// What the images so far say of one candidate; see shaders/top1.wgsl.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Pod, Zeroable)]
pub struct Tally {
    pub n_correct: u32,
    pub first_not_finite: u32,
    pub divergence: f32,
    pub block: f32,
}

/// A row of weights whose norms are wanted; see shaders/filter_norm.wgsl.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct NormRow {
    pub first: u32,
    pub n: u32,
    pub inner: u32,
    pub outer_stride: u32,
    pub first_segment: u32,
    pub n_segments: u32,
    pub reserved: [u32; 2],
}

/// Channels in groups of four.
pub const fn quads(channels: usize) -> usize {
    channels.div_ceil(4)
}

/// Name of a struct, its size, and name and offset of its members, in bytes.
pub type StructLayout = (&'static str, usize, Vec<(&'static str, usize)>);

/// Every struct shared with the shaders, for comparison with their declarations.
pub fn layouts() -> Vec<StructLayout> {
    macro_rules! layout {
        ($name:ident: $($member:ident),+) => {
            (stringify!($name), size_of::<$name>(), vec![$((stringify!($member), std::mem::offset_of!($name, $member))),+])
        };
    }
    vec![
        layout!(
            Uniforms: in_h, in_w, out_h, out_w, kernel_h, kernel_w, stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w,
            groups, activation, adds_residual, input_is_image, residual_is_image, in_stride, residual_stride, out_stride,
            clears, accumulates, compares, activation_a, activation_b,
            pad_below, pad_right, counts_padding
        ),
        layout!(Candidate: n_in, n_out, weights, shift),
        layout!(Chunk: n_images, image_offset, first_image, number),
        layout!(PackLayer: taps, in_multiple, block),
        layout!(PackJob: weight, bias, full_in, n_in, n_out, in_mask, out_mask, packed),
        layout!(Tally: n_correct, first_not_finite, divergence, block),
        layout!(NormRow: first, n, inner, outer_stride, first_segment, n_segments),
    ]
}
