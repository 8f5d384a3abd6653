//! All weights of a network as one flat vector in a fixed order.

use candle_core::{Device, Tensor, Var, backprop::GradStore};

use crate::error::{During, RlError, check_finite, check_length};
use crate::rng::{NO_TASK, RngStream};

/// Name, shape and initial spread of one weight array.
#[derive(Clone, Debug, PartialEq)]
pub struct ParamSpec {
    /// Unique name.
    pub name: String,
    /// Shape, row-major.
    pub shape: Vec<usize>,
    /// Weights start uniform in [-spread, spread].
    pub spread: f32,
}

impl ParamSpec {
    pub(crate) fn new(name: impl Into<String>, shape: &[usize], spread: f32) -> Self {
        Self { name: name.into(), shape: shape.to_vec(), spread }
    }

    fn len(&self) -> usize {
        self.shape.iter().product()
    }
}

/// The weights, flat, in the order of their specs.
#[derive(Clone, Debug, PartialEq)]
pub struct Params {
    specs: Vec<ParamSpec>,
    values: Vec<f32>,
}

impl Params {
    /// Initial weights drawn from the streams (seed, none, index of the array, 0).
    pub fn new(specs: Vec<ParamSpec>, seed: u64) -> Self {
        let mut values = Vec::with_capacity(specs.iter().map(ParamSpec::len).sum());
        for (index, spec) in specs.iter().enumerate() {
            let mut rng = RngStream::new(seed, NO_TASK, index as u64, 0);
            values.extend((0..spec.len()).map(|_| spec.spread * (2.0 * rng.uniform() - 1.0) as f32));
        }
        Self { specs, values }
    }

    /// All weights.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// All weights, to be changed by an optimiser.
    pub fn values_mut(&mut self) -> &mut [f32] {
        &mut self.values
    }

    /// Names and shapes, in order.
    pub fn specs(&self) -> &[ParamSpec] {
        &self.specs
    }

    /// Replaces all weights.
    ///
    /// # Errors
    /// Another number of weights, or NaN.
    pub fn restore(&mut self, values: Vec<f32>) -> Result<(), RlError> {
        check_length("restore weights", "values", self.values.len(), values.len())?;
        check_finite("restore weights", "values", &values)?;
        self.values = values;
        Ok(())
    }

    /// One array per spec, copied; not tracked by autograd.
    pub(crate) fn tensors(&self) -> Result<Vec<Tensor>, RlError> {
        self.each(|slice, shape| Tensor::from_slice(slice, shape, &Device::Cpu))
    }

    /// One variable per spec, copied.
    pub(crate) fn variables(&self) -> Result<Vec<Var>, RlError> {
        self.each(|slice, shape| Var::from_slice(slice, shape, &Device::Cpu))
    }

    fn each<T>(&self, make: impl Fn(&[f32], &[usize]) -> candle_core::Result<T>) -> Result<Vec<T>, RlError> {
        let mut rest = &self.values[..];
        let mut made = Vec::with_capacity(self.specs.len());
        for spec in &self.specs {
            let (slice, tail) = rest.split_at(spec.len());
            made.push(make(slice, &spec.shape).during("copy weights")?);
            rest = tail;
        }
        Ok(made)
    }
}

/// The gradients of `variables` as one flat vector; 0 where the loss does not depend on one.
pub(crate) fn flat_gradient(variables: &[Var], gradients: &GradStore) -> Result<Vec<f32>, RlError> {
    let mut flat = Vec::new();
    for variable in variables {
        match gradients.get(variable) {
            Some(g) => flat.extend(g.flatten_all().and_then(|g| g.to_vec1::<f32>()).during("read gradient")?),
            None => flat.resize(flat.len() + variable.elem_count(), 0.0),
        }
    }
    Ok(flat)
}
