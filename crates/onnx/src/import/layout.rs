//! What the axes of a value are.

use secateur_net::Shape;

/// Most axes that channels are seen as.
const AXES_MAX: usize = 4;

/// What the axes of a value are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// Images, channels, rows, columns.
    Image,
    /// Images, rows, columns, channels.
    ChannelsLast,
    /// Images, features.
    Flat,
    /// Images, channels seen as several axes, and rows and columns, if there are any.
    Grouped(ChannelAxes),
    /// Images, channels, pixels.
    Pixels,
    /// Images, pixels, channels.
    PixelsFirst,
    /// Images, groups of channels, all values of a group.
    Folded(usize),
    /// The features of the one image that a batch is.
    Merged,
}

/// Channels seen as several axes, of which the last runs fastest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChannelAxes {
    extents: [usize; AXES_MAX],
    n_axes: usize,
    /// Whether rows and columns follow, as two axes.
    is_image: bool,
}

impl ChannelAxes {
    /// The extents.
    pub fn extents(&self) -> &[usize] {
        &self.extents[..self.n_axes]
    }
    /// How many of the extents lie in front of one axis, and how many behind; `axis` is counted from the first behind
    /// the batch.
    pub fn around(&self, axis: usize) -> [usize; 2] {
        let extents = self.extents();
        [extents[..axis].iter().product(), extents[axis + 1..].iter().product()]
    }
}

impl Layout {
    /// Along which axis channels lie.
    pub fn channel_axis(self) -> Result<usize, String> {
        match self {
            Self::Image | Self::Flat | Self::Pixels => Ok(1),
            Self::ChannelsLast => Ok(3),
            Self::PixelsFirst => Ok(2),
            Self::Merged => Ok(0),
            Self::Grouped(_) | Self::Folded(_) => Err("works on channels in groups, which is not computed".into()),
        }
    }

    /// The extents behind the batch of a value of this shape; of a merged batch, all.
    pub fn extents(self, shape: Shape) -> Vec<usize> {
        let Shape { c, h, w } = shape;
        match self {
            Self::Image => vec![c, h, w],
            Self::ChannelsLast => vec![h, w, c],
            Self::Flat | Self::Merged => vec![c * h * w],
            Self::Pixels => vec![c, h * w],
            Self::Folded(groups) => vec![groups, c / groups * h * w],
            Self::PixelsFirst => vec![h * w, c],
            Self::Grouped(axes) if axes.is_image => [axes.extents(), &[h, w]].concat(),
            Self::Grouped(axes) => axes.extents().to_vec(),
        }
    }

    /// Extents of a constant, the batch among them, that has a number for each of `channels`.
    pub fn of_channels(self, channels: usize) -> Vec<usize> {
        let extents = self.extents(Shape { c: channels, h: 1, w: 1 });
        if self == Self::Merged { extents } else { [&[1], &extents[..]].concat() }
    }

    /// Whether elements lie channel by channel; those of a single pixel do in any layout.
    pub fn is_by_channel(self) -> bool {
        !matches!(self, Self::ChannelsLast | Self::PixelsFirst)
    }
}

/// The layout of a value whose elements lie channel by channel, by its extents behind the batch.
pub fn by_channel(shape: Shape, extents: &[usize]) -> Option<Layout> {
    let Shape { c, h, w } = shape;
    let is_pixel = h * w == 1;
    let grouped = |parts: &[usize], is_image: bool| {
        let n = parts.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
        if n != Some(c) || !(2..=AXES_MAX).contains(&parts.len()) {
            return None;
        }
        let mut axes = [0; AXES_MAX];
        axes[..parts.len()].copy_from_slice(parts);
        Some(Layout::Grouped(ChannelAxes { extents: axes, n_axes: parts.len(), is_image }))
    };
    match *extents {
        [n, rows, cols] if [n, rows, cols] == [c, h, w] => Some(Layout::Image),
        [1, 1, n] if is_pixel && n == c => Some(Layout::ChannelsLast),
        [n] if is_pixel && n == c => Some(Layout::Flat),
        [ref parts @ .., rows, cols] if parts.len() > 1 && [rows, cols] == [h, w] => grouped(parts, true),
        [n, pixels] if !is_pixel && [n, pixels] == [c, h * w] => Some(Layout::Pixels),
        [n, rest] if !is_pixel && n > 0 && c.is_multiple_of(n) && rest == c / n * h * w => Some(Layout::Folded(n)),
        _ if is_pixel => grouped(extents, false),
        _ => None,
    }
}

/// The layout of a value whose elements lie pixel by pixel, likewise.
pub fn by_pixel(shape: Shape, extents: &[usize]) -> Option<Layout> {
    let Shape { c, h, w } = shape;
    match *extents {
        [rows, cols, n] if [rows, cols, n] == [h, w, c] => Some(Layout::ChannelsLast),
        [pixels, n] if [pixels, n] == [h * w, c] => Some(Layout::PixelsFirst),
        _ => None,
    }
}
