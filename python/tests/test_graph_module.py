"""A network's operations as a plain PyTorch module compute what the engine does, train and export."""

import json
import pickle
import re
import sys

import numpy
import pytest
import secateur
import secateur.torch
from conftest import ROOT

torch = pytest.importorskip("torch")
torchvision = pytest.importorskip("torchvision")
from safetensors.numpy import save_file  # noqa: E402
from secateur._graph_module import GraphModule  # noqa: E402
from test_torch import NETWORKS, Small, difference, make  # noqa: E402

sys.path.insert(0, str(ROOT / "tests" / "onnx"))
import operations  # noqa: E402  small networks of every operation that ONNX files have

WINDOW = {"kernel": [3, 2], "stride": [2, 2], "padding": [1, 1]}
UNEVEN = {"kernel": [3, 3], "stride": [2, 3], "padding": [[0, 2], [2, 1]]}
TRANSPOSED = {"in_channels": 8, "out_channels": 4, "kernel": [3, 2], "stride": [2, 3], "dilation": [1, 2], "groups": 2, "bias": True}
# Operations on 8 channels of 6 x 5 pixels: all that a graph can have, where there is a choice in each way.
OPERATIONS = {
    "BatchNorm": {"channels": 8, "eps": 1e-3},
    "PRelu": {"channels": 8},
    "LayerNorm": {"channels": 8, "eps": 1e-3},
    "GroupNorm": {"channels": 8, "groups": 4, "eps": 1e-3},
    "ChannelConv": {"taps": 3, "front": 2, "bias": True},
    "LocalResponseNorm": {"size": 4, "alpha": 0.5, "beta": 0.75, "bias": 2.0},
    "MaxPool": WINDOW,
    "MaxPool in whole windows": {**WINDOW, "ceil": True},
    "MaxPool uneven": UNEVEN,
    "MaxPool uneven in whole windows": {**UNEVEN, "ceil": True},
    "AvgPool": WINDOW,
    "AvgPool of pixels": {**WINDOW, "ceil": True, "counts_padding": False},
    "AvgPool uneven": {**UNEVEN, "ceil": True},
    "AvgPool uneven of pixels": {**UNEVEN, "ceil": True, "counts_padding": False},
    "ConvTranspose2d": {**TRANSPOSED, "padding": [[1, 1], [0, 0]], "output_padding": [1, 0]},
    "ConvTranspose2d uneven": {**TRANSPOSED, "padding": [[0, 1], [2, 0]], "output_padding": [0, 1]},
    "Resize": {"rows": [0, [0, 1, 0.25], 5, [4, 5, 0.5]], "cols": [4, [3, 4, 0.75], 0]},
    "ChannelShuffle": {"groups": 4},
    "DepthToSpace": {"block": 2, "columns_rows_depth": True},
    "DepthToSpace by place": {"block": 2, "columns_rows_depth": False},
    "BranchSum": {"branches": 2},
    "BranchSoftmax": {"branches": 4},
    "Pad": {"channels": [1, 2], "rows": [0, 3], "cols": [2, 1]},
    "Slice": {"channels": [2, 7], "step": [2, 3]},
    **{name: None for name in ("GlobalAvgPool", "GlobalMaxPool", "Flatten", "FlattenPixels", "ChannelMean", "ChannelMax", "Softmax", "Identity")},
    **{name: "both" for name in ("Add", "Mul", "Max", "Min", "Concat")},
}
FUNCTIONS = {
    "LeakyRelu": {"slope": 0.1},
    "HardSigmoid": {"alpha": 0.2, "beta": 0.5},
    "Affine": {"scale": 0.5, "shift": -0.25},
    "Clip": {"min": -1.0, "max": 2.5},
    "Clip from below": {"min": -0.5},
    "Gelu": {"tanh": False},
    "Gelu by tanh": {"tanh": True},
    "Elu": {"alpha": 0.7},
    **{name: None for name in ("Relu", "Relu6", "Sigmoid", "Tanh", "Silu", "HardSwish", "Softplus", "Mish", "Exp", "Sqrt", "Abs", "Neg", "Erf", "Log", "Reciprocal")},
}
NEEDS_POSITIVE = ("Sqrt", "Log", "Reciprocal")


def written(folder, op, *, on_positive=False):
    """A file with a network of a convolution, the operation, and what makes it flat; shapes of weights are the operation's."""
    draw = numpy.random.default_rng(3)
    square = {"in_channels": 3, "out_channels": 8, "kernel": [1, 1], "stride": [1, 1], "padding": [0, 0], "dilation": [1, 1], "groups": 1, "bias": True}
    nodes = [{"name": "input", "op": "Input", "inputs": []}, {"name": "conv", "op": {"Conv2d": square}, "inputs": [0]}]
    if on_positive:
        nodes.append({"name": "positive", "op": {"Pointwise": "Exp"}, "inputs": [1]})
    at = len(nodes) - 1
    kind, fields = (op, {}) if isinstance(op, str) else next(iter(op.items()))
    nodes.append({"name": "op", "op": op, "inputs": [at, at] if kind in ("Add", "Mul", "Max", "Min", "Concat") else [at]})
    if kind in ("Add", "Mul", "Max", "Min"):
        nodes.insert(at + 1, {"name": "mean", "op": "GlobalAvgPool", "inputs": [at]})
        nodes[-1]["inputs"] = [at, at + 1]
    nodes.append({"name": "flat", "op": "Flatten", "inputs": [len(nodes) - 1]})
    weights = {"conv.weight": (8, 3, 1, 1), "conv.bias": (8,)}
    if kind == "ConvTranspose2d":
        weights |= {"op.weight": (8, 2, *fields["kernel"]), "op.bias": (4,)}
    elif kind == "ChannelConv":
        weights |= {"op.weight": (3,), "op.bias": (1,)}
    elif kind in ("BatchNorm", "LayerNorm", "GroupNorm", "PRelu"):
        weights |= {"op.weight": (8,), **({} if kind == "PRelu" else {"op.bias": (8,)})}
        weights |= {"op.running_mean": (8,), "op.running_var": (8,)} if kind == "BatchNorm" else {}
    tensors = {name: draw.uniform(0.1 if "var" in name else -1, 1, shape).astype(numpy.float32) for name, shape in weights.items()}
    graph = {"input": {"c": 3, "h": 6, "w": 5}, "nodes": nodes}
    path = folder / "network.safetensors"
    description = {"format": "1", "graph": json.dumps(graph), "mean": "[0.0, 0.0, 0.0]", "std": "[1.0, 1.0, 1.0]"}
    n_outputs = len(GraphModule(graph, {name: torch.from_numpy(values) for name, values in tensors.items()})(torch.zeros(1, 3, 6, 5))[0])
    save_file(tensors, path, {f"secateur.{key}": value for key, value in {**description, "classes": str(n_outputs)}.items()})
    return path


def check(path, network=None):
    network = network or secateur.Network.load(path)
    module = pickle.loads(pickle.dumps(GraphModule.load(path)))
    # Some of the networks take roots of their images.
    images = 0.1 + torch.rand(3, *network.inspect()["input"], generator=torch.Generator().manual_seed(2))
    assert difference(network, module, images) < 1e-5


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_computes_what_the_engine_does(name, tmp_path):
    kind, fields = name.split()[0], OPERATIONS[name]
    check(written(tmp_path, {kind: fields} if isinstance(fields, dict) else kind))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_computes_what_the_engine_does(name, tmp_path):
    kind, fields = name.split()[0], FUNCTIONS[name]
    check(written(tmp_path, {"Pointwise": kind if fields is None else {kind: fields}}, on_positive=kind in NEEDS_POSITIVE))


def test_nothing_that_a_graph_can_have_is_left_out():
    operation = (ROOT / "crates" / "net" / "src" / "graph_file.rs").read_text()
    known = re.findall(r'"(\w+)"', re.search(r"OPERATIONS: \[&str; \d+\] = \[(.*?)\];", operation, re.DOTALL)[1])
    tested = {name.split()[0] for name in OPERATIONS}
    assert {*known} == tested | {"Input", "Conv2d", "Linear", "Pointwise"}
    function = (ROOT / "crates" / "net" / "src" / "graph_function.rs").read_text()
    assert {*re.findall(r'^    \("(\w+)", ', function, re.MULTILINE)} == {name.split()[0] for name in FUNCTIONS}


def test_the_networks_of_all_operations_of_onnx_compute_what_the_engine_does(tmp_path):
    operations.collect()
    assert len(operations.CASES) > 80
    for i, model in enumerate(operations.CASES.values()):
        network = secateur.Network.from_onnx(model)
        network.save(tmp_path / str(i))
        check(tmp_path / str(i) / "model.safetensors", network)


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "shufflenet_v2_x0_5", "densenet121"])
def test_without_a_class_a_pruned_network_is_a_module_that_trains_and_exports(name):
    images = torch.randn(4, 3, NETWORKS[name], NETWORKS[name], generator=torch.Generator().manual_seed(1))
    half = secateur.torch.from_module(make(name, NETWORKS[name]), images[:1]).prune(0.7)
    module = secateur.torch.to_module(half)
    assert isinstance(module, torch.nn.Module) and not module.training
    assert difference(half, module, images) < 1e-4
    # Exported again it is the same network.
    again = secateur.torch.from_module(module, images[:1])
    assert again.macs == half.macs and difference(again, module, images) < 1e-4
    module.train()
    optimizer = torch.optim.SGD(module.parameters(), lr=1e-3)
    before = [parameter.detach().clone() for parameter in module.parameters()]
    torch.nn.functional.cross_entropy(module(images), torch.tensor([1, 2, 3, 4])).backward()
    optimizer.step()
    assert all(torch.isfinite(parameter).all() for parameter in module.parameters())
    assert not any(torch.equal(a, b) for a, b in zip(before, module.parameters()) if a.dim() == 4)


class Written(Small):
    """With a number of channels in its code."""

    def forward(self, x):
        x = torch.relu(self.first(x))
        return self.head(torch.relu(self.second(x.view(len(x), 8, 16, 16))).mean((2, 3)))


class Parametrised(Small):
    """With a weight that is computed from others."""

    def __init__(self):
        super().__init__()
        torch.nn.utils.parametrizations.weight_norm(self.second)


@pytest.mark.parametrize(("kind", "why"), [(Written, "numbers of channels are written in its code"), (Parametrised, "weight of 'second' is computed from others")])
def test_a_class_that_cannot_be_resized_stays_and_a_plain_module_comes_with_the_reason(kind, why):
    torch.manual_seed(5)
    module, images = kind().eval(), torch.randn(3, 3, 16, 16)
    network = secateur.torch.from_module(module, images[:2])
    before = {key: value.clone() for key, value in module.state_dict().items()}
    pruned = network.prune(0.5)
    assert pruned.macs < network.macs
    with pytest.warns(UserWarning, match=why):
        plain = secateur.torch.to_module(pruned, module)
    assert not isinstance(plain, kind) and difference(pruned, plain, images) < 1e-4
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())
