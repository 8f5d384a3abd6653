"""Compares what our engine makes of bare state dicts with PyTorch.

    python3 tests/onnx/state_dicts.py [--quick] [--only NAME] [--tools DIR]

For networks of torchvision, and for variants that are trained on small images, with random weights and random BatchNorm statistics: the
state dict, written by torch.save or as safetensors without metadata, is recognised by its names, and the logits of two images equal
PyTorch's to 1e-5. Prints a line per network; exit code 1 if anything failed. Needs cargo and, the first time, PyPI (environment.py).
"""

import argparse
import pathlib
import subprocess
import sys
import tempfile

sys.dont_write_bytecode = True
import environment

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
TOLERANCE = 1e-5
N_IMAGES = 2
# Of every family one, the smallest, and those whose stem or head differ.
QUICK = ["resnet18", "resnet50", "mobilenet_v2 half", "densenet121", "squeezenet1_1", "alexnet", "cifar vgg11_bn", "cifar resnet18 shortcut"]


def find_tool(folder):
    if folder is None:
        subprocess.run(["cargo", "build", "--release", "--locked", "-p", "secateur", "--example", "onnx_logits"], cwd=ROOT, check=True)
        folder = ROOT / "target" / "release" / "examples"
    return folder / "onnx_logits"


def randomise(model, seed):
    """Random parameters and statistics that keep activations near unit size, so that a mistake anywhere shows."""
    import torch

    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.5, generator=random)
                module.bias.uniform_(-0.2, 0.2, generator=random)
                module.running_mean.uniform_(-0.3, 0.3, generator=random)
                module.running_var.uniform_(0.5, 1.5, generator=random)
            elif isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
                fan_in = module.weight[0].numel()
                module.weight.normal_(0, (1.5 / fan_in) ** 0.5, generator=random)
                if module.bias is not None:
                    module.bias.uniform_(-0.2, 0.2, generator=random)
    return model.eval()


def compare(tool, folder, name, make, seed):
    """The largest difference of a logit, over the largest logit."""
    import safetensors.torch
    import torch

    build, shape = make
    model = randomise(build(), seed)
    images = torch.randn(N_IMAGES, *shape, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        expected = model(images).flatten(1)
    state = model.state_dict()
    if seed % 2:
        path = folder / "network.pth"
        torch.save(state, path)
    else:
        path = folder / "network.safetensors"
        safetensors.torch.save_file({key: value.contiguous() for key, value in state.items()}, path)
    (folder / "images").write_bytes(images.numpy().tobytes())
    done = subprocess.run([tool, path, folder / "images", folder / "logits"], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ValueError(" ".join(done.stderr.split())[:400] or f"exit code {done.returncode}")
    logits = torch.frombuffer(bytearray((folder / "logits").read_bytes()), dtype=torch.float32)
    if logits.numel() != expected.numel():
        raise ValueError(f"{logits.numel()} logits, PyTorch gives {expected.numel()}")
    return ((logits.view_as(expected) - expected).abs().max() / expected.abs().max()).item()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a few networks of every kind")
    parser.add_argument("--only", metavar="NAME", help="one network")
    parser.add_argument("--tools", type=pathlib.Path, metavar="DIR", help="folder of the built examples; without it cargo builds them")
    parser.add_argument("--venv", help="folder of the virtual environment (see environment.py)")
    arguments = parser.parse_args()
    environment.run_inside(arguments.venv)
    import architectures

    networks = architectures.networks()
    names = [arguments.only] if arguments.only else QUICK if arguments.quick else list(networks)
    if unknown := [name for name in names if name not in networks]:
        sys.exit(f"state_dicts.py: unknown network {unknown[0]}: known are {', '.join(networks)}")
    tool = find_tool(arguments.tools)
    failed = 0
    for name in names:
        with tempfile.TemporaryDirectory(prefix="secateur-state-dicts-") as folder:
            try:
                error = compare(tool, pathlib.Path(folder), name, networks[name], list(networks).index(name))
                problem = "" if error <= TOLERANCE else f"differs by {error:.1e}, expected at most {TOLERANCE:.0e}"
            except ValueError as refused:
                error, problem = float("nan"), str(refused)
        failed += bool(problem)
        print(f"{name:28} {error:8.1e}  {'FAILED: ' + problem if problem else 'ok'}", flush=True)
    print(f"{len(names)} state dicts: {len(names) - failed} right, {failed} failed")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
