//! Ten patterns as functions of the plane, mixed in pairs.

use super::{Canvas, Dice, N_CLASSES, SIDE, direction, sine};

/// Plane waves that make up the blobs.
const N_WAVES: usize = 6;

/// Covers the canvas with the pattern of class `label`, and more weakly with one of another class.
pub fn paint(canvas: &mut Canvas, label: u16, dice: &mut Dice) {
    let strength = dice.between(20.0, 45.0);
    let pattern = Pattern::of_class(label, dice);
    let other = (u32::from(label) + 1 + dice.below(N_CLASSES as u32 - 1)) % N_CLASSES as u32;
    let distractor = Pattern::of_class(other as u16, dice);
    let share = dice.between(0.35, 0.7);
    let tint = dice.tint(strength);
    canvas.add(tint, |x, y| pattern.at(x, y));
    let tint = dice.tint(strength * share);
    canvas.add(tint, |x, y| distractor.at(x, y));
}

/// One pattern with all its random choices made.
struct Pattern {
    class: u16,
    cos: f32,
    sin: f32,
    /// Pixels after which the pattern repeats.
    period: f32,
    /// Shift along both axes of the pattern, in periods.
    phase: [f32; 2],
    /// Centre of the rings, in pixels.
    centre: [f32; 2],
    /// Direction and phase of every wave.
    waves: [[f32; 3]; N_WAVES],
}

impl Pattern {
    fn of_class(class: u16, dice: &mut Dice) -> Self {
        let turns = match class {
            // Neighbouring directions are 1/8 turn apart, so that these ranges do not meet.
            0..=3 => f32::from(class) / 8.0 + dice.between(-0.05, 0.05),
            _ => dice.between(0.0, 1.0),
        };
        let [cos, sin] = direction(turns);
        Self {
            class,
            cos,
            sin,
            period: dice.between(4.0, 10.0),
            phase: [(); 2].map(|()| dice.between(0.0, 1.0)),
            centre: [(); 2].map(|()| dice.between(0.0, SIDE as f32)),
            waves: [(); N_WAVES].map(|()| {
                let [kx, ky] = direction(dice.between(0.0, 1.0));
                [kx, ky, dice.between(0.0, 1.0)]
            }),
        }
    }
    /// Height of the pattern at a pixel, in [-1, 1] but for the error of `sine`.
    fn at(&self, x: f32, y: f32) -> f32 {
        let u = (x * self.cos + y * self.sin) / self.period + self.phase[0];
        let v = (y * self.cos - x * self.sin) / self.period + self.phase[1];
        match self.class {
            0..=3 => sine(u),
            4 => (3.0 * sine(u) * sine(v)).clamp(-1.0, 1.0),
            5 => line(u).max(line(v)),
            6 => dot(u, v),
            7 => {
                let (dx, dy) = (x - self.centre[0], y - self.centre[1]);
                sine((dx * dx + dy * dy).sqrt() / self.period + self.phase[0])
            }
            8 => self.blobs(x, y),
            _ => sine(u + 0.8 * zigzag(v * 0.5)),
        }
    }
    fn blobs(&self, x: f32, y: f32) -> f32 {
        let sum: f32 = self.waves.iter().map(|[kx, ky, phase]| sine((x * kx + y * ky) / self.period + phase)).sum();
        (sum / 2.0).clamp(-1.0, 1.0)
    }
}

/// Triangle wave of period 1 in [0, 1].
fn zigzag(t: f32) -> f32 {
    (t - (t + 0.5).floor()).abs() * 2.0
}

/// 1 on a thin line around every integer, -1 elsewhere.
fn line(t: f32) -> f32 {
    (2.0 - 8.0 * zigzag(t)).clamp(-1.0, 1.0)
}

/// 1 on a disc around every point with integer coordinates, -1 elsewhere.
fn dot(u: f32, v: f32) -> f32 {
    let (du, dv) = (zigzag(u), zigzag(v));
    (4.0 * (0.6 - (du * du + dv * dv).sqrt())).clamp(-1.0, 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Split;
    use crate::procedural::Kind;

    #[test]
    fn patterns_stay_within_their_range_and_use_it() {
        let mut dice = Dice::new(Kind::Textures, 3, Split::Train, 0);
        for class in 0..N_CLASSES as u16 {
            let pattern = Pattern::of_class(class, &mut dice);
            let heights: Vec<f32> = (0..1024).map(|i| pattern.at((i % 32) as f32, (i / 32) as f32)).collect();
            assert!(heights.iter().all(|h| h.abs() < 1.0001), "class {class} leaves its range");
            let spread =
                heights.iter().fold(f32::MIN, |m, &h| m.max(h)) - heights.iter().fold(f32::MAX, |m, &h| m.min(h));
            assert!(spread > 1.5, "class {class} spans only {spread}");
        }
    }

    #[test]
    fn dots_and_lines_stand_on_the_lattice() {
        assert_eq!((dot(2.0, -1.0), dot(0.5, 0.5)), (1.0, -1.0));
        assert_eq!((line(3.0), line(0.5)), (1.0, -1.0));
        assert_eq!((zigzag(0.0), zigzag(0.25), zigzag(0.5), zigzag(-0.25)), (0.0, 0.5, 1.0, 0.5));
    }
}
