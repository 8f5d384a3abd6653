//! Constants as arrays of floats, whatever they are computed from.

use ndarray::{ArrayD, IxDyn, Zip};

use super::{ELEMENTS_MAX, Import};
use crate::facts::Movement;
use crate::schema::{NodeProto, TensorProto};
use crate::tensor::{dims, floats, integers};

/// Constants are computed from constants at most so many times: each may read two.
const DEPTH_MAX: usize = 8;

impl Import<'_> {
    /// A constant input of the node.
    pub(super) fn constant(&self, node: &NodeProto, i: usize) -> Result<ArrayD<f32>, String> {
        let name = node.input.get(i).filter(|name| !name.is_empty()).ok_or_else(|| format!("lacks input {i}"))?;
        self.array(name, 0)
    }

    fn array(&self, name: &str, depth: usize) -> Result<ArrayD<f32>, String> {
        let graph = self.document.graph();
        if let Some(tensor) = self.stored.get(name) {
            return self.read(tensor);
        }
        let number = *self.makers.get(name).ok_or_else(|| format!("needs '{name}' to be constant"))?;
        let node = &graph.node[number];
        if let Some(tensor) = node.constant() {
            return self.read(tensor);
        }
        if let Some(numbers) = self.facts.numbers(name) {
            return Ok(numbers.array.mapv(|v| v as f32));
        }
        if !self.facts.is_constant(name) || !node.is_standard() {
            return Err(format!("needs '{name}' to be constant"));
        }
        if depth > DEPTH_MAX {
            return Err(format!("needs '{name}', which more than {DEPTH_MAX} nodes compute from constants"));
        }
        let input = |i: usize| self.array(node.input.get(i).map_or("", String::as_str), depth + 1);
        let x = input(0)?;
        let n: usize = self.facts.shape(&node.output[0]).ok_or("makes an unknown shape")?.iter().product();
        if n > ELEMENTS_MAX {
            return Err("has a constant of more numbers than any network".into());
        }
        if let Some(movement) = Movement::of(node, &self.facts.at(node))? {
            return movement.apply(x.view());
        }
        let pair = |apply: fn(f32, f32) -> f32| -> Result<ArrayD<f32>, String> {
            let y = input(1)?;
            let shape = self.facts.shape(&node.output[0]).ok_or("makes an unknown shape")?;
            let unlike = || "combines unlike shapes".to_owned();
            let (x, y) = (x.broadcast(IxDyn(shape)).ok_or_else(unlike)?, y.broadcast(IxDyn(shape)).ok_or_else(unlike)?);
            Ok(Zip::from(&x).and(&y).map_collect(|&x, &y| apply(x, y)))
        };
        match node.op_type() {
            "Cast" | "CastLike" => Ok(x),
            "Sqrt" => Ok(x.mapv(f32::sqrt)),
            "Neg" => Ok(x.mapv(|v| -v)),
            "Exp" => Ok(x.mapv(f32::exp)),
            "Reciprocal" => Ok(x.mapv(f32::recip)),
            "Add" => pair(|x, y| x + y),
            "Sub" => pair(|x, y| x - y),
            "Mul" => pair(|x, y| x * y),
            "Div" => pair(|x, y| x / y),
            op => Err(format!("needs '{name}', a constant that {op} makes, which is not computed")),
        }
    }

    fn read(&self, tensor: &TensorProto) -> Result<ArrayD<f32>, String> {
        let (shape, _) = dims(tensor).map_err(|e| e.to_string())?;
        let external = self.document.external();
        let values = match floats(tensor, external) {
            Ok(values) => values,
            Err(problem) => match integers(tensor, external) {
                Ok(values) => values.into_iter().map(|v| v as f32).collect(),
                Err(_) => return Err(problem.to_string()),
            },
        };
        ArrayD::from_shape_vec(IxDyn(&shape), values).map_err(|e| e.to_string())
    }

    /// One number of a constant input, or the default where the node has none.
    pub(super) fn number(&self, node: &NodeProto, i: usize, default: f32) -> Result<f32, String> {
        if node.input.get(i).is_none_or(|name| name.is_empty()) {
            return Ok(default);
        }
        let array = self.constant(node, i)?;
        if array.len() == 1 {
            Ok(array.iter().copied().next().unwrap_or(default))
        } else {
            Err("needs one number".into())
        }
    }
}

/// The array's elements, row-major.
pub fn flat(array: &ArrayD<f32>) -> Vec<f32> {
    array.iter().copied().collect()
}
