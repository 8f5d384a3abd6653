"""Small networks of one or few operations each, written here, that our own engine and ONNX Runtime must compute alike.

    python3 tests/onnx/operations.py [--tools DIR] [--only NAME]

For every case a network is written with onnx's helper, given random images, and its outputs by the example onnx_logits are compared with
ONNX Runtime's (1e-5 of the largest). Prints a line per case that differs or is refused; exit code 1 if there is any. compare.py runs it, too.
"""

import argparse
import pathlib
import subprocess
import sys
import tempfile

sys.dont_write_bytecode = True
import environment

TOLERANCE = 1e-5


class Case:
    """A network under construction: nodes that read earlier values, and constants."""

    def __init__(self, channels=4, rows=6, cols=5, batch="N", opset=18, seed=7):
        import numpy

        self.shape, self.opset = [batch, channels, rows, cols], opset
        self.nodes, self.constants, self.random, self.outputs = [], [], numpy.random.RandomState(seed), []

    def const(self, value, kind="float32"):
        import numpy
        from onnx import numpy_helper

        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(numpy.asarray(value, dtype=kind), name))
        return name

    def ints(self, *values):
        return self.const(values, "int64")

    def weight(self, *shape):
        return self.const(self.random.uniform(-1, 1, shape) if shape else 0.5)

    def op(self, kind, *inputs, n=1, **attributes):
        from onnx import helper

        outputs = [f"v{len(self.nodes)}_{i}" for i in range(n)]
        self.nodes.append(helper.make_node(kind, list(inputs), outputs, name=f"{kind} {len(self.nodes)}", **attributes))
        return outputs[0] if n == 1 else outputs

    def conv(self, x, channels_in, channels_out, kernel=1, **attributes):
        return self.op("Conv", x, self.weight(channels_out, channels_in, kernel, kernel), self.weight(channels_out), **attributes)

    def model(self, *outputs):
        from onnx import TensorProto, helper

        image = helper.make_tensor_value_info("x", TensorProto.FLOAT, self.shape)
        made = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
        graph = helper.make_graph(self.nodes, "case", [image], made, initializer=self.constants)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=9)


CASES = {}


def case(function):
    """Collects the cases: each makes one network, or a dictionary of them."""
    made = function()
    for name, model in (made.items() if isinstance(made, dict) else [("", made)]):
        CASES[f"{function.__name__} {name}".strip()] = model
    return function


def of_each(options, make):
    return {name: make(option) for name, option in options.items()}


def collect():
    @case
    def transposed_convolution():
        options = {
            "plain": {},
            "strided": {"strides": [2, 2], "pads": [1, 1, 1, 1], "output_padding": [1, 1]},
            "uneven": {"strides": [2, 3], "pads": [0, 1, 2, 0]},
            "dilated": {"dilations": [2, 1], "strides": [1, 2]},
            "groups": {"group": 2, "strides": [2, 2]},
            "same upper": {"strides": [2, 2], "auto_pad": "SAME_UPPER"},
            "same lower": {"strides": [2, 2], "auto_pad": "SAME_LOWER"},
            "shape": {"strides": [2, 2], "output_shape": [12, 10]},
            "shape upper": {"strides": [3, 2], "output_shape": [17, 10], "auto_pad": "SAME_UPPER"},
        }

        def make(attributes):
            c = Case()
            groups = attributes.get("group", 1)
            return c.model(c.op("ConvTranspose", "x", c.weight(4, 6 // groups, 3, 3), c.weight(6), **attributes))

        return of_each(options, make)

    @case
    def depthwise_transposed_convolution():
        c = Case()
        return c.model(c.op("ConvTranspose", "x", c.weight(4, 1, 4, 4), group=4, strides=[2, 2], pads=[1, 1, 1, 1]))

    @case
    def local_response_norm():
        # ONNX Runtime computes odd sizes only.
        return of_each({"five": 5, "one": 1}, lambda size: (c := Case(8)).model(c.op("LRN", "x", size=size, alpha=0.5, bias=2.0)))

    @case
    def norms():
        instance, folded, groups, one = Case(), Case(8), Case(8, opset=21), Case(6)
        x = folded.op("Reshape", "x", folded.ints(0, 2, -1))
        x = folded.op("InstanceNormalization", x, folded.weight(2), folded.weight(2), epsilon=1e-3)
        x = folded.op("Mul", folded.op("Reshape", x, folded.ints(-1, 8, 6, 5)), folded.weight(8, 1, 1))
        y = one.op("Reshape", "x", one.ints(0, 1, -1))
        y = one.op("Reshape", one.op("InstanceNormalization", y, one.const([2.0]), one.const([0.5])), one.ints(0, 6, 6, 5))
        return {
            "instance": instance.model(instance.op("InstanceNormalization", "x", instance.weight(4), instance.weight(4))),
            "groups of channels": folded.model(x),
            "of groups": groups.model(groups.op("GroupNormalization", "x", groups.weight(8), groups.weight(8), num_groups=4)),
            "of all": one.model(y),
        }

    @case
    def layer_norm_of_several_nodes():
        c = Case()
        x = c.op("Transpose", "x", perm=[0, 2, 3, 1])
        centred = c.op("Sub", x, c.op("ReduceMean", x, c.ints(-1)))
        variance = c.op("ReduceMean", c.op("Pow", centred, c.const(2.0)), c.ints(-1))
        x = c.op("Div", centred, c.op("Sqrt", c.op("Add", variance, c.const(1e-3))))
        return c.model(c.op("Add", c.op("Mul", x, c.weight(4)), c.weight(4)))

    @case
    def two_tensors():
        def make(kind):
            c = Case()
            y = c.op("Exp", c.op("Conv", "x", c.weight(4, 4, 1, 1)))
            gate = c.op("GlobalAveragePool", y)
            return c.model(c.op(kind, c.op(kind, "x", y), gate))

        return of_each({kind: kind for kind in ("Max", "Min", "Sub", "Div", "Mul", "Add")}, make)

    @case
    def a_constant_divided():
        c = Case()
        return c.model(c.op("Div", c.weight(4, 1, 1), c.op("Exp", "x")))

    @case
    def sum_of_three():
        c = Case()
        return c.model(c.op("Sum", "x", c.op("Relu", "x"), c.op("Neg", "x")))

    @case
    def reductions():
        made = {}
        for kind in ("ReduceMean", "ReduceSum", "ReduceMax", "ReduceL2", "ReduceSumSquare"):
            for what, axes, keep in (("pixels", [2, 3], 1), ("flat", [-1, -2], 0), ("channels", [1], 1), ("rows", [2], 1), ("columns", [3], 1)):
                c = Case()
                axes = {"axes": axes} if kind == "ReduceMax" and c.opset < 18 else axes
                x = c.op(kind, "x", c.ints(*axes), keepdims=keep)
                made[f"{kind} {what}"] = c.model(x)
        c = Case()
        last = c.op("Transpose", "x", perm=[0, 2, 3, 1])
        made["channels last"] = c.model(c.op("ReduceMean", last, c.ints(1, 2), keepdims=0))
        c = Case()
        tokens = c.op("Transpose", c.op("Reshape", "x", c.ints(0, 4, 30)), perm=[0, 2, 1])
        tokens = c.op("Add", c.op("MatMul", tokens, c.weight(4, 6)), c.weight(6))
        made["tokens"] = c.model(c.op("ReduceMean", tokens, c.ints(1), keepdims=0))
        return made

    @case
    def gate_of_pixels():
        c = Case()
        mean, most = c.op("ReduceMean", "x", c.ints(1)), c.op("ReduceMax", "x", c.ints(1))
        gate = c.conv(c.op("Concat", mean, most, axis=1), 2, 1, 3, pads=[1, 1, 1, 1])
        return c.model(c.op("Mul", "x", c.op("Sigmoid", gate)))

    @case
    def softmaxes():
        made = {}
        for kind in ("Softmax", "LogSoftmax"):
            c, last = Case(), Case()
            made[kind] = c.model(c.op(kind, c.op("Flatten", c.op("GlobalAveragePool", "x")), axis=1))
            made[f"{kind} channels"] = (d := Case()).model(d.op(kind, "x", axis=1))
            made[f"{kind} last"] = last.model(last.op(kind, last.op("Transpose", "x", perm=[0, 2, 3, 1]), axis=-1))
        return made

    @case
    def branches():
        def make(n):
            c = Case()
            parts = [c.op("Unsqueeze", c.op("Relu", c.conv("x", 4, 6)), c.ints(1)) for _ in range(n)]
            stacked = c.op("Concat", *parts, axis=1)
            pooled = c.op("GlobalAveragePool", c.op("ReduceSum", stacked, c.ints(1), keepdims=0))
            gate = c.op("Reshape", c.conv(pooled, 6, 6 * n), c.ints(-1, n, 6, 1, 1))
            weighed = c.op("Mul", stacked, c.op("Softmax", gate, axis=1))
            return c.model(c.op("ReduceSum", weighed, c.ints(1), keepdims=0))

        return of_each({"two": 2, "three": 3}, make)

    @case
    def branches_of_groups():
        c = Case()
        x = c.op("Relu", c.conv("x", 4, 12))
        split = c.op("Reshape", x, c.ints(-1, 3, 4, 6, 5))
        pooled = c.op("GlobalAveragePool", c.op("ReduceSum", split, c.ints(1), keepdims=0))
        gate = c.op("Reshape", c.conv(pooled, 4, 12), c.ints(-1, 2, 3, 2))
        gate = c.op("Softmax", c.op("Transpose", gate, perm=[0, 2, 1, 3]), axis=1)
        gate = c.op("Reshape", c.op("Reshape", gate, c.ints(-1, 12)), c.ints(-1, 3, 4, 1, 1))
        mean = c.op("ReduceMean", c.op("Mul", split, gate), c.ints(1), keepdims=1)
        first = c.op("Gather", split, c.const(1, "int64"), axis=1)
        one, two = c.op("Split", split, c.ints(1, 2), axis=1, n=2)
        last = c.op("Slice", two, c.ints(1), c.ints(2), c.ints(1))
        return c.model(c.op("Add", c.op("Squeeze", mean, c.ints(1)), c.op("Add", first, c.op("Squeeze", c.op("Add", one, last), c.ints(1)))))

    @case
    def convolution_along_channels():
        c, d = Case(8), Case(8)
        y = c.op("Reshape", c.op("ReduceMean", "x", c.ints(2, 3), keepdims=0), c.ints(0, 1, -1))
        gate = c.op("Sigmoid", c.op("Conv", y, c.weight(1, 1, 3), pads=[1, 1]))
        gate = c.op("Expand", c.op("Reshape", gate, c.ints(0, -1, 1, 1)), c.ints(1, 8, 6, 5))
        y = d.op("Squeeze", d.op("GlobalAveragePool", "x"), d.ints(-1))
        y = d.op("Conv", d.op("Transpose", y, perm=[0, 2, 1]), d.weight(1, 1, 5), d.weight(1), pads=[2, 2])
        y = d.op("Unsqueeze", d.op("Transpose", y, perm=[0, 2, 1]), d.ints(-1))
        return {"": c.model(c.op("Mul", "x", gate)), "transposed": d.model(d.op("Mul", "x", d.op("Sigmoid", y)))}

    @case
    def channels_in_order():
        c, d = Case(6), Case(6)
        shuffled = c.op("Transpose", c.op("Reshape", "x", c.ints(0, 2, 3, 6, 5)), perm=[0, 2, 1, 3, 4])
        picked = d.op("Gather", "x", d.ints(5, 0, 1, 3), axis=1)
        return {"shuffled": c.model(c.op("Reshape", shuffled, c.ints(0, -1, 6, 5))), "picked": d.model(picked)}

    @case
    def flattened():
        import numpy

        c, d, e = Case(), Case(batch=1), Case(batch=1)
        five = c.op("Reshape", "x", c.ints(0, 2, 2, 6, 5))
        flat = d.op("Reshape", d.op("GlobalAveragePool", "x"), d.ints(-1))
        back = d.op("Reshape", flat, d.ints(1, 4))
        pooled = e.op("Reshape", e.op("GlobalAveragePool", "x"), e.ints(-1))
        places = e.const(numpy.arange(4).reshape(1, 4, 1, 1), "int64")
        return {
            "rank 5": c.model(c.op("Gemm", c.op("Flatten", five), c.weight(120, 3))),
            "one axis": d.model(d.op("Gemm", back, d.weight(3, 4), transB=1)),
            "gathered": e.model(e.conv(e.op("Gather", pooled, places, axis=0), 4, 3)),
        }

    @case
    def products():
        c, d = Case(), Case()
        flat = c.op("Flatten", c.op("GlobalAveragePool", "x"))
        y = d.op("Flatten", d.op("GlobalMaxPool", "x"))
        norm = d.op("BatchNormalization", y, d.weight(4), d.weight(4), d.weight(4), d.const([0.5, 1.0, 2.0, 0.1]))
        return {
            "scaled": c.model(c.op("Gemm", flat, c.weight(4, 3), c.weight(3), alpha=0.5, beta=2.0)),
            "norm of rank 2": d.model(d.op("MatMul", norm, d.weight(4, 3))),
        }

    @case
    def average_pools():
        options = {
            "same upper": {"auto_pad": "SAME_UPPER"},
            "same lower": {"auto_pad": "SAME_LOWER"},
            "padding counts": {"pads": [1, 0, 0, 1], "count_include_pad": 1},
        }
        shape = {"kernel_shape": [3, 2], "strides": [2, 2]}
        return of_each(options, lambda more: (c := Case()).model(c.op("AveragePool", "x", **shape, **more)))

    @case
    def padded():
        made = {}
        for mode in ("constant", "reflect", "edge"):
            made[mode] = (c := Case()).model(c.op("Pad", "x", c.ints(0, 0, 2, 1, 0, 0, 3, 4), mode=mode))
        made["cut"] = (c := Case()).model(c.op("Pad", "x", c.ints(0, 0, -1, 0, 0, 0, -2, -1)))
        return made

    @case
    def rows_and_columns_cut():
        c, d, e, f = Case(), Case(), Case(4, 6, 4), Case()
        part = c.op("Slice", "x", c.ints(1, 2), c.ints(5, 99), c.ints(2, 3))
        corners = [(row, col) for col in (0, 1) for row in (0, 1)]
        focus = [d.op("Slice", "x", d.ints(row, col), d.ints(99, 5 - 1 + col), d.ints(2, 3), d.ints(2, 2)) for row, col in corners]
        top, bottom = f.op("Split", "x", f.ints(2, 4), axis=2, n=2)
        both = f.op("Concat", f.op("GlobalAveragePool", top), f.op("GlobalMaxPool", bottom), axis=1)
        return {
            "part": c.model(part),
            "focus": d.model(d.op("Concat", *focus, axis=1)),
            "blocks": e.model(e.op("SpaceToDepth", "x", blocksize=2)),
            "halves": f.model(both),
            "backwards": (g := Case()).model(g.op("Slice", "x", g.ints(-1), g.ints(-99), g.ints(3), g.ints(-1))),
        }

    @case
    def powers():
        return of_each({str(p): p for p in (0.5, 2, 3, -1, 0.75, -0.5)}, lambda p: (c := Case()).model(c.op("Pow", "x", c.const(float(p)))))

    @case
    def functions():
        return of_each({kind: kind for kind in ("Selu", "Celu", "Softsign", "Reciprocal")}, lambda kind: (c := Case()).model(c.op(kind, "x")))


def compare(name, model, tool, folder):
    """None where both compute the same, or what is wrong."""
    import numpy
    import onnx
    import onnxruntime

    path = folder / "case.onnx"
    onnx.save(model, path)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        return f"{name}: ONNX Runtime does not take it: {str(error).splitlines()[0][:200]}"
    shape = [d if isinstance(d, int) else 2 for d in session.get_inputs()[0].shape]
    images = numpy.random.RandomState(3).uniform(0.1, 2, shape).astype("float32")
    images.tofile(folder / "images")
    theirs = numpy.concatenate([value.ravel() for value in session.run(None, {"x": images})])
    ran = subprocess.run([tool, path, folder / "images", folder / "outputs"], capture_output=True, text=True)
    if ran.returncode:
        return f"{name}: refused: {ran.stderr.strip()}"
    ours = numpy.fromfile(folder / "outputs", "<f4")
    if ours.shape != theirs.shape:
        return f"{name}: {ours.size} numbers, ONNX Runtime has {theirs.size}"
    error = float(numpy.abs(ours - theirs).max() / max(numpy.abs(theirs).max(), 1e-9))
    return None if error <= TOLERANCE else f"{name}: differs by {error:.1e}"


def check(tool, only=None):
    """What is wrong with any case, and how many there are."""
    if not CASES:
        collect()
    chosen = {name: model for name, model in CASES.items() if only is None or only in name}
    with tempfile.TemporaryDirectory() as folder:
        wrong = [compare(name, model, tool, pathlib.Path(folder)) for name, model in chosen.items()]
    return [problem for problem in wrong if problem], len(chosen)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    root = pathlib.Path(__file__).resolve().parent.parent.parent
    parser.add_argument("--tools", type=pathlib.Path, default=root / "target/release/examples", metavar="DIR", help="folder of onnx_logits")
    parser.add_argument("--only", metavar="NAME", help="cases with this in their name")
    parser.add_argument("--venv", help="folder of the virtual environment (see environment.py)")
    arguments = parser.parse_args()
    environment.run_inside(arguments.venv)
    problems, n = check(arguments.tools / "onnx_logits", arguments.only)
    for problem in problems:
        print(problem)
    print(f"{n} cases, {len(problems)} wrong")
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
