//! Which adapters there are, and which one is used.

use wgpu::{Adapter, Backends, DeviceType, Features, Instance, InstanceDescriptor, MemoryBudgetThresholds};

use crate::GpuError;

/// What an adapter offers, as plain data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdapterReport {
    /// Its name.
    pub name: String,
    /// Vulkan, Metal or Dx12.
    pub backend: String,
    /// Discrete, integrated, virtual, CPU (software) or other.
    pub kind: String,
    /// Driver and its version.
    pub driver: String,
    /// Smallest number of invocations that run in step.
    pub subgroup_min: u32,
    /// Largest number of invocations that run in step.
    pub subgroup_max: u32,
    /// Most bytes of one storage binding.
    pub binding_max: u64,
    /// Most bytes of one buffer.
    pub buffer_max: u64,
    /// Bytes that a workgroup may share.
    pub workgroup_memory: u32,
    /// Most invocations of a workgroup.
    pub workgroup_invocations: u32,
    /// Optional features that are there: half precision, subgroups, timestamps, pipeline cache.
    pub features: Vec<&'static str>,
    /// Whether this is the one `--device gpu` takes.
    pub is_chosen: bool,
}

/// All adapters, best first: discrete, integrated, virtual, other, software. `WGPU_ADAPTER_NAME` (part of a name, in
/// any case) chooses among them, `WGPU_BACKEND` restricts them to vulkan, metal or dx12.
pub fn adapters() -> Vec<AdapterReport> {
    let found = enumerate();
    let chosen = position(&found, wanted().as_deref());
    found.iter().enumerate().map(|(i, adapter)| report(adapter, Some(i) == chosen)).collect()
}

/// Which adapter a device is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AdapterId {
    pub(crate) name: String,
    /// Vulkan, Metal or Dx12.
    pub(crate) backend: String,
}

impl AdapterId {
    pub(crate) fn of(adapter: &Adapter) -> Self {
        let info = adapter.get_info();
        Self { backend: info.backend.to_string(), name: info.name }
    }
}

/// The adapter to use: `again`, or the best.
///
/// # Errors
/// None there, or none of the name asked for; that `again` is gone: another adapter rounds otherwise, so it is no
/// substitute.
pub(crate) fn choose(again: Option<&AdapterId>) -> Result<Adapter, GpuError> {
    let mut found = enumerate();
    if let Some(again) = again {
        let at = found.iter().position(|adapter| AdapterId::of(adapter) == *again);
        return at.map(|at| found.swap_remove(at)).ok_or_else(|| GpuError::NoDevice {
            adapter: again.name.clone(),
            problem: format!("{} no longer offers it", again.backend),
        });
    }
    let wanted = wanted();
    match position(&found, wanted.as_deref()) {
        Some(at) => Ok(found.swap_remove(at)),
        None => Err(GpuError::NoAdapter { wanted, found: found.iter().map(|a| a.get_info().name).collect() }),
    }
}

fn wanted() -> Option<String> {
    std::env::var("WGPU_ADAPTER_NAME").ok().filter(|name| !name.is_empty())
}

fn position(found: &[Adapter], wanted: Option<&str>) -> Option<usize> {
    let wanted = wanted.unwrap_or_default().to_lowercase();
    found.iter().position(|a| a.get_info().name.to_lowercase().contains(&wanted))
}

fn enumerate() -> Vec<Adapter> {
    let native = Backends::VULKAN | Backends::METAL | Backends::DX12;
    let instance = Instance::new(InstanceDescriptor {
        backends: native.with_env() & native,
        // An allocation that fails is answered by smaller batches; one that pushes others out is not noticed.
        memory_budget_thresholds: MemoryBudgetThresholds { for_resource_creation: Some(95), for_device_loss: None },
        ..InstanceDescriptor::new_without_display_handle_from_env()
    });
    let mut found = pollster::block_on(instance.enumerate_adapters(native));
    found.sort_by_key(|adapter| rank(adapter.get_info().device_type));
    found
}

const fn rank(kind: DeviceType) -> usize {
    match kind {
        DeviceType::DiscreteGpu => 0,
        DeviceType::IntegratedGpu => 1,
        DeviceType::VirtualGpu => 2,
        DeviceType::Other => 3,
        DeviceType::Cpu => 4,
    }
}

fn report(adapter: &Adapter, is_chosen: bool) -> AdapterReport {
    let (info, limits) = (adapter.get_info(), adapter.limits());
    let known = [
        (Features::SHADER_F16, "f16"),
        (Features::SUBGROUP, "subgroups"),
        (Features::TIMESTAMP_QUERY, "timestamps"),
        (Features::PIPELINE_CACHE, "pipeline cache"),
    ];
    let kind = match info.device_type {
        DeviceType::DiscreteGpu => "discrete",
        DeviceType::IntegratedGpu => "integrated",
        DeviceType::VirtualGpu => "virtual",
        DeviceType::Cpu => "software",
        DeviceType::Other => "other",
    };
    AdapterReport {
        backend: info.backend.to_string(),
        kind: kind.to_owned(),
        driver: format!("{} {}", info.driver, info.driver_info).trim().to_owned(),
        subgroup_min: info.subgroup_min_size,
        subgroup_max: info.subgroup_max_size,
        binding_max: limits.max_storage_buffer_binding_size,
        buffer_max: limits.max_buffer_size,
        workgroup_memory: limits.max_compute_workgroup_storage_size,
        workgroup_invocations: limits.max_compute_invocations_per_workgroup,
        features: known.iter().filter(|(f, _)| adapter.features().contains(*f)).map(|(_, name)| *name).collect(),
        name: info.name,
        is_chosen,
    }
}
