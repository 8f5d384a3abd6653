//! Windows that slide over rows and columns: convolutions and pooling.

use super::known::NodeFacts;

/// Where the window of a convolution or of pooling goes, by spatial axis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pads {
    /// Taps.
    pub kernel: Vec<usize>,
    /// From window to window.
    pub strides: Vec<usize>,
    /// From tap to tap.
    pub dilations: Vec<usize>,
    /// In front of the first place.
    pub begin: Vec<usize>,
    /// Behind the last.
    pub end: Vec<usize>,
    /// Whether a last window may hang over.
    pub is_ceil: bool,
}

impl Pads {
    /// Of a node whose kernel is `kernel` where the node itself does not say.
    ///
    /// # Errors
    /// Sizes that are none, lists of other lengths than the image has axes.
    pub fn of(facts: &NodeFacts<'_>, kernel: Option<&[usize]>) -> Result<Self, String> {
        let (node, shape) = (facts.node(), facts.shape(0)?);
        let spatial = shape.get(2..).ok_or("reads what has no rows and columns")?;
        let list = |name: &str, default: Option<Vec<usize>>| -> Result<Vec<usize>, String> {
            let found = match node.ints(name) {
                Some(values) => values.iter().map(|&v| usize::try_from(v).ok()).collect::<Option<Vec<_>>>(),
                None => default,
            };
            let found = found.ok_or_else(|| format!("has no usable {name}"))?;
            let n = if name == "pads" { 2 * spatial.len() } else { spatial.len() };
            if found.len() == n { Ok(found) } else { Err(format!("has {} numbers as {name}, not {n}", found.len())) }
        };
        let ones = || Some(vec![1; spatial.len()]);
        let kernel = list("kernel_shape", kernel.map(<[usize]>::to_vec))?;
        let (strides, dilations) = (list("strides", ones())?, list("dilations", ones())?);
        if [&kernel, &strides, &dilations].iter().any(|list| list.contains(&0)) {
            return Err("has a kernel, stride or dilation of 0".into());
        }
        let pads = list("pads", Some(vec![0; 2 * spatial.len()]))?;
        let (begin, end) = (pads[..spatial.len()].to_vec(), pads[spatial.len()..].to_vec());
        let is_ceil = node.int("ceil_mode", 0) == 1;
        let given = Self { kernel, strides, dilations, begin, end, is_ceil };
        Ok(match node.string("auto_pad") {
            Some("SAME_UPPER") => given.same(spatial, true),
            Some("SAME_LOWER") => given.same(spatial, false),
            Some("VALID") => Self { begin: vec![0; spatial.len()], end: vec![0; spatial.len()], ..given },
            _ => given,
        })
    }

    /// Pads such that there are as many windows as strides fit the image, the odd pixel behind or in front.
    fn same(mut self, spatial: &[usize], is_upper: bool) -> Self {
        for (axis, &n) in spatial.iter().enumerate() {
            let out = n.div_ceil(self.strides[axis]);
            let reach = self.reach(axis);
            let total =
                out.saturating_sub(1).saturating_mul(self.strides[axis]).saturating_add(reach).saturating_sub(n);
            let (small, large) = (total / 2, total - total / 2);
            (self.begin[axis], self.end[axis]) = if is_upper { (small, large) } else { (large, small) };
        }
        self
    }

    fn reach(&self, axis: usize) -> usize {
        self.dilations[axis].saturating_mul(self.kernel[axis] - 1).saturating_add(1)
    }

    /// Windows along every axis.
    ///
    /// # Errors
    /// A kernel that is larger than its input.
    pub fn over(&self, spatial: &[usize]) -> Result<Vec<usize>, String> {
        let along = |axis: usize| {
            let n = spatial[axis];
            let padded = n.checked_add(self.begin[axis])?.checked_add(self.end[axis])?;
            let room = padded.checked_sub(self.reach(axis))?;
            let stride = self.strides[axis];
            let floor = room / stride + 1;
            // A window that would begin behind the image is not there.
            let hangs =
                self.is_ceil && !room.is_multiple_of(stride) && floor.saturating_mul(stride) < n + self.begin[axis];
            Some(floor + usize::from(hangs))
        };
        let all: Option<Vec<usize>> = (0..spatial.len()).map(along).collect();
        all.ok_or_else(|| {
            format!("has a kernel {:?} that is larger than its input {spatial:?} with its pads", self.kernel)
        })
    }

    /// Extents of what a transposed convolution makes.
    ///
    /// # Errors
    /// Pads that leave nothing.
    pub fn transposed(&self, facts: &NodeFacts<'_>) -> Result<Vec<usize>, String> {
        let spatial = &facts.shape(0)?[2..];
        let node = facts.node();
        let size = |values: &[i64], axis: usize| usize::try_from(*values.get(axis)?).ok();
        if let Some(shape) = node.ints("output_shape") {
            let all: Option<Vec<usize>> = (0..spatial.len()).map(|axis| size(shape, axis)).collect();
            return all.ok_or_else(|| "has no usable output_shape".into());
        }
        let extra = node.ints("output_padding").unwrap_or(&[]);
        let along = |axis: usize| {
            let n = spatial[axis];
            if matches!(node.string("auto_pad"), Some("SAME_UPPER" | "SAME_LOWER")) {
                return n.checked_mul(self.strides[axis]);
            }
            let whole = n.checked_sub(1)?.checked_mul(self.strides[axis])?.checked_add(self.reach(axis))?;
            whole
                .checked_add(size(extra, axis).unwrap_or(0))?
                .checked_sub(self.begin[axis].checked_add(self.end[axis])?)
        };
        let all: Option<Vec<usize>> = (0..spatial.len()).map(along).collect();
        all.ok_or_else(|| "has pads that leave nothing".into())
    }
}
