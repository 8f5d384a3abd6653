"""A network's graph as a plain PyTorch module: what runs where the user's own class cannot be cut. Imports torch."""

import functools
import json

import torch
import torch.nn.functional as F
from safetensors import safe_open
from torch import nn


class GraphModule(nn.Module):
    """What the operations of a network's graph compute, on what the network reads: float32 [N, C, H, W], normalised. It trains and
    exports; BatchNorms that the network has folded into other layers are gone. `nodes` are the graph's, each a dict of name, op and
    inputs; `layers` are the modules that compute them, in the same order."""

    def __init__(self, graph, weights):
        super().__init__()
        self.nodes = graph["nodes"]
        self.layers = nn.ModuleList(_layer(node["op"], weights, node["name"]) for node in self.nodes)
        # What nobody reads any more is let go.
        last_reader = {source: i for i, node in enumerate(self.nodes) for source in node["inputs"]}
        self._done_after = [[source for source, last in last_reader.items() if last == i] for i in range(len(self.nodes))]

    @classmethod
    def load(cls, path):
        """Of a model.safetensors that secateur wrote."""
        with safe_open(path, "pt") as file:
            graph = json.loads(file.metadata()["secateur.graph"])
            return cls(graph, {name: file.get_tensor(name) for name in file.keys()}).eval()

    def forward(self, images):
        made = {0: images}
        for i, (node, layer) in enumerate(zip(self.nodes, self.layers)):
            if i > 0:
                made[i] = layer(*(made[source] for source in node["inputs"]))
            for source in self._done_after[i]:
                del made[source]
        return made[len(self.nodes) - 1].flatten(1)

    def layer(self, name):
        """The module that computes the node of this name."""
        return next(layer for node, layer in zip(self.nodes, self.layers) if node["name"] == name)


def _layer(op, weights, name):
    """The module of one node, with its weights."""
    kind, fields = (op, {}) if isinstance(op, str) else next(iter(op.items()))
    if kind in _LAYERS:
        layer = _LAYERS[kind](fields)
        state = {key.rpartition(".")[2]: value for key, value in weights.items() if key.rpartition(".")[0] == name}
        if kind == "BatchNorm":
            state["num_batches_tracked"] = torch.tensor(0)
        layer.load_state_dict(state)
        return layer
    if kind == "Pointwise":
        function, numbers = (fields, {}) if isinstance(fields, str) else next(iter(fields.items()))
        return _Operation(function, numbers, _POINTWISE)
    return _Operation(kind, fields, _OPERATIONS)


class _Operation(nn.Module):
    """An operation without weights. Functions are looked up by name, so that modules can be pickled."""

    def __init__(self, kind, fields, table):
        super().__init__()
        self.kind, self.fields, self.is_pointwise = kind, fields, table is _POINTWISE
        if kind not in table:
            raise NotImplementedError(f"the operation {kind} has no PyTorch form here: this wheel is older than the file")

    def forward(self, *inputs):
        return (_POINTWISE if self.is_pointwise else _OPERATIONS)[self.kind](*inputs, **self.fields)

    def extra_repr(self):
        return ", ".join([self.kind, *(f"{key}={value}" for key, value in self.fields.items() if key not in ("rows", "cols") or self.kind != "Resize")])


# Layers with weights. All that passes between layers is [N, C, H, W].


class _Linear(nn.Linear):
    def forward(self, x):
        return _unflat(super().forward(x.flatten(1)))


class _LayerNorm(nn.LayerNorm):
    def forward(self, x):
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class _UnevenConvTranspose2d(nn.ConvTranspose2d):
    """With another padding in front than behind."""

    def __init__(self, cut, added, *arguments, **options):
        super().__init__(*arguments, **options)
        self.cut, self.added = cut, added

    def forward(self, x):
        x = F.conv_transpose2d(x, self.weight, None, self.stride, 0, 0, self.groups, self.dilation)
        (top, bottom), (left, right) = self.cut
        x = F.pad(x, (-left, self.added[1] - right, -top, self.added[0] - bottom))
        return x if self.bias is None else x + self.bias[:, None, None]


class _ChannelConv(nn.Module):
    """A convolution along the channels, the same for all pixels."""

    def __init__(self, taps, front, bias):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.zeros(taps)), nn.Parameter(torch.zeros(1)) if bias else None
        self.around = (0, 0, front, taps - 1 - front)

    def forward(self, x):
        rows = F.pad(x.flatten(2).unsqueeze(1), self.around)
        return F.conv2d(rows, self.weight[None, None, :, None], self.bias).squeeze(1).unflatten(2, x.shape[2:])


def _conv_transpose(f):
    (top, bottom), (left, right) = padding = f["padding"]
    shape = f["in_channels"], f["out_channels"], f["kernel"], f["stride"]
    options = {"groups": f["groups"], "dilation": f["dilation"], "bias": f["bias"]}
    if top == bottom and left == right:
        return nn.ConvTranspose2d(*shape, padding=(top, left), output_padding=f["output_padding"], **options)
    return _UnevenConvTranspose2d(padding, f["output_padding"], *shape, **options)


_LAYERS = {
    "Conv2d": lambda f: nn.Conv2d(f["in_channels"], f["out_channels"], f["kernel"], f["stride"], f["padding"], f["dilation"], f["groups"], f["bias"]),
    "ConvTranspose2d": _conv_transpose,
    "Linear": lambda f: _Linear(f["in_features"], f["out_features"], f["bias"]),
    "BatchNorm": lambda f: nn.BatchNorm2d(f["channels"], f["eps"]),
    "LayerNorm": lambda f: _LayerNorm(f["channels"], f["eps"]),
    "GroupNorm": lambda f: nn.GroupNorm(f["groups"], f["channels"], f["eps"]),
    "PRelu": lambda f: nn.PReLU(f["channels"]),
    "ChannelConv": lambda f: _ChannelConv(f["taps"], f["front"], f["bias"]),
}


# Operations without weights.


def _unflat(x):
    return x.unsqueeze(2).unsqueeze(3)


def _window(x, kernel, stride, padding, ceil):
    """What to pad an image with, left, right, above, below, for all windows to lie within; None where PyTorch's own numbers do."""
    sides = [side if isinstance(side, list) else [side, side] for side in padding]
    if all(before == behind and 2 * before <= k for (before, behind), k in zip(sides, kernel)):
        return None
    around = []
    for size, k, step, (before, behind) in reversed([*zip(x.shape[2:], kernel, stride, sides)]):
        last = (before + size + behind - k + (step - 1 if ceil else 0)) // step
        # The last window begins in front of the padding behind the image.
        last -= int(last * step >= size + before)
        around += [before, max(0, last * step + k - before - size)]
    return around


def _plain(padding):
    return [side[0] if isinstance(side, list) else side for side in padding]


def _max_pool(x, kernel, stride, padding, ceil=False, counts_padding=True):
    around = _window(x, kernel, stride, padding, ceil)
    if around is None:
        return F.max_pool2d(x, kernel, stride, _plain(padding), ceil_mode=ceil)
    return F.max_pool2d(F.pad(x, around, value=-torch.inf), kernel, stride)


def _avg_pool(x, kernel, stride, padding, ceil=False, counts_padding=True):
    around = _window(x, kernel, stride, padding, ceil)
    if around is None:
        return F.avg_pool2d(x, kernel, stride, _plain(padding), ceil_mode=ceil, count_include_pad=counts_padding)
    # Pixels beyond the padding never count.
    of_padding = [n for side in reversed(padding) for n in (side if isinstance(side, list) else [side, side])]
    counted = F.pad(x.new_ones(1, 1, *x.shape[2:]), of_padding, value=float(counts_padding))
    counted = F.pad(counted, [n - m for n, m in zip(around, of_padding)])
    return F.avg_pool2d(F.pad(x, around), kernel, stride) / F.avg_pool2d(counted, kernel, stride)


def _channel_shuffle(x, groups):
    return x.unflatten(1, (groups, -1)).transpose(1, 2).flatten(1, 2)


def _depth_to_space(x, block, columns_rows_depth):
    if columns_rows_depth:
        return F.pixel_shuffle(x, block)
    x = x.unflatten(1, (block, block, -1)).permute(0, 3, 4, 1, 5, 2)
    return x.flatten(4, 5).flatten(2, 3)


def _resize(x, rows, cols):
    for axis, taps in ((2, rows), (3, cols)):
        first, second, share = zip(*(tap if isinstance(tap, list) else (tap, tap, 0.0) for tap in taps))
        take = lambda lines: x.index_select(axis, torch.tensor(lines, device=x.device))
        share = x.new_tensor(share).view(-1, 1) if axis == 2 else x.new_tensor(share)
        x = take(first) * (1 - share) + take(second) * share
    return x


def _local_response_norm(x, size, alpha, beta, bias):
    n = x.shape[1]
    squares = F.pad(x * x, (0, 0, 0, 0, (size - 1) // 2, size // 2))
    summed = sum(squares[:, i : i + n] for i in range(size))
    return x / (bias + alpha / size * summed) ** beta


def _all(function):
    return lambda *inputs: functools.reduce(function, inputs)


_OPERATIONS = {
    "Input": lambda: None,
    "Add": _all(torch.add),
    "Mul": _all(torch.mul),
    "Max": _all(torch.maximum),
    "Min": _all(torch.minimum),
    "Concat": lambda *inputs: torch.cat(inputs, 1),
    "MaxPool": _max_pool,
    "AvgPool": _avg_pool,
    "GlobalAvgPool": lambda x: F.adaptive_avg_pool2d(x, 1),
    "GlobalMaxPool": lambda x: F.adaptive_max_pool2d(x, 1),
    "Flatten": lambda x: _unflat(x.flatten(1)),
    "FlattenPixels": lambda x: _unflat(x.permute(0, 2, 3, 1).flatten(1)),
    "ChannelShuffle": _channel_shuffle,
    "DepthToSpace": _depth_to_space,
    "Resize": _resize,
    "LocalResponseNorm": _local_response_norm,
    "ChannelMean": lambda x: x.mean(1, keepdim=True),
    "ChannelMax": lambda x: x.amax(1, keepdim=True),
    "BranchSum": lambda x, branches: x.unflatten(1, (branches, -1)).sum(1),
    "BranchSoftmax": lambda x, branches: x.unflatten(1, (branches, -1)).softmax(1).flatten(1, 2),
    "Pad": lambda x, channels, rows, cols: F.pad(x, (*cols, *rows, *channels)),
    "Slice": lambda x, channels, step: x[:, channels[0] : channels[1], :: step[0], :: step[1]],
    "Softmax": lambda x: x.softmax(1),
    "Identity": lambda x: x,
}
_POINTWISE = {
    "Relu": F.relu,
    "Relu6": F.relu6,
    "Sigmoid": torch.sigmoid,
    "Tanh": torch.tanh,
    "Silu": F.silu,
    "HardSwish": F.hardswish,
    "LeakyRelu": lambda x, slope: F.leaky_relu(x, slope),
    "HardSigmoid": lambda x, alpha, beta: (alpha * x + beta).clamp(0, 1),
    "Affine": lambda x, scale, shift: scale * x + shift,
    "Clip": lambda x, min=None, max=None: x.clamp(min, max),
    "Gelu": lambda x, tanh: F.gelu(x, approximate="tanh" if tanh else "none"),
    "Elu": lambda x, alpha: F.elu(x, alpha),
    "Softplus": F.softplus,
    "Mish": F.mish,
    "Exp": torch.exp,
    "Sqrt": torch.sqrt,
    "Abs": torch.abs,
    "Neg": torch.neg,
    "Erf": torch.erf,
    "Log": torch.log,
    "Reciprocal": torch.reciprocal,
}
