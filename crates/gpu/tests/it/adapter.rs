//! The device that tests run on, or a loud skip.

use secateur_gpu::{Gpu, GpuError, GpuOptions, adapters};

/// A device, or none where no adapter is found and none is required.
pub fn open(options: &GpuOptions) -> Option<Gpu> {
    match Gpu::open(options) {
        Ok(gpu) => Some(gpu),
        Err(error @ GpuError::NoAdapter { .. }) => {
            let is_required = std::env::var("SECATEUR_REQUIRE_GPU").as_deref() == Ok("1");
            assert!(!is_required, "SECATEUR_REQUIRE_GPU=1, but {error}");
            eprintln!("SKIPPED: {error} (Debian: mesa-vulkan-drivers and libvulkan1 bring a software adapter)");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// A device with all checks in its shaders.
pub fn checked() -> Option<Gpu> {
    open(&GpuOptions { checked: true, ..GpuOptions::default() })
}

#[test]
fn adapters_are_listed_best_first_and_one_is_chosen() {
    let found = adapters();
    assert_eq!(found.iter().filter(|a| a.is_chosen).count(), usize::from(!found.is_empty()));
    let software = found.iter().position(|a| a.kind == "software").unwrap_or(found.len());
    assert!(found[software..].iter().all(|a| a.kind == "software"), "software adapters come last: {found:?}");
    for adapter in &found {
        assert!(!adapter.name.is_empty() && adapter.binding_max > 0 && adapter.subgroup_min > 0, "{adapter:?}");
    }
    if let Some(gpu) = checked() {
        assert_eq!(gpu.name(), found[0].name);
    }
}

#[test]
fn a_missing_adapter_is_named_and_so_is_doctor() {
    let error = GpuError::NoAdapter { wanted: Some("voodoo".into()), found: vec!["llvmpipe".into()] }.to_string();
    assert!(
        error.contains("'voodoo'") && error.contains("found llvmpipe") && error.contains("secateur doctor"),
        "{error}"
    );
    let error = GpuError::NoAdapter { wanted: None, found: vec![] }.to_string();
    assert!(error.contains("found none through Vulkan, Metal or DX12"), "{error}");
}

#[test]
fn compiled_pipelines_are_handed_out_and_taken_back() {
    let Some(gpu) = checked() else { return };
    let network = secateur_net::random::random_network(3);
    let images = vec![0.5; network.graph().input().len()];
    let logits = |gpu: &Gpu| {
        let images = secateur_gpu::GpuImages::new(gpu, network.graph().input(), &images, None).unwrap();
        gpu.logits(&images, &secateur_gpu::Candidates::Repaired(&[&network])).unwrap()
    };
    let expected = logits(&gpu);
    let Some((key, compiled)) = gpu.compiled() else {
        assert!(!adapters()[0].features.contains(&"pipeline cache"));
        return;
    };
    let options = GpuOptions { checked: true, ..GpuOptions::default() };
    let asked = std::cell::RefCell::new(Vec::new());
    let again = Gpu::open_with(&options, &|key| {
        asked.borrow_mut().push(key.to_owned());
        Some(compiled.clone())
    });
    assert_eq!(logits(&again.unwrap()), expected);
    assert_eq!(asked.into_inner(), [key]);
}
