//! A growable f32 buffer that starts on a cache line, so that full vectors never straddle two lines.
#![allow(unsafe_code)]

use std::ops::{Deref, DerefMut};

const LINE: usize = 16;

#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
struct CacheLine([f32; LINE]);

// SAFETY: sixteen f32 and no padding; zero bits are f32 zeros.
unsafe impl bytemuck::Zeroable for CacheLine {}

/// f32 values starting on a 64-byte boundary.
#[derive(Clone, Debug, Default)]
pub(crate) struct AlignedVec {
    lines: Vec<CacheLine>,
    len: usize,
}

impl AlignedVec {
    /// `len` zeros, which the operating system provides as they are first touched: by the threads that need them.
    pub(crate) fn zeros(len: usize) -> Self {
        Self { lines: bytemuck::zeroed_vec(len.div_ceil(LINE)), len }
    }
    /// Bytes that `len` values take.
    pub(crate) const fn bytes(len: u64) -> u64 {
        len.div_ceil(LINE as u64).saturating_mul(size_of::<CacheLine>() as u64)
    }
    /// At least `len` values; what was there before is unspecified afterwards. Allocates only when it grows.
    pub(crate) fn grow(&mut self, len: usize) {
        if len > self.len {
            self.reset(len);
        }
    }
    /// Exactly `len` values, unspecified ones. Allocates only when there never were as many.
    pub(crate) fn reset(&mut self, len: usize) {
        if len.div_ceil(LINE) > self.lines.len() {
            // Not both at once.
            *self = Self::default();
            *self = Self::zeros(len);
        }
        self.len = len;
    }
}

impl Deref for AlignedVec {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        // SAFETY: `lines` holds at least `len` consecutive f32 (`Line` is repr(C), 64 bytes, no padding), all
        // initialised.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.len) }
    }
}

impl DerefMut for AlignedVec {
    fn deref_mut(&mut self) -> &mut [f32] {
        // SAFETY: as in `deref`; the exclusive borrow of `self` covers the lines.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.len) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_on_a_cache_line_and_keeps_its_length() {
        for len in [0, 1, 15, 16, 17, 1000] {
            let mut v = AlignedVec::zeros(len);
            assert_eq!(v.len(), len);
            assert!(v.is_empty() || (v.as_ptr() as usize).is_multiple_of(64));
            v.iter_mut().enumerate().for_each(|(i, x)| *x = i as f32);
            assert!(v.iter().enumerate().all(|(i, &x)| x == i as f32));
        }
    }

    #[test]
    fn grows_but_never_shrinks() {
        let mut v = AlignedVec::zeros(20);
        v.grow(10);
        assert_eq!(v.len(), 20);
        v.grow(33);
        assert_eq!(v.len(), 33);
    }

    #[test]
    fn takes_any_length_and_keeps_its_memory() {
        let mut v = AlignedVec::zeros(200);
        let at = v.as_ptr();
        for len in [3, 200, 17] {
            v.reset(len);
            assert_eq!((v.len(), v.as_ptr()), (len, at));
        }
        v.reset(1000);
        assert_eq!(v.iter().sum::<f32>(), 0.0);
    }
}
