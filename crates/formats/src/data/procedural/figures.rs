//! Ten plane figures as signed distances, drawn with strokes below and above them.

use super::{Canvas, Dice, N_CLASSES, SIDE, direction};

/// Distance to the outline, about 1 unit being the figure's radius: negative inside. One function per class.
const FIGURES: [fn(f32, f32) -> f32; N_CLASSES] =
    [disc, ring, square, frame, triangle, cross, bars, star, crescent, angle];

/// Draws strokes, one figure of class `label`, and strokes over it.
pub fn paint(canvas: &mut Canvas, label: u16, dice: &mut Dice) {
    for _ in 0..2 {
        stroke(canvas, dice);
    }
    let distance = FIGURES[usize::from(label)];
    let radius = dice.between(7.0, 11.5);
    let [stretch_x, stretch_y] = [(); 2].map(|()| dice.between(0.8, 1.15));
    let margin = radius * 0.8;
    let [cx, cy] = [(); 2].map(|()| dice.between(margin, SIDE as f32 - margin));
    let [cos, sin] = direction(dice.between(0.0, 1.0));
    let strength = dice.between(34.0, 80.0);
    let tint = dice.tint(strength);
    canvas.add(tint, |x, y| {
        let [dx, dy] = [(x - cx) / radius, (y - cy) / radius];
        let (u, v) = ((dx * cos + dy * sin) / stretch_x, (dy * cos - dx * sin) / stretch_y);
        coverage(distance(u, v) * radius)
    });
    for _ in 0..dice.below(3) {
        stroke(canvas, dice);
    }
}

/// A short thick line or, when its length is near zero, a dot.
fn stroke(canvas: &mut Canvas, dice: &mut Dice) {
    let [cx, cy] = [(); 2].map(|()| dice.between(0.0, SIDE as f32));
    let [cos, sin] = direction(dice.between(0.0, 1.0));
    let (half_length, half_width) = (dice.between(0.0, 7.0), dice.between(0.7, 1.6));
    let strength = dice.between(20.0, 60.0);
    let tint = dice.tint(strength);
    canvas.add(tint, |x, y| {
        let (dx, dy) = (x - cx, y - cy);
        let along = (dx * cos + dy * sin).clamp(-half_length, half_length);
        coverage(length(dx - along * cos, dy - along * sin) - half_width)
    });
}

/// Share of a pixel that lies inside, from the distance of its centre to the outline in pixels.
fn coverage(distance: f32) -> f32 {
    (0.5 - distance).clamp(0.0, 1.0)
}

fn length(x: f32, y: f32) -> f32 {
    (x * x + y * y).sqrt()
}

fn rectangle(x: f32, y: f32, half_width: f32, half_height: f32) -> f32 {
    (x.abs() - half_width).max(y.abs() - half_height)
}

fn disc(x: f32, y: f32) -> f32 {
    length(x, y) - 0.8
}

fn ring(x: f32, y: f32) -> f32 {
    (length(x, y) - 0.7).abs() - 0.2
}

fn square(x: f32, y: f32) -> f32 {
    rectangle(x, y, 0.7, 0.7)
}

fn frame(x: f32, y: f32) -> f32 {
    rectangle(x, y, 0.62, 0.62).abs() - 0.18
}

fn triangle(x: f32, y: f32) -> f32 {
    (x.abs() * 0.866 + y * 0.5).max(-y) - 0.5
}

fn cross(x: f32, y: f32) -> f32 {
    rectangle(x, y, 0.9, 0.25).min(rectangle(x, y, 0.25, 0.9))
}

fn bars(x: f32, y: f32) -> f32 {
    let nearest = (y / 0.65 + 0.5).floor().clamp(-1.0, 1.0) * 0.65;
    rectangle(x, y - nearest, 0.8, 0.19)
}

/// The points inside at least four of the five half-planes of a pentagram.
fn star(x: f32, y: f32) -> f32 {
    let (mut first, mut second) = (f32::MIN, f32::MIN);
    for i in 0..5 {
        let [cos, sin] = direction(i as f32 / 5.0);
        let beyond = x * cos + y * sin;
        second = second.max(first.min(beyond));
        first = first.max(beyond);
    }
    second - 0.38
}

fn crescent(x: f32, y: f32) -> f32 {
    (length(x, y) - 0.9).max(0.7 - length(x - 0.45, y))
}

fn angle(x: f32, y: f32) -> f32 {
    rectangle(x, y + 0.5, 0.75, 0.25).min(rectangle(x + 0.5, y, 0.25, 0.75))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_of_comparable_size() {
        for (class, distance) in FIGURES.iter().enumerate() {
            let inside =
                (0..10_000).filter(|i| distance((i % 100) as f32 / 40.0 - 1.25, (i / 100) as f32 / 40.0 - 1.25) < 0.0);
            let area = inside.count() as f32 / 1600.0;
            assert!((0.7..2.2).contains(&area), "class {class} covers {area}");
        }
    }

    #[test]
    fn a_star_has_its_tips_and_notches() {
        let at = |turns: f32, r: f32| {
            let [x, y] = direction(turns).map(|c| c * r);
            star(x, y) < 0.0
        };
        assert!(at(0.1, 0.45), "inside the pentagon");
        for i in 0..5 {
            let turn = i as f32 / 5.0;
            assert!(at(turn + 0.1, 1.1) != at(turn, 1.1), "tip {i}");
        }
    }
}
