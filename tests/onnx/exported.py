"""Checks the ONNX files that the example onnx_export writes of networks of our own. compare.py says what is checked."""

import json
import math
import pathlib
import subprocess
import tempfile

import numpy as np
import onnx

import runtimes
from comparison import in_one_line

TOLERANCE = 1e-5
BATCHES = (1, 3)
OPSET, IR_VERSION = 17, 8
TIMEOUT_S = 1200
# Networks beside the published ONNX files, for those of them that are there.
MODELS = ["resnet20.safetensors", "resnet20.pth", "resnet56.safetensors", "resnet56.pth", "mobilenet_v1.safetensors"]

HEADER = f"{'written network':40} {'ORT':>8} {'plain':>8} {'OpenVINO':>8}  status"


def line_of(entry):
    """The table's line of one file."""
    errors = " ".join(f"{entry[key]:8.1e}" if key in entry else f"{'-':>8}" for key in ("ort", "plain", "openvino"))
    status = f"FAILED ({len(entry['problems'])}): {entry['problems'][0]}" if entry["problems"] else "ok"
    return f"{entry['file']:40} {errors}  {status[:200]}"


def compare_all(tool, models, n_random):
    """An entry for each file that the tool writes: the trained networks of `models` if that is given, built-in and random ones."""
    known = [models / name for name in MODELS if (models / name).is_file()] if models else []
    with tempfile.TemporaryDirectory(prefix="secateur-onnx-") as folder:
        command = [tool, folder, *known, "--random", n_random]
        done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
        if done.returncode != 0:
            yield {"file": tool.name, "problems": [f"exit code {done.returncode}: {in_one_line(done.stderr)}"]}
            return
        for path in sorted(pathlib.Path(folder).glob("*.onnx")):
            try:
                yield entry_of(path, {p.name: p for p in known})
            except Exception as error:
                yield {"file": path.name, "problems": [f"{type(error).__name__}: {in_one_line(error)}"]}


def entry_of(path, weights):
    """What is wrong with one file, and how far outputs are from the engine's, relative to the largest."""
    problems = []
    try:
        onnx.checker.check_model(str(path), full_check=True)
    except Exception as error:
        problems.append(f"onnx.checker: {in_one_line(error)}")
    model = onnx.load(path)
    problems += declaration_problems(model)
    source = weights.get(path.name.removesuffix(".onnx"))
    if source is not None and source.suffix == ".safetensors":
        problems += weight_problems(model, source)
    entry = {"file": path.name, "problems": problems}
    images, outputs = (numbers(path, value, what) for value, what in ((model.graph.input[0], "images"), (model.graph.output[0], "outputs")))
    runs = [("ort", runtimes.run_ort), ("plain", runtimes.run_ort_as_written)]
    # OpenVINO 2026.4 computes LRN otherwise than ONNX Runtime where a window is wider than there are channels.
    if all(node.op_type != "LRN" for node in model.graph.node):
        runs.append(("openvino", runtimes.run_openvino))
    for key, run in runs:
        for n in BATCHES:
            try:
                error = runtimes.worst_error(run(path, {"input": images[:n]}), [outputs[:n]])
                allowed = TOLERANCE if error <= TOLERANCE else max(TOLERANCE, 4 * spread(path, images[:n]))
            except Exception as refusal:
                problems.append(f"{key}, {n} images: {in_one_line(refusal)}")
                continue
            entry[key] = max(entry.get(key, 0.0), error)
            if not error <= allowed:
                problems.append(f"{key}, {n} images: outputs differ from the engine's by {error:.1e}")
    return entry


def spread(path, images):
    """How much ONNX Runtime's outputs depend on its optimisations: where they nearly cancel, more than the tolerance."""
    feeds = {"input": images}
    error = runtimes.worst_error(runtimes.run_ort(path, feeds), runtimes.run_ort_as_written(path, feeds))
    return error if math.isfinite(error) else 0.0


def dims_of(value):
    return [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]


def numbers(path, value, what):
    """The images or the engine's outputs beside a file, shaped as the file declares them."""
    return np.fromfile(path.with_suffix(f".{what}.f32"), "<f4").reshape([-1, *dims_of(value)[1:]])


def declaration_problems(model):
    """Versions, names, the open batch; declared shapes must be those that onnx infers from inputs and nodes alone."""
    graph, problems = model.graph, []
    found = ([(o.domain, o.version) for o in model.opset_import], model.ir_version, model.producer_name)
    if found != ([("", OPSET)], IR_VERSION, "secateur"):
        problems.append(f"operator set, IR version and producer are {found}")
    names = [[v.name for v in graph.input], [v.name for v in graph.output]]
    if names != [["input"], ["output"]]:
        problems.append(f"inputs and outputs are {names}")
    if twice := len(graph.node) - len({node.name for node in graph.node}):
        problems.append(f"{twice} names of nodes are there twice")
    declared = {v.name: dims_of(v) for v in [*graph.value_info, *graph.output]}
    made = {name for node in graph.node for name in node.output}
    if made != set(declared):
        problems.append(f"values without a declared shape: {sorted(made - set(declared))[:3]}")
    problems += [f"{name}: {dims} does not leave the batch open" for name, dims in declared.items() if dims[0] != "batch"]
    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    del bare.graph.value_info[:]
    for dim in bare.graph.output[0].type.tensor_type.shape.dim:
        dim.Clear()
    inferred = onnx.shape_inference.infer_shapes(bare, check_type=True, strict_mode=True, data_prop=True).graph
    for value in [*inferred.value_info, *inferred.output]:
        # Numbers that it does not find out are left open there.
        pairs = list(zip(dims_of(value), declared.get(value.name, []), strict=False))
        if len(dims_of(value)) != len(pairs) or any(isinstance(a, int) and a > 0 and a != b for a, b in pairs):
            problems.append(f"{value.name}: declared as {declared.get(value.name)}, inferred as {dims_of(value)}")
    return problems


def weight_problems(model, path):
    """The file's weights are there bit by bit under their own names."""
    raw = path.read_bytes()
    end = 8 + int.from_bytes(raw[:8], "little")
    stored = {t.name: onnx.numpy_helper.to_array(t).tobytes() for t in model.graph.initializer}
    problems = []
    for name, entry in json.loads(raw[8:end]).items():
        if name != "__metadata__" and not name.endswith("num_batches_tracked"):
            begin, stop = entry["data_offsets"]
            if entry["dtype"] != "F32" or stored.get(name) != raw[end + begin : end + stop]:
                problems.append(f"initialiser {name} is not the weight of that name in {path.name}")
    return problems
