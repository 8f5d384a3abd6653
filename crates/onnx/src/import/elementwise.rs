//! Functions of elements, and sums and products of tensors.

use ndarray::IxDyn;
use secateur_net::{Op, Pointwise};

use super::{Carried, Import};
use crate::schema::NodeProto;

impl Import<'_> {
    pub(super) fn pointwise(&mut self, node: &NodeProto) -> Result<(), String> {
        let x = self.input(node, 0)?;
        let function = match node.op_type() {
            "Relu" => Pointwise::Relu,
            "Sigmoid" => Pointwise::Sigmoid,
            "Tanh" => Pointwise::Tanh,
            "HardSwish" => Pointwise::HardSwish,
            "LeakyRelu" => Pointwise::LeakyRelu { slope: node.float("alpha", 0.01) },
            "HardSigmoid" => Pointwise::HardSigmoid { alpha: node.float("alpha", 0.2), beta: node.float("beta", 0.5) },
            "Clip" => self.clip(node)?,
            "Gelu" => Pointwise::Gelu { tanh: node.string("approximate") == Some("tanh") },
            "Elu" => Pointwise::Elu { alpha: node.float("alpha", 1.0) },
            "Softplus" => Pointwise::Softplus,
            "Mish" => Pointwise::Mish,
            "Exp" => Pointwise::Exp,
            "Sqrt" => Pointwise::Sqrt,
            "Abs" => Pointwise::Abs,
            "Neg" => Pointwise::Neg,
            "Erf" => Pointwise::Erf,
            "Log" => Pointwise::Log,
            "Reciprocal" => Pointwise::Reciprocal,
            "Selu" | "Celu" | "Softsign" | "Swish" => return self.composed(node, x),
            _ => return Err("is an operation that is not computed".into()),
        };
        self.function(node, x, function)
    }

    pub(super) fn function(&mut self, node: &NodeProto, x: Carried, function: Pointwise) -> Result<(), String> {
        let id = self.push(node, Op::Pointwise(function), &[x.node])?;
        self.carry(&node.output[0], Carried { node: id, layout: x.layout });
        Ok(())
    }

    /// Functions that are made of others.
    fn composed(&mut self, node: &NodeProto, x: Carried) -> Result<(), String> {
        let c = self.shapes[x.node].c;
        let zeros = || vec![0.0; c];
        match node.op_type() {
            "Selu" => {
                let function = Pointwise::Elu { alpha: node.float("alpha", 1.673_263_2) };
                let id = self.push(node, Op::Pointwise(function), &[x.node])?;
                self.scale_shift(node, Carried { node: id, ..x }, vec![node.float("gamma", 1.050_701); c], zeros())
            }
            "Celu" => {
                let alpha = node.float("alpha", 1.0);
                let id = self.scaled(node, x.node, vec![1.0 / alpha; c], zeros())?;
                let id = self.push(node, Op::Pointwise(Pointwise::Elu { alpha: 1.0 }), &[id])?;
                let id = self.scaled(node, id, vec![alpha; c], zeros())?;
                self.carry(&node.output[0], Carried { node: id, ..x });
                Ok(())
            }
            "Softsign" => {
                let id = self.push(node, Op::Pointwise(Pointwise::Abs), &[x.node])?;
                let id = self.scaled(node, id, vec![1.0; c], vec![1.0; c])?;
                let id = self.push(node, Op::Pointwise(Pointwise::Reciprocal), &[id])?;
                let id = self.push(node, Op::Mul, &[x.node, id])?;
                self.carry(&node.output[0], Carried { node: id, ..x });
                Ok(())
            }
            _ if node.float("alpha", 1.0) == 1.0 => self.function(node, x, Pointwise::Silu),
            _ => Err(format!("has the factor {}, of which only 1 is computed", node.float("alpha", 1.0))),
        }
    }

    fn clip(&self, node: &NodeProto) -> Result<Pointwise, String> {
        let min = self.number(node, 1, node.float("min", f32::NEG_INFINITY))?;
        let max = self.number(node, 2, node.float("max", f32::INFINITY))?;
        // The largest finite numbers stand for no bound.
        let min = if min <= f32::MIN { f32::NEG_INFINITY } else { min };
        let max = if max >= f32::MAX { f32::INFINITY } else { max };
        Ok(if (min, max) == (0.0, 6.0) { Pointwise::Relu6 } else { Pointwise::Clip { min, max } })
    }

    /// A constant as one number for each channel of `x`.
    pub(super) fn per_channel(&self, node: &NodeProto, i: usize, x: Carried) -> Result<Vec<f32>, String> {
        let array = self.constant(node, i)?;
        let channels = self.shapes[x.node].c;
        if array.len() == 1 {
            return Ok(vec![array.iter().copied().next().unwrap_or(0.0); channels]);
        }
        let extents = x.layout.of_channels(channels);
        let one_each = if array.ndim() > extents.len() { None } else { array.broadcast(IxDyn(&extents)) };
        one_each.map(|all| all.iter().copied().collect()).ok_or_else(|| {
            format!("has a constant of shape {:?} that is not one number for each channel", array.shape())
        })
    }

    pub(super) fn combination(&mut self, node: &NodeProto) -> Result<(), String> {
        let op = node.op_type();
        let carried: Vec<Option<Carried>> = node.input.iter().map(|name| self.carried.get(name).copied()).collect();
        match *carried.as_slice() {
            [Some(x), None] => self.with_constant(node, x, 1),
            [None, Some(x)] => self.with_constant(node, x, 0),
            [Some(x)] => {
                self.carry(&node.output[0], x);
                Ok(())
            }
            _ => {
                let all: Vec<Carried> = carried.iter().flatten().copied().collect();
                let first = all.first().copied().ok_or("combines nothing")?;
                if all.len() < carried.len() || all.iter().any(|x| x.layout != first.layout) {
                    return Err("combines tensors of unlike layouts".into());
                }
                let mut ids: Vec<usize> = all.iter().map(|x| x.node).collect();
                let op = match op {
                    "Add" | "Sum" => Op::Add,
                    "Mul" => Op::Mul,
                    "Max" => Op::Max,
                    "Min" => Op::Min,
                    "Sub" => {
                        ids[1] = self.push(node, Op::Pointwise(Pointwise::Neg), &[ids[1]])?;
                        Op::Add
                    }
                    "Div" => {
                        ids[1] = self.push(node, Op::Pointwise(Pointwise::Reciprocal), &[ids[1]])?;
                        Op::Mul
                    }
                    _ => return Err("of two tensors is not computed".into()),
                };
                let id = self.push(node, op, &ids)?;
                self.carry(&node.output[0], Carried { node: id, layout: first.layout });
                Ok(())
            }
        }
    }

    /// A power whose exponent is constant.
    fn power(&mut self, node: &NodeProto, x: Carried, power: f32) -> Result<(), String> {
        if power == 0.5 {
            return self.function(node, x, Pointwise::Sqrt);
        }
        if power == -1.0 {
            return self.function(node, x, Pointwise::Reciprocal);
        }
        if power.fract() == 0.0 && (2.0..=8.0).contains(&power) {
            let id = self.push(node, Op::Mul, &vec![x.node; power as usize])?;
            self.carry(&node.output[0], Carried { node: id, ..x });
            return Ok(());
        }
        if !power.is_finite() || power.fract() == 0.0 {
            return Err(format!("is the power {power}, which is not computed"));
        }
        // As for the power itself, what is negative has none.
        let log = self.push(node, Op::Pointwise(Pointwise::Log), &[x.node])?;
        let id = self.push(node, Op::Pointwise(Pointwise::Affine { scale: power, shift: 0.0 }), &[log])?;
        self.function(node, Carried { node: id, ..x }, Pointwise::Exp)
    }

    fn with_constant(&mut self, node: &NodeProto, x: Carried, i: usize) -> Result<(), String> {
        let op = node.op_type();
        if matches!(op, "Max" | "Min") {
            let bound = self.number(node, i, 0.0)?;
            let (min, max) = if op == "Max" { (bound, f32::INFINITY) } else { (f32::NEG_INFINITY, bound) };
            return self.function(node, x, Pointwise::Clip { min, max });
        }
        if op == "Pow" {
            if i != 1 {
                return Err("is a power of a constant, which is not computed".into());
            }
            let power = self.number(node, i, 0.0)?;
            return self.power(node, x, power);
        }
        if self.constant(node, i)?.len() == 1 && !self.is_folded(node, 1 - i.min(1), x) {
            let number = self.number(node, i, 0.0)?;
            return self.with_number(node, x, (i, number));
        }
        let constant = self.per_channel(node, i, x)?;
        let n = constant.len();
        let (zeros, ones) = (vec![0.0; n], vec![1.0; n]);
        let negated = |values: &[f32]| values.iter().map(|v| -v).collect();
        match (op, i) {
            ("Add" | "Sum", _) => self.scale_shift(node, x, ones, constant),
            ("Sub", 1) => self.scale_shift(node, x, ones, negated(&constant)),
            ("Sub", _) => self.scale_shift(node, x, vec![-1.0; n], constant),
            ("Mul", _) => self.scale_shift(node, x, constant, zeros),
            ("Div", 1) => self.scale_shift(node, x, constant.iter().map(|v| 1.0 / v).collect(), zeros),
            _ => {
                let id = self.push(node, Op::Pointwise(Pointwise::Reciprocal), &[x.node])?;
                self.scale_shift(node, Carried { node: id, ..x }, constant, zeros)
            }
        }
    }

    /// Whether a scale and shift of the value that the node reads become part of the layer that makes it.
    fn is_folded(&self, node: &NodeProto, i: usize, x: Carried) -> bool {
        let makes_sums = matches!(
            self.nodes[x.node].op,
            Op::Conv2d(_) | Op::ConvTranspose2d(_) | Op::Linear { .. } | Op::BatchNorm { .. }
        );
        makes_sums && node.input.get(i).is_some_and(|name| self.n_readers.get(name.as_str()) == Some(&1))
    }

    /// A value combined with one number, the node's input `i`.
    fn with_number(&mut self, node: &NodeProto, x: Carried, (i, number): (usize, f32)) -> Result<(), String> {
        let (x, [scale, shift]) = match (node.op_type(), i) {
            ("Add" | "Sum", _) => (x, [1.0, number]),
            ("Sub", 1) => (x, [1.0, -number]),
            ("Sub", _) => (x, [-1.0, number]),
            ("Mul", _) => (x, [number, 0.0]),
            ("Div", 1) => (x, [1.0 / number, 0.0]),
            _ => {
                let id = self.push(node, Op::Pointwise(Pointwise::Reciprocal), &[x.node])?;
                (Carried { node: id, ..x }, [number, 0.0])
            }
        };
        self.function(node, x, Pointwise::Affine { scale, shift })
    }
}
