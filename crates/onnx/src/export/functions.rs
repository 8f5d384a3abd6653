//! Functions of single values. Operator set 17 has no Gelu, Mish and Silu: those are written out.

use secateur_net::{NodeId, Pointwise};

use super::writer::NodeDraft;
use super::{FloatList, NetworkExport, WrittenValue};

/// A function of several nodes, each of which makes as many values as its input has.
struct WrittenOut<'e, 'a> {
    export: &'e mut NetworkExport<'a>,
    id: NodeId,
    x: String,
    extents: Vec<usize>,
}

impl<'a> NetworkExport<'a> {
    pub(super) fn function(&mut self, id: NodeId, function: Pointwise) -> NodeDraft {
        match function {
            Pointwise::Relu => self.same(id, "Relu"),
            Pointwise::Relu6 => self.clip(id, 0.0, 6.0),
            Pointwise::Clip { min, max } => self.clip(id, min, max),
            Pointwise::Sigmoid => self.same(id, "Sigmoid"),
            Pointwise::Tanh => self.same(id, "Tanh"),
            Pointwise::Silu => self.written_out(id).silu(),
            Pointwise::HardSwish => self.same(id, "HardSwish"),
            Pointwise::LeakyRelu { slope } => self.same(id, "LeakyRelu").float("alpha", slope),
            Pointwise::HardSigmoid { alpha, beta } => {
                self.same(id, "HardSigmoid").float("alpha", alpha).float("beta", beta)
            }
            Pointwise::Affine { scale, shift } => self.written_out(id).affine(scale, shift),
            Pointwise::Gelu { tanh: false } => self.written_out(id).gelu(),
            Pointwise::Gelu { tanh: true } => self.written_out(id).gelu_by_tanh(),
            Pointwise::Elu { alpha } => self.same(id, "Elu").float("alpha", alpha),
            Pointwise::Softplus => self.same(id, "Softplus"),
            Pointwise::Mish => self.written_out(id).mish(),
            Pointwise::Exp => self.same(id, "Exp"),
            Pointwise::Sqrt => self.same(id, "Sqrt"),
            Pointwise::Abs => self.same(id, "Abs"),
            Pointwise::Neg => self.same(id, "Neg"),
            Pointwise::Erf => self.same(id, "Erf"),
            Pointwise::Log => self.same(id, "Log"),
            Pointwise::Reciprocal => self.same(id, "Reciprocal"),
        }
    }

    /// A bound that is infinite is left out.
    fn clip(&mut self, id: NodeId, min: f32, max: f32) -> NodeDraft {
        let mut bound = |name: &str, value: f32| {
            if value.is_infinite() {
                return String::new();
            }
            self.floats(id, name, &FloatList { extents: &[], values: &[value] })
        };
        let bounds = [bound("min", min), bound("max", max)];
        match bounds.iter().rposition(|bound| !bound.is_empty()) {
            Some(last) => self.same(id, "Clip").reading(bounds.into_iter().take(last + 1)),
            None => self.same(id, "Identity"),
        }
    }

    fn written_out(&mut self, id: NodeId) -> WrittenOut<'_, 'a> {
        let WrittenValue { name, is_flat } = self.values[self.node(id).inputs[0]].clone();
        let extents = self.extents(id, is_flat);
        WrittenOut { export: self, id, x: name, extents }
    }
}

impl WrittenOut<'_, '_> {
    fn draft(&self, op: &str, inputs: &[&String]) -> NodeDraft {
        NodeDraft::new(op, inputs.iter().map(|&name| name.clone()).collect(), self.extents.clone())
    }

    fn inner(&mut self, op: &str, inputs: &[&String]) -> String {
        let draft = self.draft(op, inputs);
        self.export.inner(self.id, draft)
    }

    fn number(&mut self, what: &str, value: f32) -> String {
        self.export.floats(self.id, what, &FloatList { extents: &[], values: &[value] })
    }

    fn silu(mut self) -> NodeDraft {
        let share = self.inner("Sigmoid", &[&self.x.clone()]);
        self.draft("Mul", &[&self.x, &share])
    }

    fn affine(mut self, scale: f32, shift: f32) -> NodeDraft {
        let x = self.x.clone();
        let factor = self.number("scale", scale);
        if shift == 0.0 {
            return self.draft("Mul", &[&x, &factor]);
        }
        let addend = self.number("shift", shift);
        if scale == 1.0 {
            return self.draft("Add", &[&x, &addend]);
        }
        let product = self.inner("Mul", &[&x, &factor]);
        self.draft("Add", &[&product, &addend])
    }

    fn mish(mut self) -> NodeDraft {
        let soft = self.inner("Softplus", &[&self.x.clone()]);
        let share = self.inner("Tanh", &[&soft]);
        self.draft("Mul", &[&self.x, &share])
    }

    /// In the order in which PyTorch's exporter writes it, which runtimes know as one function.
    fn gelu(mut self) -> NodeDraft {
        let x = self.x.clone();
        let root = self.number("sqrt2", std::f32::consts::SQRT_2);
        let scaled = self.inner("Div", &[&x, &root]);
        let erf = self.inner("Erf", &[&scaled]);
        self.half_of_one_more(&erf)
    }

    fn gelu_by_tanh(mut self) -> NodeDraft {
        let x = self.x.clone();
        let square = self.inner("Mul", &[&x, &x]);
        let cube = self.inner("Mul", &[&square, &x]);
        let factor = self.number("factor", 0.044_715);
        let small = self.inner("Mul", &[&cube, &factor]);
        let sum = self.inner("Add", &[&x, &small]);
        let root = self.number("root", std::f64::consts::FRAC_2_PI.sqrt() as f32);
        let inside = self.inner("Mul", &[&sum, &root]);
        let tanh = self.inner("Tanh", &[&inside]);
        self.half_of_one_more(&tanh)
    }

    /// `x * (1 + y) / 2`
    fn half_of_one_more(mut self, y: &String) -> NodeDraft {
        let x = self.x.clone();
        let one = self.number("one", 1.0);
        let more = self.inner("Add", &[y, &one]);
        let product = self.inner("Mul", &[&x, &more]);
        let half = self.number("half", 0.5);
        self.draft("Mul", &[&product, &half])
    }
}
