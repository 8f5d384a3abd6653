//! Pickles that would run something, or that are none.

use crate::handmade::*;

/// The refusal of a pickle, the same in both layouts.
fn check(pickle: &[u8], expected: &str) {
    for bytes in [stored(pickle, &[]), legacy_file(pickle, &[])] {
        let message = refusal(&bytes);
        assert!(message.contains(expected), "expected '{expected}' in: {message}");
    }
}

// pickle.dumps of an object whose __reduce__ returns (os.system, ("touch pwned",)), protocols 2 and 4.
#[test]
fn a_pickle_that_names_os_system_is_refused_by_name() {
    check(b"\x80\x02cposix\nsystem\nq\x00X\x0b\x00\x00\x00touch pwnedq\x01\x85q\x02Rq\x03.", "'posix.system'");
    check(&PickleWriter::new().global("os", "system").str("touch pwned").raw(b"\x85R").stop(), "'os.system'");
    let stack_global = b"\x80\x04\x95&\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94\x8c\x06system\x94\x93\x94\
        \x8c\x0btouch pwned\x94\x85\x94R\x94.";
    check(stack_global, "'posix.system'");
    assert!(!std::path::Path::new("pwned").exists());
}

#[test]
fn other_names_of_trusted_modules_are_refused() {
    for (module, name) in
        [("torch", "load"), ("torch._utils", "_rebuild"), ("collections", "namedtuple"), ("builtins", "eval"), ("", "")]
    {
        check(&PickleWriter::new().global(module, name).stop(), &format!("'{module}.{name}'"));
    }
    // A whole model instead of its state dict.
    let model = PickleWriter::new().global("torchvision.models.resnet", "ResNet").raw(b")\x81").stop();
    check(&model, "torchvision.models.resnet.ResNet");
}

#[test]
fn globals_are_applied_only_to_what_they_take() {
    check(&PickleWriter::new().str("os").raw(b")R").stop(), "expected a global");
    check(&PickleWriter::new().global("torch", "FloatStorage").raw(b")R").stop(), "cannot be applied");
    check(&PickleWriter::new().global("torch._utils", "_rebuild_tensor_v2").raw(b")R").stop(), "cannot be applied");
    check(&PickleWriter::new().global("torch", "Size").raw(b"NR").stop(), "expected a tuple");
    check(&PickleWriter::new().int(1).raw(b"}b").stop(), "BUILD");
    check(&PickleWriter::new().raw(b"NQ").stop(), "persistent id");
}

#[test]
fn broken_stacks_are_refused() {
    for (body, expected) in [
        (&b""[..], "stack is empty"),
        (b"0", "stack is empty"),
        (b"N(0", "stack is empty"),
        (b"N(\x85", "stack is empty"),
        (b"N\x86", "stack is empty"),
        (b"t", "no mark"),
        (b"h\x05", "memo 5"),
        (b"j\x00\x00\x00\x01", "memo 16777216"),
        (b"Na", "stack is empty"),
        (b"NNa", "expected a list"),
        (b"}(Nu", "keys and values"),
        (b"\xff", "opcode 0xff at byte 2"),
        (b"\x80\x09", "protocol 0 to 5"),
        (b"X\xff\xff\xff\xff", "truncated"),
        (b"\x8d\xff\xff\xff\xff\xff\xff\xff\xff", "truncated"),
        (b"\x8a\xff", "truncated"),
        (b"N\x93", "stack is empty"),
        (b"NN\x93", "STACK_GLOBAL"),
        (b"cos", "without end"),
        (b"c\xff\n\xff\n", "UTF-8"),
    ] {
        check(&PickleWriter::new().raw(body).stop(), expected);
    }
}

#[test]
fn pickles_without_tensors_are_refused() {
    check(&PickleWriter::new().int(1).stop(), "expected a dict");
    check(&PickleWriter::new().raw(b"}").stop(), "no tensor");
    check(&PickleWriter::new().raw(b"}").str("state_dict").raw(b"}ss").stop(), "stack is empty");
    // A checkpoint that contains itself.
    check(&PickleWriter::new().raw(b"}q\x00").str("state_dict").raw(b"h\x00s").stop(), "no tensor");
    let nameless = PickleWriter::new().raw(b"}").int(3).tensor(&TensorSpec::default()).raw(b"s").stop();
    check(&nameless, "readable name");
}

#[test]
fn deep_nesting_is_no_problem_and_endless_work_is_refused() {
    let deep = PickleWriter::new().raw(&b")".repeat(100_000)).raw(&b"\x86".repeat(99_999)).stop();
    check(&deep, "expected a dict");
    check(&PickleWriter::new().raw(&b"N0".repeat(600_000)).stop(), "too many operations");
}

#[test]
fn copying_one_long_list_again_and_again_is_refused() {
    let list = PickleWriter::new().global("collections", "OrderedDict").raw(b"q\x00](");
    let list = (0..1000).fold(list, |p, _| p.raw(b"NN\x86")).raw(b"eq\x01");
    let copies = (0..1000).fold(list, |p, _| p.raw(b"h\x00h\x01\x85R"));
    check(&copies.stop(), "too many operations");
}

#[test]
fn files_that_are_no_checkpoints_are_refused() {
    assert!(refusal(b"\x80\x02}q\x00.").contains("magic number"));
    // Without the object, the list of keys takes its place.
    assert!(refusal(&legacy_file(b"", &[])).contains("expected a dict"));
    let big_endian = legacy_file(&state_dict(&[]), &[]);
    let at = big_endian.iter().position(|&b| b == 0x88).unwrap();
    let mut big_endian = big_endian;
    big_endian[at] = 0x89;
    assert!(refusal(&big_endian).contains("little-endian"));
    assert!(refusal(b"PK\x03\x04 and nothing more").contains("zip"));
    assert!(refusal(b"<!DOCTYPE html><html>").contains("not a known format"));
    assert!(refusal(b"\x80").contains("not a known format"));
    assert!(refusal(b"\x08\x08\x12\x07pytorch").contains("ONNX"));
    assert!(refusal(b"").contains("empty"));
}
