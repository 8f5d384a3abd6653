"""Writes the files beside this script, with PyTorch itself (made with torch 2.15, numpy 2): `python make.py`.

Every file `read_*` holds conv.weight = [[1, 2, 3], [4, 5, 6]] and conv.bias = [7, 8], however it is packed; every file
`refused_*` holds something else. Most are in the layout of torch before 1.6, which is smaller.
"""

import argparse
import collections
import datetime
import pathlib
import random

import numpy as np
import torch
from torch import nn

WEIGHT = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
BIAS = torch.tensor([7.0, 8.0])


def save(name, value, zip_too=False, protocol=2):
    here = pathlib.Path(__file__).parent
    torch.save(value, here / f"{name}.legacy.pth", _use_new_zipfile_serialization=False, pickle_protocol=protocol)
    if zip_too:
        torch.save(value, here / f"{name}.pth", pickle_protocol=protocol)


def state(prefix="", change=lambda tensor: tensor):
    return collections.OrderedDict({prefix + "conv.weight": change(WEIGHT), prefix + "conv.bias": change(BIAS)})


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Linear(3, 2)
        self.load_state_dict(state())

    def forward(self, x):
        return self.conv(x)


def stepped(kind, **arguments):
    """An optimiser that has a state."""
    net = Net()
    optimizer = kind(net.parameters(), lr=0.1, **arguments)
    net(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    return optimizer


# What torch itself writes of a training.
save("read_plain", state(), zip_too=True)
save("read_module_state", Net().state_dict())
sgd, adam = stepped(torch.optim.SGD, momentum=0.9), stepped(torch.optim.AdamW)
save("read_sgd", {"epoch": 3, "state_dict": state(), "optimizer": sgd.state_dict(), "best": 91.2})
save("read_adam", {"model": state(), "optimizer": adam.state_dict(), "best": torch.tensor(0.9)}, zip_too=True)
save("read_optimiser_of_another_name", {"bob": state(), "opt_g": adam.state_dict()})
schedules = [
    torch.optim.lr_scheduler.MultiStepLR(sgd, [2, 2, 3]),
    torch.optim.lr_scheduler.CosineAnnealingLR(sgd, 10),
    torch.optim.lr_scheduler.OneCycleLR(sgd, 0.1, total_steps=10),
    torch.optim.lr_scheduler.ReduceLROnPlateau(sgd),
]
save("read_schedules", {"schedules": [s.state_dict() for s in schedules], "state_dict": state()}, zip_too=True)
save("read_averaged", torch.optim.swa_utils.AveragedModel(Net()).state_dict())
save("read_scaler", {"scaler": torch.amp.GradScaler("cpu").state_dict(), "model": state()})
save("read_compiled", torch.compile(Net()).state_dict())
save("read_parallel", nn.DataParallel(torch.compile(Net())).state_dict())

# What people put beside the weights.
save(
    "read_numpy_beside",
    {
        "net": state(),
        "accuracy": np.float64(91.2),
        "single": np.float32(1),
        "count": np.int64(3),
        "flag": np.bool_(True),
        "array": np.arange(3),
        "names": np.array(["a", "b"]),
        "type": np.dtype("float32"),
    },
    zip_too=True,
)
save(
    "read_values_beside",
    {
        "set": {1, 2},
        "frozen": frozenset([1]),
        "bytes": b"\xff\x00",
        "empty": b"",
        "bytearray": bytearray(b"x"),
        "complex": 1 + 2j,
        "big": [2**200, -(2**70)],
        "namespace": argparse.Namespace(lr=0.1),
        "default": collections.defaultdict(list, {"a": [1]}),
        "counter": collections.Counter("abc"),
        "deque": collections.deque([1], maxlen=2),
        "torch": [torch.Size([1, 2]), torch.device("cpu"), torch.float32, torch.bfloat16],
        "path": pathlib.PurePosixPath("a/b"),
        "date": [datetime.datetime(2024, 1, 2), datetime.timedelta(3)],
        "range": [range(3), slice(1, 2)],
        "surrogate": "\ud800",
        "state_dict": state(),
    },
    zip_too=True,
)
save(
    "read_odd_tensors_beside",
    {
        "model": state(),
        "quantised": torch.quantize_per_tensor(torch.zeros(3), 0.1, 0, torch.qint8),
        "sparse": torch.eye(2).to_sparse(),
        "rows": torch.eye(2).to_sparse_csr(),
        "meta": torch.zeros(3, device="meta"),
        "complex": torch.zeros(2, dtype=torch.complex64),
        "wide": torch.zeros(3, dtype=torch.uint16),
        "rng": torch.tensor([1, 2], dtype=torch.uint8),
    },
)
for protocol in (3, 4, 5):
    beside = {"state_dict": state(), "set": {1}, "frozen": frozenset([2]), "bytes": [b"x", bytearray(b"y")]}
    save(f"read_protocol_{protocol}", beside, protocol=protocol)

# Where people keep them.
for wrapper in ("model_state_dict", "ema", "params", "weights", "of_bob"):
    save(f"read_under_{wrapper}", {"epoch": 1, wrapper: state()})
save("read_under_ema_module", {"ema": {"module": state()}, "updates": 3})
save("read_under_model_state_dict", {"model": {"state_dict": state()}})
save("read_deep", {"a": {"b": {"c": {"d": {"e": state()}}}}})
save("read_in_a_tuple", (state(), 3))
save("read_beside_average", {"ema": state(change=torch.zeros_like), "model": state()})
for prefix in ("module.", "_orig_mod.", "model.", "net.", "backbone.", "model.module._orig_mod.net.model."):
    save(f"read_prefix_{prefix.strip('.').replace('.', '_')}", {"state_dict": state(prefix)})
save("read_prefix_inside", {"conv._orig_mod.module.weight": WEIGHT, "conv.bias": BIAS})

# What their elements are.
save("read_half", state(change=torch.Tensor.half), zip_too=True)
save("read_bfloat16", state(change=torch.Tensor.bfloat16))
save("read_double", state(change=torch.Tensor.double))
save("read_parameters", state(change=nn.Parameter))
save("read_buffers", state(change=nn.Buffer))
noted = nn.Parameter(WEIGHT)
noted.note = "an attribute"
save("read_parameter_with_attribute", {"conv.weight": noted, "conv.bias": BIAS})
save("read_transposed", {"conv.weight": WEIGHT.t().contiguous().t(), "conv.bias": BIAS})
both = torch.cat([WEIGHT.flatten(), BIAS])
save("read_shared_storage", {"conv.weight": both[:6].view(2, 3), "conv.bias": both[6:]}, zip_too=True)
ones = torch.ones_like(WEIGHT)
save("read_pruned_all_ones", {"conv.weight_orig": WEIGHT, "conv.weight_mask": ones, "conv.bias": BIAS}, zip_too=True)

# What is refused.
save("refused_module", Net(), zip_too=True)
save("refused_module_beside", {"epoch": 1, "model": Net()}, zip_too=True)
save("refused_optimiser", sgd)
save("refused_optimiser_state", {"optimizer": adam.state_dict()})
save("refused_function", {"state_dict": state(), "f": random.choice})
quantised = torch.quantize_per_channel(WEIGHT, torch.ones(2), torch.zeros(2), 0, torch.qint8)
save("refused_quantised", {"conv.weight": quantised, "conv.bias": BIAS}, zip_too=True)
dynamic = torch.ao.quantization.quantize_dynamic(Net(), {nn.Linear})
save("refused_quantised_dynamically", dynamic.state_dict())
save("refused_sparse", {"conv.weight": WEIGHT.to_sparse(), "conv.bias": BIAS})
save("refused_meta", {"conv.weight": WEIGHT.to("meta"), "conv.bias": BIAS})
save("refused_complex", state(change=lambda tensor: tensor.to(torch.complex64)))
save("refused_negated", state(change=torch.ops.aten._neg_view))
save("refused_float8", state(change=lambda tensor: tensor.to(torch.float8_e4m3fn)))
for name, wrap in (
    ("weight_norm", nn.utils.parametrizations.weight_norm),
    ("old_weight_norm", nn.utils.weight_norm),
    ("old_spectral_norm", nn.utils.spectral_norm),
):
    net = Net()
    wrap(net.conv)
    save(f"refused_{name}", net.state_dict())
save("refused_one_tensor", WEIGHT)
save("refused_list", [WEIGHT, BIAS])
save("refused_arrays", {"conv.weight": WEIGHT.numpy()})
save("refused_two_networks", {"generator": state(), "discriminator": state(change=torch.neg)})
torch.jit.script(Net()).save(str(pathlib.Path(__file__).parent / "refused_script.pth"))
