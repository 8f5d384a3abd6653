//! Drawn pictures for networks that read larger images: what counts is that they differ from each other, not that they
//! are sharp.

use secateur_net::Shape;

use crate::Dataset;

/// Where a row (column) of the stretched image lies in the drawn one: the line above, the one below, and how far it is
/// on the way to that one.
struct Between {
    lines: [usize; 2],
    share: f32,
}

/// The images with `h` rows and `w` columns, interpolated linearly between pixel centres. Arithmetic that rounds the
/// same on every machine.
pub(in crate::data) fn stretched(data: &Dataset, [h, w]: [usize; 2]) -> Dataset {
    let Shape { c, h: from_h, w: from_w } = data.shape;
    let (rows, cols) = (places(h, from_h), places(w, from_w));
    let mut images = Vec::with_capacity(data.bytes().len() / (from_h * from_w) * h * w);
    for plane in data.bytes().chunks_exact(from_h * from_w) {
        for row in &rows {
            let [above, below] = row.lines.map(|line| &plane[line * from_w..][..from_w]);
            images.extend(cols.iter().map(|col| {
                let across = |line: &[u8]| {
                    let [left, right] = col.lines.map(|at| f32::from(line[at]));
                    left + (right - left) * col.share
                };
                let (above, below) = (across(above), across(below));
                (above + (below - above) * row.share + 0.5) as u8
            }));
        }
    }
    Dataset {
        name: data.name.clone(),
        shape: Shape { c, h, w },
        images: images.into(),
        labels: data.labels.clone(),
        ..*data
    }
}

fn places(n: usize, from: usize) -> Vec<Between> {
    let last = from - 1;
    let place = |i: usize| {
        let at = ((i as f32 + 0.5) * (from as f32 / n as f32) - 0.5).clamp(0.0, last as f32);
        let line = (at as usize).min(last);
        Between { lines: [line, (line + 1).min(last)], share: at - line as f32 }
    };
    (0..n).map(place).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stretched_image_keeps_its_corners_and_its_mean_and_the_same_size_is_the_same_image() {
        let data = crate::procedural::generate(crate::procedural::Kind::Textures, 3, crate::Split::Test, 4);
        assert_eq!(stretched(&data, [32, 32]), data);
        let large = stretched(&data, [320, 240]);
        assert_eq!((large.shape, large.len(), &large.labels), (Shape { c: 3, h: 320, w: 240 }, 4, &data.labels));
        for i in 0..4 {
            let mean = |image: &[u8]| image.iter().map(|&x| f64::from(x)).sum::<f64>() / image.len() as f64;
            assert!((mean(large.image(i)) - mean(data.image(i))).abs() < 0.5);
            assert_eq!((large.image(i)[0], large.image(i).last()), (data.image(i)[0], data.image(i).last()));
        }
        // Two pixels become four: a quarter and three quarters of the way lie between.
        let two = Dataset { shape: Shape { c: 1, h: 1, w: 2 }, images: vec![0, 100].into(), labels: None, ..data };
        assert_eq!(stretched(&two, [1, 4]).bytes(), [0, 25, 75, 100]);
    }
}
