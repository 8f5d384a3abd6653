"""Trains the two networks of the quickstart on the procedural data sets.

Rerun, from the root of the repository (about three minutes each on one core):

    python3 -m venv /tmp/venv && /tmp/venv/bin/pip install torch numpy safetensors
    /tmp/venv/bin/python scenes/quickstart/train.py shapes
    /tmp/venv/bin/python scenes/quickstart/train.py textures

Each call writes scenes/quickstart/<name>.safetensors: the parameters, named <node>.<parameter>, and in the metadata the graph
and the preprocessing. One list of nodes per network is both the PyTorch module and the graph. The data come from
`cargo run --release -p secateur-formats --example procedural_bin`, which writes CIFAR-10's record layout.
The result repeats on the same machine and PyTorch version (2.15 was used), not necessarily on others.
"""

import json
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

HERE = pathlib.Path(__file__).resolve().parent
N_TRAIN, N_TEST, N_CLASSES = 8000, 2000, 10
EPOCHS, BATCH, LEARNING_RATE, WEIGHT_DECAY = 40, 64, 0.1, 5e-4
DATA_SEED = {"shapes": 1, "textures": 2}


class Nodes:
    """A list of nodes in topological order, each the JSON that secateur reads. A node is named when it is added."""

    def __init__(self):
        self.nodes = [{"name": "input", "op": "Input", "inputs": []}]
        self.channels = [3]

    def add(self, name, op, inputs, channels):
        self.nodes.append({"name": name, "op": op, "inputs": inputs})
        self.channels.append(channels)
        return len(self.nodes) - 1

    def conv(self, tag, x, out, kernel=3, stride=1, dilation=1, groups=1, act="Relu"):
        """Convolution that keeps the size (but for its stride), BatchNorm, and an activation unless `act` is None."""
        options = {
            "in_channels": self.channels[x],
            "out_channels": out,
            "kernel": [kernel] * 2,
            "stride": [stride] * 2,
            "padding": [dilation * (kernel // 2)] * 2,
            "dilation": [dilation] * 2,
            "groups": groups,
            "bias": False,
        }
        x = self.add(f"conv{tag}", {"Conv2d": options}, [x], out)
        x = self.add(f"bn{tag}", {"BatchNorm": {"channels": out, "eps": 1e-5}}, [x], out)
        return x if act is None else self.pointwise(f"act{tag}", x, act)

    def depthwise(self, tag, x, stride=1, act="Relu"):
        return self.conv(tag, x, self.channels[x], stride=stride, groups=self.channels[x], act=act)

    def pointwise(self, name, x, function="Relu"):
        return self.add(name, {"Pointwise": function}, [x], self.channels[x])

    def sum(self, name, *xs):
        return self.add(name, "Add", list(xs), self.channels[xs[0]])

    def concat(self, name, *xs):
        return self.add(name, "Concat", list(xs), sum(self.channels[x] for x in xs))

    def max_pool(self, name, x, size=2):
        window = {"kernel": [size] * 2, "stride": [size] * 2, "padding": [0, 0]}
        return self.add(name, {"MaxPool": window}, [x], self.channels[x])

    def subsample_and_widen(self, tag, x, out):
        """Shortcut without parameters: every second pixel, new channels zero, half in front and half behind."""
        c = self.channels[x]
        x = self.add(f"slice{tag}", {"Slice": {"channels": [0, c], "step": [2, 2]}}, [x], c)
        front = (out - c) // 2
        pad = {"channels": [front, out - c - front], "rows": [0, 0], "cols": [0, 0]}
        return self.add(f"pad{tag}", {"Pad": pad}, [x], out)

    def classifier(self, x):
        c = self.channels[x]
        x = self.add("pool", "GlobalAvgPool", [x], c)
        self.add("fc", {"Linear": {"in_features": c, "out_features": N_CLASSES, "bias": True}}, [x], N_CLASSES)


def shapes_nodes():
    """Residual: an identity shortcut, a parameter-free one and a convolved one; 8 convolutions."""
    n = Nodes()
    x = n.max_pool("pool1", n.conv("1", 0, 16))
    y = n.conv("2b", n.conv("2a", x, 16), 16, act=None)
    x = n.pointwise("act2", n.sum("add2", y, x))
    y = n.conv("3b", n.conv("3a", x, 32, stride=2), 32, act=None)
    x = n.pointwise("act3", n.sum("add3", y, n.subsample_and_widen("3", x, 32)))
    y = n.conv("4b", n.conv("4a", x, 48), 48, act=None)
    x = n.pointwise("act4", n.sum("add4", y, n.conv("4s", x, 48, kernel=1, act=None)))
    n.classifier(x)
    return n.nodes


def textures_nodes():
    """No shortcut: depthwise-separable stages, two concatenated branches of different reach; 10 convolutions."""
    n = Nodes()
    x = n.conv("1", 0, 16, act="Relu6")
    x = n.conv("2p", n.depthwise("2d", x, stride=2, act="Relu6"), 24, kernel=1, act="Relu6")
    near = n.conv("3n", x, 16, act="Relu6")
    far = n.conv("3f", x, 16, dilation=2, act="Relu6")
    x = n.max_pool("pool3", n.concat("concat3", near, far))
    x = n.conv("4p", n.depthwise("4d", x, act="Relu6"), 40, kernel=1, act="Relu6")
    x = n.conv("5", x, 40, act="Relu6")
    x = n.conv("6p", n.depthwise("6d", x, act="Relu6"), 64, kernel=1, act="Relu6")
    n.classifier(x)
    return n.nodes


NETWORKS = {"shapes": shapes_nodes, "textures": textures_nodes}


class Network(nn.Module):
    """Runs a list of nodes."""

    def __init__(self, nodes):
        super().__init__()
        self.nodes = nodes
        for node in nodes:
            module = make_module(*kind_and_options(node["op"]))
            if module is not None:
                self.add_module(node["name"], module)

    def forward(self, images):
        values = [images]
        for node in self.nodes[1:]:
            ins = [values[i] for i in node["inputs"]]
            module = getattr(self, node["name"], None)
            values.append(module(ins[0]) if module is not None else run_plain(*kind_and_options(node["op"]), ins))
        return values[-1]


def kind_and_options(op):
    return (op, None) if isinstance(op, str) else next(iter(op.items()))


def make_module(kind, o):
    if kind == "Conv2d":
        keys = ["kernel", "stride", "padding", "dilation"]
        return nn.Conv2d(o["in_channels"], o["out_channels"], *[o[k] for k in keys], groups=o["groups"], bias=o["bias"])
    if kind == "BatchNorm":
        return nn.BatchNorm2d(o["channels"], eps=o["eps"])
    if kind == "Linear":
        return nn.Linear(o["in_features"], o["out_features"], bias=o["bias"])
    return None


def run_plain(kind, o, ins):
    x = ins[0]
    match kind:
        case "Pointwise":
            return {"Relu": F.relu, "Relu6": F.relu6}[o](x)
        case "Add":
            return sum(ins)
        case "Concat":
            return torch.cat(ins, 1)
        case "MaxPool":
            return F.max_pool2d(x, o["kernel"], o["stride"], o["padding"])
        case "GlobalAvgPool":
            return x.mean((2, 3))
        case "Slice":
            (start, end), (rows, cols) = o["channels"], o["step"]
            return x[:, start:end, ::rows, ::cols]
        case "Pad":
            return F.pad(x, [*o["cols"], *o["rows"], *o["channels"]])
    raise ValueError(f"no rule for operation {kind}")


def read_records(path):
    records = torch.from_numpy(np.fromfile(path, np.uint8).reshape(-1, 3073).copy())
    return records[:, 1:].reshape(-1, 3, 32, 32).float() / 255, records[:, 0].long()


def load_data(name):
    with tempfile.TemporaryDirectory() as folder:
        example = ["cargo", "run", "--release", "-p", "secateur-formats", "--example", "procedural_bin", "--"]
        arguments = [name, str(DATA_SEED[name]), str(N_TRAIN), str(N_TEST), folder]
        subprocess.run(example + arguments, check=True, cwd=HERE.parent.parent)
        return [read_records(pathlib.Path(folder) / file) for file in ("train.bin", "test.bin")]


def augment(images):
    """Each image shifted by up to 3 pixels and, half of them, turned by 180 degrees: no class of either set changes."""
    shifts = torch.randint(0, 7, (len(images), 2)).tolist()
    images = F.pad(images, [3] * 4, mode="reflect")
    images = torch.stack([image[:, y : y + 32, x : x + 32] for image, (y, x) in zip(images, shifts)])
    turn = torch.rand(len(images)) < 0.5
    return torch.where(turn[:, None, None, None], images.flip(2, 3), images)


def train(net, images, labels):
    optimiser = torch.optim.SGD(net.parameters(), LEARNING_RATE, momentum=0.9, weight_decay=WEIGHT_DECAY, nesterov=True)
    steps = EPOCHS * (len(images) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, LEARNING_RATE, total_steps=steps, pct_start=0.2)
    for epoch in range(EPOCHS):
        net.train()
        total = 0.0
        for batch in torch.randperm(len(images)).split(BATCH):
            if len(batch) < BATCH:
                continue
            loss = F.cross_entropy(net(augment(images[batch])), labels[batch])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            total += loss.item()
        print(f"epoch {epoch + 1:2} loss {total / (len(images) // BATCH):.4f}", flush=True)


@torch.no_grad()
def accuracy(net, images, labels):
    net.eval()
    hits = sum((net(x).argmax(1) == y).sum().item() for x, y in zip(images.split(500), labels.split(500)))
    return hits / len(labels)


def save(net, nodes, mean, std, path):
    tensors = {k: v.contiguous() for k, v in net.state_dict().items() if not k.endswith("num_batches_tracked")}
    graph = {"input": {"c": 3, "h": 32, "w": 32}, "nodes": nodes}
    metadata = {
        "secateur.format": "1",
        "secateur.graph": json.dumps(graph, separators=(",", ":")),
        "secateur.mean": json.dumps(mean),
        "secateur.std": json.dumps(std),
        "secateur.classes": str(N_CLASSES),
    }
    save_file(tensors, path, metadata)


def main(name):
    torch.manual_seed(1)
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    (train_images, train_labels), (test_images, test_labels) = load_data(name)
    mean, std = ([round(v, 3) for v in f(train_images, (0, 2, 3)).tolist()] for f in (torch.mean, torch.std))
    for images in (train_images, test_images):
        images.sub_(torch.tensor(mean).view(3, 1, 1)).div_(torch.tensor(std).view(3, 1, 1))
    nodes = NETWORKS[name]()
    net = Network(nodes)
    train(net, train_images, train_labels)
    print(f"train accuracy {accuracy(net, train_images, train_labels):.4f}")
    print(f"test accuracy {accuracy(net, test_images, test_labels):.4f}")
    save(net, nodes, mean, std, HERE / f"{name}.safetensors")


if __name__ == "__main__":
    main(sys.argv[1])
