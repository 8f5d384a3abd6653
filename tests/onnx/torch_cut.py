"""Cuts PyTorch modules by the plan of a pruned network, and compares them with the model that was written beside it.

    python3 tests/onnx/torch_cut.py [--quick] [--only NAME] [--tools DIR]

For the exports of export.py (both exporters) and for the networks of architectures.py as bare state dicts (.pth and .safetensors), the
example torch_cut removes half of every group's channels, changes all weights and writes what a run writes. The same module, built again,
is cut by the cut.py written there: its logits equal those of model.onnx in ONNX Runtime to 1e-5; it trains for a step, changes by it, and
computes the same as its own new export (of the networks of --quick, with both exporters). Three modules whose code has numbers of channels
in it are refused, and cut once their code counts, as the refusal says. ResNet-20 of $SECATEUR_MODELS is cut from every
format, as a class with the state dict's names and as one with other names, for which weights and order must tell. Prints a line per
network; exit code 1 if anything failed. Needs cargo and, the first time, PyPI (environment.py).
"""

import argparse
import contextlib
import importlib.util
import inspect
import os
import pathlib
import subprocess
import sys
import tempfile
import textwrap
import warnings
import zlib

sys.dont_write_bytecode = True
import environment
import export

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
TOLERANCE = 1e-5
TIMEOUT_S = 600
# Cut, trained and exported again, from both exporters.
QUICK = ["resnet18", "mobilenet_v3_small", "densenet121", "efficientnet_b0"]
# State dicts of a few kinds.
QUICK_STATE_DICTS = ["resnet18", "mobilenet_v2 half", "densenet121", "cifar vgg11_bn", "cifar resnet18 shortcut", "cifar densenet"]
# Modules whose code has numbers of channels written in it, which no plan can change: what cut.py must say of them, the class of timm.layers
# or timm.models.cspnet, and the change to its code that it asks for.
WRITTEN_IN_CODE = {
    "mixnet_s": ("split_with_sizes expects split_sizes to sum exactly", "MixedConv2d", "self.splits", "[layer.in_channels for layer in self.values()]"),
    "cs3darknet_s": ("not enough values to unpack", "CrossStage3", "self.expand_chs // 2", "x.shape[1] // 2"),
    "skresnet18": ("expected input", "SelectiveKernel", "self.in_channels // self.num_paths", "x.shape[1] // self.num_paths"),
}


def find_tool(folder):
    if folder is None:
        subprocess.run(["cargo", "build", "--release", "--locked", "-p", "secateur", "--example", "torch_cut"], cwd=ROOT, check=True)
        folder = ROOT / "target" / "release" / "examples"
    return folder / "torch_cut"


def prune(tool, network, folder, *options):
    """What a run would write of the network, with half of its channels."""
    done = subprocess.run([tool, network, folder, *options], capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    if done.returncode != 0:
        raise ValueError(" ".join(done.stderr.split())[:400] or f"exit code {done.returncode}")
    return folder


def load_cut(folder):
    """The cut.py that was written."""
    spec = importlib.util.spec_from_file_location("cut", folder / "cut.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def logits(module, images):
    import torch

    with torch.no_grad():
        output = module.eval()(images)
    return output.flatten(1).numpy()


def logits_of_model(path, images):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options)
    one = session.get_inputs()[0].shape[0] == 1
    batches = [images[i : i + 1] for i in range(len(images))] if one else [images]
    import numpy as np

    return np.concatenate([session.run(None, {session.get_inputs()[0].name: batch.numpy()})[0] for batch in batches]).reshape(len(images), -1)


def error(found, expected):
    return float(abs(found - expected).max() / abs(expected).max())


def check_training(module, images):
    """One step of training, in training mode, which changes all weights (a bias in front of a BatchNorm does nothing there)."""
    import torch

    module.train()
    optimiser = torch.optim.SGD(module.parameters(), lr=1e-3)
    before = {key: value.detach().clone() for key, value in module.named_parameters() if value.dim() > 1}
    # Every image has a class of its own: a loss that no network has made small before.
    labels = torch.arange(len(images))
    loss = torch.nn.functional.cross_entropy(module(images).flatten(1), labels)
    loss.backward()
    optimiser.step()
    if not torch.isfinite(loss):
        raise ValueError(f"training gives a loss of {loss}")
    after = dict(module.named_parameters())
    still = [key for key, value in before.items() if torch.equal(value, after[key])]
    if still:
        raise ValueError(f"training leaves {len(still)} of {len(before)} weights as they were: {still[0]}")
    module.eval()


def check_exports(module, images, folder):
    """Both exporters take the module, and give what it computes."""
    for form in ("ts", "dy"):
        path = folder / f"again.{form}.onnx"
        export.export(module, images, path, form)
        found = error(logits_of_model(path, images), logits(module, images))
        if found > TOLERANCE:
            raise ValueError(f"exported again ({form}) it differs by {found:.1e}")


def compare(folder, module, images, again):
    """Cuts the module by what lies in the folder. The largest difference of a logit from the written model's, over the largest logit."""
    n_before = sum(p.numel() for p in module.parameters())
    load_cut(folder).cut(module, folder)
    n_after = sum(p.numel() for p in module.parameters())
    if n_after >= n_before:
        raise ValueError(f"{n_after} parameters of {n_before} are left")
    found = error(logits(module, images), logits_of_model(folder / "model.onnx", images))
    if found <= TOLERANCE and again:
        check_training(module, images)
        check_exports(module, images, folder)
    return found


def built(name):
    """The module that export.py exported, and images that it was not made with."""
    import torch

    torch.manual_seed(zlib.crc32(name.encode()))
    _, height, width = export.ARCHITECTURES[name]
    module = export.make_module(name, False)
    export.fill_at_random(module, torch.randn(8, 3, height, width))
    return module, torch.randn(8, 3, height, width, generator=torch.Generator().manual_seed(5))


def of_export(tool, folder, path):
    name = path.name.split(".")[0]
    prune(tool, path, folder)
    module, images = built(name)
    if name not in WRITTEN_IN_CODE:
        return compare(folder, module, images, name in QUICK)
    words, of, number, counted = WRITTEN_IN_CODE[name]
    try:
        compare(folder, module, images, False)
    except ValueError as refusal:
        if not all(part in str(refusal) for part in (words, "written in its code", "', line")):
            raise
    else:
        raise ValueError(f"cut, though '{words}' was expected: take it out of WRITTEN_IN_CODE")
    with counting(of, number, counted):
        return compare(folder, module, images, True)


@contextlib.contextmanager
def counting(name, number, counted):
    """A class of timm with code that counts channels where it has a number of its own, as cut.py asks for."""
    import timm

    of = getattr(timm.layers, name, None) or getattr(timm.models.cspnet, name)
    before, source = of.forward, textwrap.dedent(inspect.getsource(of.forward))
    if number not in source:
        raise ValueError(f"`{number}` is not in the code of {name} any more")
    scope = {}
    exec(compile(source.replace(number, counted), f"<{name}>", "exec"), {**before.__globals__}, scope)
    of.forward = scope["forward"]
    try:
        yield
    finally:
        of.forward = before


def of_state_dict(tool, folder, name, networks):
    import safetensors.torch
    import torch
    from state_dicts import randomise

    build, shape = networks[name]
    seed = list(networks).index(name)
    module = randomise(build(), seed)
    state = module.state_dict()
    path = folder / ("network.pth" if seed % 2 else "network.safetensors")
    if seed % 2:
        # As training loops save it: in a checkpoint, of a wrapped module.
        torch.save({"state_dict": {f"module.{key}": value for key, value in state.items()}}, path)
    else:
        safetensors.torch.save_file({key: value.contiguous() for key, value in state.items()}, path)
    prune(tool, path, folder)
    images = torch.randn(3, *shape, generator=torch.Generator().manual_seed(seed))
    return compare(folder, module, images, name in QUICK_STATE_DICTS and shape[1] <= 32)


def resnet20(renamed):
    """The class that the state dict of resnet20 is of, or one with the same layers under other names."""
    import torch
    from torch import nn
    from torch.nn import functional as F

    names = ("stem", "norm", "stage{}", "head", "a", "an", "b", "bn") if renamed else ("conv1", "bn1", "layer{}", "linear", "conv1", "bn1", "conv2", "bn2")

    class Block(nn.Module):
        def __init__(self, c_in, c, stride):
            super().__init__()
            self.stride, self.pad = stride, c - c_in
            for i, (n_in, s) in enumerate([(c_in, stride), (c, 1)]):
                setattr(self, names[4 + 2 * i], nn.Conv2d(n_in, c, 3, s, 1, bias=False))
                setattr(self, names[5 + 2 * i], nn.BatchNorm2d(c))

        def forward(self, x):
            first, norm, second, norm2 = (getattr(self, name) for name in names[4:])
            y = norm2(second(F.relu(norm(first(x)))))
            behind = self.pad // 2
            return F.relu(y + F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, behind, self.pad - behind)))

    class ResNet20(nn.Module):
        def __init__(self):
            super().__init__()
            layers = [nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)]
            c_in = 16
            for stage, c in enumerate((16, 32, 64)):
                layers.append(nn.Sequential(*[Block(c_in if i == 0 else c, c, 2 if stage and i == 0 else 1) for i in range(3)]))
                c_in = c
            layers.append(nn.Linear(64, 10))
            for i, layer in enumerate(layers):
                setattr(self, [*names[:2], *[names[2].format(s) for s in (1, 2, 3)], names[3]][i], layer)

        def forward(self, x):
            x = F.relu(getattr(self, names[1])(getattr(self, names[0])(x)))
            for stage in (1, 2, 3):
                x = getattr(self, names[2].format(stage))(x)
            return getattr(self, names[3])(x.mean((2, 3)))

    return ResNet20()


def of_resnet20(tool, folder, path, renamed):
    """The published network; a renamed class without its weights is known by the order of its layers alone."""
    import safetensors.torch
    import torch

    module = resnet20(renamed).eval()
    if not renamed:
        state = safetensors.torch.load_file(path.with_suffix(".safetensors"))
        module.load_state_dict(state, strict=False)
    images = torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    # Protocol Full would cut into the padded shortcut, which the class has written in its code: the tool takes Inner.
    return compare(prune(tool, path, folder, "--protocol", "inner"), module, images, True)


def trained():
    """The files of the published ResNet-20, or none."""
    models = os.environ.get("SECATEUR_MODELS")
    paths = [pathlib.Path(models) / f"resnet20.{end}" for end in ("safetensors", "pth", "onnx")] if models else []
    if not paths or not all(path.is_file() for path in paths):
        if os.environ.get("SECATEUR_REQUIRE_DATA") == "1":
            sys.exit("torch_cut.py: no resnet20: set SECATEUR_MODELS to the folder of the networks")
        print("SKIPPED: resnet20: set SECATEUR_MODELS to the folder of the networks", flush=True)
        return []
    return paths


def jobs(arguments, tool):
    """What is cut: a name, and a function of a folder."""
    import architectures

    files = export.file_names()
    if arguments.quick:
        files = [file for file in files if file.split(".")[0] in QUICK and file.count(".") == 2]
    files = [file for file in files if arguments.only in (None, file, file.split(".")[0])]
    if files:
        names = ",".join(dict.fromkeys(file.split(".")[0] for file in files))
        subprocess.run([sys.executable, ROOT / "tests/onnx/export.py", arguments.exports, "--only", names], check=True)
    for file in files:
        yield file, lambda folder, file=file: of_export(tool, folder, arguments.exports / file)
    networks = architectures.networks()
    for name in QUICK_STATE_DICTS if arguments.quick else networks:
        if arguments.only in (None, name):
            yield f"state dict of {name}", lambda folder, name=name: of_state_dict(tool, folder, name, networks)
    for path in trained() if arguments.only in (None, "resnet20") else []:
        for renamed in (False, True):
            name = f"{path.name}{', other names' if renamed else ''}"
            yield name, lambda folder, path=path, renamed=renamed: of_resnet20(tool, folder, path, renamed)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="four networks from both exporters, a few state dicts")
    parser.add_argument("--only", metavar="NAME", help="one network")
    parser.add_argument("--tools", type=pathlib.Path, metavar="DIR", help="folder of the built examples; without it cargo builds them")
    parser.add_argument("--exports", type=pathlib.Path, metavar="DIR", default=environment.cache_dir() / "onnx-exports", help="where exports are kept")
    parser.add_argument("--venv", help="folder of the virtual environment (see environment.py)")
    arguments = parser.parse_args()
    environment.run_inside(arguments.venv)
    import torch

    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    tool, n, failed = find_tool(arguments.tools), 0, 0
    for name, job in jobs(arguments, tool):
        with tempfile.TemporaryDirectory(prefix="secateur-torch-cut-") as folder:
            try:
                found = job(pathlib.Path(folder))
                problem = "" if found <= TOLERANCE else f"differs by {found:.1e}, expected at most {TOLERANCE:.0e}"
            except Exception as refused:
                found, problem = float("nan"), f"{type(refused).__name__}: {' '.join(str(refused).split())[:400]}"
        n, failed = n + 1, failed + bool(problem)
        print(f"{name:40} {found:8.1e}  {'FAILED: ' + problem if problem else 'ok'}", flush=True)
    if n == 0:
        sys.exit(f"torch_cut.py: --only {arguments.only} names no network")
    print(f"{n} networks: {n - failed} right, {failed} failed")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
