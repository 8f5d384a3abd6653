"""Runs ONNX files in ONNX Runtime and OpenVINO, and counts multiply-accumulates from the shapes that really occur."""

import math

import numpy as np
import onnx
import onnxruntime
import openvino

from document import Document

# Images where an input leaves the batch open; channels, rows and columns where it leaves those open too and expected.json names none.
OPEN_BATCH = 2
OPEN_SIZES = [3, 64, 64]
NUMPY_TYPES = {
    onnx.TensorProto.FLOAT: np.float32,
    onnx.TensorProto.DOUBLE: np.float64,
    onnx.TensorProto.FLOAT16: np.float16,
    onnx.TensorProto.INT64: np.int64,
    onnx.TensorProto.INT32: np.int32,
}

onnxruntime.set_default_logger_severity(4)


def shapes_of_inputs(document, batch, open_sizes=None):
    """The shape of each input, and whether a size besides the batch was open and had to be chosen."""
    shapes, is_chosen = {}, False
    for value in document.inputs():
        declared = [d.dim_value if d.dim_value > 0 else None for d in value.type.tensor_type.shape.dim]
        chosen = [batch, *(open_sizes or OPEN_SIZES)]
        is_chosen |= None in declared[1:]
        shapes[value.name] = [known or size for known, size in zip(declared, chosen, strict=False)]
    return shapes, is_chosen


def has_open_batch(document):
    return any(v.type.tensor_type.shape.dim[:1] and v.type.tensor_type.shape.dim[0].dim_value <= 0 for v in document.inputs())


def random_inputs(document, batch, open_sizes=None):
    rng = np.random.default_rng(0)
    types = {v.name: NUMPY_TYPES[v.type.tensor_type.elem_type] for v in document.inputs()}
    shapes, _ = shapes_of_inputs(document, batch, open_sizes)
    return {name: rng.standard_normal(shape).astype(types[name]) for name, shape in shapes.items()}


def run_ort(path, feeds, level=onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL):
    """Outputs in the graph's order, with ONNX Runtime's default optimisations on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.graph_optimization_level = level
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return session.run(None, feeds)


def run_ort_as_written(path, feeds):
    """As run_ort, node by node: no optimisation folds or fuses anything."""
    return run_ort(path, feeds, onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL)


def run_ort_up_to(path, feeds, names):
    """Tensors within the graph, node by node."""
    model = onnx.load(path)
    made = {value.name for value in model.graph.output}
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in made)
    # Data in other files are looked for beside the file.
    within = path.with_name(f"within_{path.name}")
    within.write_bytes(model.SerializeToString())
    try:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        return onnxruntime.InferenceSession(str(within), options, providers=["CPUExecutionProvider"]).run(names, feeds)
    finally:
        within.unlink()


def run_openvino(path, feeds):
    """Outputs in the graph's order, in float32 also on processors with bfloat16.

    With its default number of threads: told to use one, 2026.4 computes layers of a single channel wrongly for two images (ResNet-18
    by a quarter, where ONNX Runtime and OpenVINO's own default agree to 1e-7), or refuses to compile them.
    """
    compiled = openvino.Core().compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    results = compiled({compiled.input(name): feed for name, feed in feeds.items()})
    return [np.array(results[output]) for output in compiled.outputs]


def worst_error(outputs, references):
    """Largest absolute difference over largest magnitude of the reference, for the worst output; infinite where shapes differ."""
    if len(outputs) != len(references):
        return math.inf
    return max(relative_error(a, b) for a, b in zip(outputs, references, strict=True))


def relative_error(output, reference):
    if output.shape != reference.shape:
        return math.inf
    if not reference.size or np.array_equal(output, reference):
        return 0.0
    output, reference = output.astype(np.float64), reference.astype(np.float64)
    if not (np.isfinite(output).all() and np.isfinite(reference).all()):
        return math.inf
    size = np.abs(reference).max()
    return float(np.abs(output - reference).max() / size) if size else math.inf


def is_linear(node):
    return node.op_type in ("Conv", "ConvTranspose", "Gemm", "MatMul")


class Probe:
    """One run for one image with all graph optimisations off, and the shape of every tensor that is declared or counted."""

    def __init__(self, path, open_sizes=None):
        self.document = Document(path)
        self.open_sizes = open_sizes
        graph = self.document.graph
        declared = [v.name for v in graph.value_info]
        counted = [name for node in graph.node if is_linear(node) for name in [*node.input[:2], *node.output]]
        made = {name for node in graph.node for name in node.output if name}
        wanted = sorted((set(declared) | set(counted)) & made - {o.name for o in graph.output} - set(self.document.constants))
        self.shapes = self.run(path, wanted)
        self.shapes |= {name: list(t.dims) for name, t in self.document.constants.items()}

    def run(self, path, wanted):
        probe = path.with_name(f"probe_{path.name}")
        model = onnx.ModelProto()
        model.CopyFrom(self.document.model)
        model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in wanted)
        probe.write_bytes(model.SerializeToString())
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        session = onnxruntime.InferenceSession(str(probe), options, providers=["CPUExecutionProvider"])
        feeds = random_inputs(self.document, 1, self.open_sizes)
        outputs = session.run(None, feeds)
        probe.unlink()
        shapes = {o.name: list(np.shape(value)) for o, value in zip(session.get_outputs(), outputs, strict=True)}
        return shapes | {name: list(feed.shape) for name, feed in feeds.items()}

    def stale_shapes(self):
        """Declared sizes of intermediate tensors that are not what the run gave (-1 and symbols say nothing)."""
        problems = []
        for value in self.document.graph.value_info:
            declared = [d.dim_value for d in value.type.tensor_type.shape.dim]
            real = self.shapes.get(value.name)
            if not value.type.tensor_type.HasField("shape") or real is None:
                continue
            if len(declared) != len(real) or any(d > 0 and d != r for d, r in zip(declared, real, strict=True)):
                problems.append(f"value_info of {value.name} declares {declared}, the run gave {real}")
        return problems

    def macs(self):
        """Multiply-accumulates of one image in convolutions and in products with a constant matrix."""
        constant, total = self.document.derived(), 0
        for node in self.document.graph.node:
            if not is_linear(node):
                continue
            x, w, y = (self.shapes[name] for name in (node.input[0], node.input[1], node.output[0]))
            if node.op_type in ("Conv", "ConvTranspose"):
                positions = (y if node.op_type == "Conv" else x)[2:]
                total += math.prod(w) * math.prod(positions) * x[0]
            elif node.input[1] in constant and node.input[0] not in constant:
                total += math.prod(w) * math.prod(y[:-1])
        return total
