//! Data sets made by arithmetic, so that the quickstart needs no download: ten classes of figures or textures, 32x32
//! RGB.
//!
//! Image `i` depends on `(kind, seed, split, i)` only, and is the same on every machine: the random numbers are
//! counter-based (one ChaCha8 stream per image), and the arithmetic is IEEE addition, multiplication, division and
//! square root, which are exactly rounded everywhere, unlike the platform's `sin` and `exp`.

mod figures;
mod stretch;
mod textures;

pub(super) use stretch::stretched;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use secateur_net::Shape;
use serde::{Deserialize, Serialize};

use crate::{Dataset, Split};

/// Classes of either kind.
const N_CLASSES: usize = 10;
/// Rows and columns of an image.
const SIDE: usize = 32;
/// Pixels of one channel.
const PLANE: usize = SIDE * SIDE;
/// Bytes of one image.
const IMAGE: usize = 3 * PLANE;

/// Bytes that one image takes in memory with its label; a stretched one with what it was stretched from.
pub(super) fn bytes_per_image(size: Option<[usize; 2]>) -> u64 {
    let plane = |[h, w]: [usize; 2]| (h as u64).saturating_mul(w as u64);
    (IMAGE as u64 + 2).saturating_add(size.map_or(0, |size| plane(size).saturating_mul(3)))
}

/// What the images show.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// One figure of low contrast, anywhere, at any angle, among distracting strokes. Classes in order:
    /// disc, ring, square, frame, triangle, cross, bars, star, crescent, angle.
    Shapes,
    /// One pattern over the whole image, mixed with a weaker one of another class. Classes in order:
    /// stripes at 0, 45, 90 and 135 degrees, checks, mesh, dots, rings, blobs, chevrons.
    Textures,
}

impl Kind {
    /// Name as it stands in scenes and file names.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Shapes => "shapes",
            Self::Textures => "textures",
        }
    }
    /// The kind of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Shapes, Self::Textures].into_iter().find(|kind| kind.name() == name)
    }
}

/// The first `n` images of the infinite set `(kind, seed, split)`: 32x32 RGB, 10 classes, labels drawn uniformly.
pub fn generate(kind: Kind, seed: u64, split: Split, n: usize) -> Dataset {
    let mut images = vec![0; n * IMAGE];
    let mut labels = Vec::with_capacity(n);
    for (i, image) in images.chunks_exact_mut(IMAGE).enumerate() {
        let mut dice = Dice::new(kind, seed, split, i as u64);
        let label = dice.below(N_CLASSES as u32) as u16;
        let mut canvas = Canvas::shaded(&mut dice);
        match kind {
            Kind::Shapes => figures::paint(&mut canvas, label, &mut dice),
            Kind::Textures => textures::paint(&mut canvas, label, &mut dice),
        }
        canvas.expose(&mut dice, image);
        labels.push(label);
    }
    let shape = Shape { c: 3, h: SIDE, w: SIDE };
    Dataset { name: kind.name().into(), shape, n_classes: N_CLASSES, images: images.into(), labels: Some(labels) }
}

/// Random numbers of one image.
struct Dice(ChaCha8Rng);

impl Dice {
    fn new(kind: Kind, seed: u64, split: Split, index: u64) -> Self {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&seed.to_le_bytes());
        key[8] = matches!(kind, Kind::Textures).into();
        key[9] = matches!(split, Split::Test).into();
        let mut rng = ChaCha8Rng::from_seed(key);
        rng.set_stream(index);
        Self(rng)
    }
    /// Uniform integer in `0..n`.
    fn below(&mut self, n: u32) -> u32 {
        ((u64::from(self.0.next_u32()) * u64::from(n)) >> 32) as u32
    }
    /// Uniform in `[from, to)`.
    fn between(&mut self, from: f32, to: f32) -> f32 {
        let unit = (self.0.next_u32() >> 8) as f32 / (1 << 24) as f32;
        from + (to - from) * unit
    }
    /// A colour difference: random direction, the strongest channel `strength` grey levels away from zero.
    fn tint(&mut self, strength: f32) -> [f32; 3] {
        let raw = [(); 3].map(|()| self.between(-1.0, 1.0));
        let peak = raw.iter().fold(0.05, |m: f32, c| m.max(c.abs()));
        raw.map(|c| c * strength / peak)
    }
    /// About normal, mean 0, standard deviation 1: the sum of four uniform bytes.
    fn noise(&mut self) -> f32 {
        let sum: u32 = self.0.next_u32().to_le_bytes().into_iter().map(u32::from).sum();
        (sum as f32 - 510.0) / 147.8
    }
}

/// An image in grey levels, not yet clipped to bytes.
struct Canvas {
    pixels: Vec<[f32; 3]>,
}

impl Canvas {
    /// A colour that changes linearly over the image.
    fn shaded(dice: &mut Dice) -> Self {
        let base = [(); 3].map(|()| dice.between(70.0, 185.0));
        let [right, down] = [(); 2].map(|()| dice.tint(25.0));
        let mut pixels = Vec::with_capacity(PLANE);
        for i in 0..PLANE {
            let [x, y] = position(i).map(|p| p / SIDE as f32 - 0.5);
            pixels.push(std::array::from_fn(|c| base[c] + right[c] * x + down[c] * y));
        }
        Self { pixels }
    }
    /// Adds `tint` times `strength(x, y)`; coordinates are pixel centres.
    fn add(&mut self, tint: [f32; 3], strength: impl Fn(f32, f32) -> f32) {
        for (i, pixel) in self.pixels.iter_mut().enumerate() {
            let [x, y] = position(i);
            let s = strength(x, y);
            for (p, t) in pixel.iter_mut().zip(tint) {
                *p += t * s;
            }
        }
    }
    /// Adds noise and writes bytes, channel after channel.
    fn expose(&self, dice: &mut Dice, image: &mut [u8]) {
        let sigma = dice.between(8.0, 20.0);
        for (i, pixel) in self.pixels.iter().enumerate() {
            for (c, level) in pixel.iter().enumerate() {
                let noisy = level + sigma * dice.noise();
                image[c * PLANE + i] = noisy.clamp(0.0, 255.0) as u8;
            }
        }
    }
}

/// Centre of pixel `i`, column first.
fn position(i: usize) -> [f32; 2] {
    [(i % SIDE) as f32 + 0.5, (i / SIDE) as f32 + 0.5]
}

/// Sine of an angle in turns, to about 1e-5.
fn sine(turns: f32) -> f32 {
    let t = turns - (turns + 0.5).floor();
    let t = if t > 0.25 {
        0.5 - t
    } else if t < -0.25 {
        -0.5 - t
    } else {
        t
    };
    let x = t * std::f32::consts::TAU;
    let q = x * x;
    x * (1.0 - q / 6.0 * (1.0 - q / 20.0 * (1.0 - q / 42.0 * (1.0 - q / 72.0))))
}

/// Cosine and sine of an angle in turns.
fn direction(turns: f32) -> [f32; 2] {
    [sine(turns + 0.25), sine(turns)]
}

#[cfg(test)]
mod tests {
    use super::*;

    const KINDS: [Kind; 2] = [Kind::Shapes, Kind::Textures];

    /// 64-bit FNV-1a.
    fn checksum(bytes: &[u8]) -> u64 {
        bytes.iter().fold(0xcbf2_9ce4_8422_2325, |h, &b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3))
    }

    #[test]
    fn sine_agrees_with_the_platform() {
        for i in -4000..4000 {
            let t = i as f32 / 1000.0;
            let expected = (f64::from(t) * std::f64::consts::TAU).sin();
            assert!((f64::from(sine(t)) - expected).abs() < 1e-5, "sine({t})");
        }
    }

    #[test]
    fn a_longer_set_starts_with_the_shorter_one() {
        for kind in KINDS {
            let short = generate(kind, 5, Split::Train, 7);
            let long = generate(kind, 5, Split::Train, 20);
            assert_eq!(short.bytes(), &long.bytes()[..7 * IMAGE]);
            assert_eq!(short.labels().unwrap(), &long.labels().unwrap()[..7]);
            assert_eq!(short.shape, Shape { c: 3, h: 32, w: 32 });
            assert_eq!(short.n_classes, 10);
        }
        assert!(generate(Kind::Shapes, 5, Split::Train, 0).is_empty());
    }

    #[test]
    fn seeds_splits_and_kinds_share_no_image() {
        let key = |kind, seed, split| generate(kind, seed, split, 30).bytes().to_vec();
        let sets: Vec<Vec<u8>> = KINDS
            .into_iter()
            .flat_map(|kind| [1, 2].map(|seed| (kind, seed)))
            .flat_map(|(kind, seed)| [key(kind, seed, Split::Train), key(kind, seed, Split::Test)])
            .collect();
        let mut images: Vec<&[u8]> = sets.iter().flat_map(|set| set.chunks(IMAGE)).collect();
        images.sort_unstable();
        images.dedup();
        assert_eq!(images.len(), 8 * 30);
    }

    #[test]
    fn every_class_has_about_a_tenth_of_the_images() {
        for kind in KINDS {
            let mut counts = [0; N_CLASSES];
            for label in generate(kind, 1, Split::Train, 3000).labels.unwrap() {
                counts[usize::from(label)] += 1;
            }
            // 300 expected; 5 standard deviations are 82.
            assert!(counts.iter().all(|n| (218..=382).contains(n)), "{kind:?}: {counts:?}");
        }
    }

    #[test]
    fn images_are_not_clipped_to_black_and_white() {
        for kind in KINDS {
            let images = generate(kind, 1, Split::Test, 200).bytes().to_vec();
            let clipped = images.iter().filter(|&&b| b == 0 || b == 255).count();
            assert!(clipped * 20 < images.len(), "{kind:?}: {clipped} of {}", images.len());
        }
    }

    #[test]
    fn names_lead_back_to_their_kind() {
        for kind in KINDS {
            assert_eq!(Kind::from_name(kind.name()), Some(kind));
        }
        assert_eq!(Kind::from_name("Shapes"), None);
    }

    /// The shipped networks were trained on exactly these bytes.
    #[test]
    fn the_first_images_never_change() {
        let sum = |kind, seed, split| {
            let set = generate(kind, seed, split, 100);
            let labels: Vec<u8> = set.labels().unwrap().iter().map(|&l| l as u8).collect();
            [checksum(set.bytes()), checksum(&labels)]
        };
        assert_eq!(sum(Kind::Shapes, 1, Split::Train), [0xc9b9_7417_29f8_7bf6, 0x1ec1_5f51_ea3b_16eb]);
        assert_eq!(sum(Kind::Shapes, 1, Split::Test), [0x0889_6b81_4877_d12c, 0x3ab4_8844_0fee_ca0c]);
        assert_eq!(sum(Kind::Textures, 2, Split::Train), [0xfe1e_d35f_e22b_5c86, 0xa6df_dbe2_53de_8b8b]);
        assert_eq!(sum(Kind::Textures, 2, Split::Test), [0xa283_048c_60c5_c8bf, 0xd6d7_e229_f701_e4e7]);
    }
}
