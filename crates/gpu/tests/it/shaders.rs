//! What can be known of the shaders without an adapter.

use naga::back::{hlsl, msl, spv};
use naga::proc::Layouter;
use naga::valid::{Capabilities, ValidationFlags, Validator};
use secateur_gpu::{Shader, layouts};

fn parse(shader: Shader) -> (naga::Module, naga::valid::ModuleInfo) {
    let source = shader.source();
    let module = naga::front::wgsl::parse_str(&source).unwrap_or_else(|e| panic!("{}", e.emit_to_string(&source)));
    let validated = Validator::new(ValidationFlags::all(), Capabilities::empty()).validate(&module);
    let info = validated.unwrap_or_else(|e| panic!("{shader:?}: {}", e.emit_to_string(&source)));
    (module, info)
}

#[test]
fn every_shader_is_valid_and_has_the_entry_points_that_are_asked_for() {
    for shader in Shader::ALL {
        let (module, _) = parse(shader);
        let mut found: Vec<&str> = module.entry_points.iter().map(|e| e.name.as_str()).collect();
        let mut asked = shader.entry_points().to_vec();
        found.sort_unstable();
        asked.sort_unstable();
        assert_eq!(found, asked, "{shader:?}");
    }
}

#[test]
fn every_shader_can_be_written_for_vulkan_metal_and_dx12() {
    for shader in Shader::ALL {
        let (module, info) = parse(shader);
        for entry in shader.entry_points() {
            let constants = naga::back::PipelineConstants::default();
            let at = Some((naga::ShaderStage::Compute, *entry));
            let (module, info) =
                naga::back::pipeline_constants::process_overrides(&module, &info, at, &constants).unwrap();
            spv::write_vec(&module, &info, &spv::Options::default(), None)
                .unwrap_or_else(|e| panic!("{shader:?} {entry}, SPIR-V: {e}"));
            let options = msl::Options { fake_missing_bindings: true, ..Default::default() };
            msl::write_string(&module, &info, &options, &msl::PipelineOptions::default())
                .unwrap_or_else(|e| panic!("{shader:?} {entry}, Metal: {e}"));
            let options = hlsl::Options { fake_missing_bindings: true, ..Default::default() };
            let mut text = String::new();
            hlsl::Writer::new(&mut text, &options, &hlsl::PipelineOptions::default())
                .write(&module, &info, None)
                .unwrap_or_else(|e| panic!("{shader:?} {entry}, HLSL: {e}"));
            assert!(text.contains(entry));
        }
    }
}

/// Size, and name, offset and size of every member, of a struct that a shader declares.
fn declared(name: &str) -> (u32, Vec<(String, u32)>) {
    for shader in Shader::ALL {
        let (module, _) = parse(shader);
        let found = module.types.iter().find(|(_, t)| t.name.as_deref() == Some(name));
        let Some((handle, found)) = found else { continue };
        let mut layouter = Layouter::default();
        layouter.update(module.to_ctx()).unwrap();
        let naga::TypeInner::Struct { members, .. } = &found.inner else { panic!("{name} is no struct") };
        let members = members.iter().map(|m| (m.name.clone().unwrap(), m.offset)).collect();
        return (layouter[handle].size, members);
    }
    panic!("no shader declares {name}");
}

#[test]
fn structs_lie_in_memory_as_the_shaders_expect() {
    for (name, size, members) in layouts() {
        let (declared_size, declared) = declared(name);
        assert_eq!(size as u32, declared_size, "size of {name}");
        // Reserved words are an array here and single members there.
        let declared: Vec<_> = declared.into_iter().filter(|(name, _)| !name.starts_with("reserved")).collect();
        let members: Vec<_> = members.iter().map(|&(name, offset)| (name.to_owned(), offset as u32)).collect();
        assert_eq!(members, declared, "members of {name}");
    }
}

/// Pointers of all stores in a block.
fn stores(block: &naga::Block) -> Vec<naga::Handle<naga::Expression>> {
    let inner = |statement: &naga::Statement| match statement {
        naga::Statement::Store { pointer, .. } => vec![*pointer],
        naga::Statement::Block(block) => stores(block),
        naga::Statement::If { accept, reject, .. } => [stores(accept), stores(reject)].concat(),
        naga::Statement::Switch { cases, .. } => cases.iter().flat_map(|case| stores(&case.body)).collect(),
        naga::Statement::Loop { body, continuing, .. } => [stores(body), stores(continuing)].concat(),
        _ => Vec::new(),
    };
    block.iter().flat_map(inner).collect()
}

/// FXC, which DX12 falls back to, refuses to store a lane whose number is not known when it compiles.
#[test]
fn no_lane_is_stored_by_a_number_that_is_computed() {
    for shader in Shader::ALL {
        let (module, info) = parse(shader);
        let entries = module.entry_points.iter().enumerate().map(|(i, e)| (&e.function, info.get_entry_point(i)));
        let functions = module.functions.iter().map(|(handle, f)| (f, &info[handle]));
        for (function, types) in functions.chain(entries) {
            for pointer in stores(&function.body) {
                let naga::Expression::Access { base, .. } = function.expressions[pointer] else { continue };
                let naga::TypeInner::Pointer { base: to, .. } = types[base].ty.inner_with(&module.types) else {
                    continue;
                };
                let is_lane = matches!(module.types[*to].inner, naga::TypeInner::Vector { .. });
                assert!(!is_lane, "{shader:?}, {:?}: a lane is stored by a computed number", function.name);
            }
        }
    }
}
