"""Exports torchvision and timm architectures to ONNX with both of PyTorch's exporters, for compare.py.

    python3 tests/onnx/export.py DIR [--only NAME[,NAME]] [--full]

writes DIR/NAME.ts.onnx (TorchScript exporter, `dynamo=False`, one file) and DIR/NAME.dy.onnx with DIR/NAME.dy.onnx.data (`dynamo=True`,
the default of torch 2.15). NAME.bn.ts.onnx keeps its BatchNorm nodes, NAME.raw.dy.onnx is not optimised. Files that are there and whole
are kept: DIR/exports.json has the size and the recipe of each. The batch is dynamic, the opset each exporter's default.

Weights, affine parameters and running statistics are random, seeded by the name; nothing is downloaded. The statistics are measured on
random images and then disturbed, so that no layer's activations vanish or explode however deep the network is. Pictures are small,
since that changes no structure; --full takes the published sizes instead (and the published heads of VGG and AlexNet).
"""

import argparse
import json
import pathlib
import shutil
import sys
import time
import warnings
import zlib

sys.dont_write_bytecode = True
import environment

# Raise it when a change below changes the files: the kept ones are then made anew.
RECIPE = 1

# name: (library, height, width). The sizes are small but leave at least 2x2 pixels to the last convolution; some are not square.
ARCHITECTURES = {
    "resnet18": ("torchvision", 64, 64),
    "resnet50": ("torchvision", 64, 64),
    "vgg16_bn": ("torchvision", 64, 64),
    "alexnet": ("torchvision", 96, 96),
    "squeezenet1_1": ("torchvision", 64, 80),
    "googlenet": ("torchvision", 64, 64),
    "inception_v3": ("torchvision", 107, 107),
    "mobilenet_v2": ("torchvision", 64, 96),
    "mnasnet0_5": ("torchvision", 64, 64),
    "mobilenet_v3_small": ("torchvision", 64, 64),
    "efficientnet_b0": ("torchvision", 64, 64),
    "regnet_y_400mf": ("torchvision", 64, 64),
    "densenet121": ("torchvision", 64, 64),
    "shufflenet_v2_x0_5": ("torchvision", 64, 64),
    "convnext_tiny": ("torchvision", 64, 64),
    "regnetx_002": ("timm", 64, 64),
    "ghostnet_050": ("timm", 64, 64),
    "mixnet_s": ("timm", 64, 64),
    "dla46x_c": ("timm", 64, 64),
    "cs3darknet_s": ("timm", 64, 96),
    "hrnet_w18_small": ("timm", 64, 64),
    "repvgg_a0": ("timm", 64, 64),
    "ese_vovnet19b_dw": ("timm", 64, 64),
    "lcnet_050": ("timm", 64, 64),
    "skresnet18": ("timm", 64, 64),
    "resnest14d": ("timm", 64, 64),
    "ecaresnet26t": ("timm", 64, 64),
    "tf_efficientnet_lite0": ("timm", 64, 64),
}

# Settings of the exporters besides their defaults: the file's suffix, whose exporter, and for which architectures.
EVERY = tuple(ARCHITECTURES)
FORMS = {
    "ts": EVERY,
    "dy": EVERY,
    "bn.ts": ("resnet18", "mobilenet_v3_small", "densenet121"),
    "raw.dy": ("resnet18", "mobilenet_v2"),
}


def file_names():
    return [f"{name}.{form}.onnx" for form, names in FORMS.items() for name in names]


def make_module(name, full):
    """The architecture with the library's own initial values, in evaluation mode."""
    import timm
    import torchvision

    if ARCHITECTURES[name][0] == "timm":
        return timm.create_model(name, pretrained=False).eval()
    options = {"googlenet": {"aux_logits": False, "init_weights": True}, "inception_v3": {"aux_logits": False, "init_weights": True}}
    module = torchvision.models.get_model(name, weights=None, **options.get(name, {}))
    if not full and name in ("vgg16_bn", "alexnet"):
        narrow_head(module, {"vgg16_bn": 512, "alexnet": 256}[name])
    return module.eval()


def narrow_head(module, features):
    """2x2 positions and 512 units in place of 7x7 (6x6) and 4096: the same layers in 40 times fewer bytes. The TorchScript exporter
    cannot enlarge a map with adaptive pooling, as the published head would have to for a small picture."""
    from torch import nn

    module.avgpool = nn.AdaptiveAvgPool2d((2, 2))
    widths = iter([(features * 4, 512), (512, 512), (512, 1000)])
    for i, layer in enumerate(module.classifier):
        if isinstance(layer, nn.Linear):
            module.classifier[i] = nn.Linear(*next(widths))


def fill_at_random(module, images):
    """Random weights, biases, affine parameters and running statistics; the statistics fit `images`, give or take a fifth."""
    import torch
    from torch import nn

    norms = [m for m in module.modules() if isinstance(m, nn.BatchNorm2d)]
    with torch.no_grad():
        for layer in module.modules():
            if isinstance(layer, (nn.Conv1d, nn.Conv2d, nn.Linear)):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                if layer.bias is not None:
                    layer.bias.normal_(0, 0.1)
            elif isinstance(layer, (nn.BatchNorm2d, nn.LayerNorm)):
                layer.weight.uniform_(0.5, 1.5)
                layer.bias.normal_(0, 0.2)
        for key, value in module.named_parameters():
            if key.endswith("layer_scale"):
                value.uniform_(0.1, 1)
        for norm in norms:
            norm.train()
            norm.momentum = 1
        module(images)
        for norm in norms:
            norm.eval()
            norm.running_mean += 0.2 * norm.running_var.sqrt() * torch.randn_like(norm.running_mean)
            norm.running_var *= torch.empty_like(norm.running_var).uniform_(0.8, 1.25)


def check_scale(name, module, images):
    """Stops where the logits say that the comparison would prove nothing: not finite, tiny, huge, or the same for every image."""
    import torch

    with torch.no_grad():
        logits = module(images)
    size = float(logits.abs().max())
    differ = float((logits - logits.mean(0)).abs().max())
    if not (1e-2 < size < 1e4 and differ > 1e-2 * size):
        raise ValueError(f"{name}: logits reach {size:.3g} and differ by {differ:.3g} between images: change fill_at_random")
    return {"logits_max": round(size, 3), "logits_differ": round(differ, 3)}


def export(module, images, path, form):
    """Writes `path` (and its external data) in the given form."""
    import torch

    names = {"input_names": ["input"], "output_names": ["output"]}
    if form.endswith("ts"):
        kept = torch.onnx.TrainingMode.PRESERVE if form == "bn.ts" else torch.onnx.TrainingMode.EVAL
        axes = {"input": {0: "batch"}, "output": {0: "batch"}}
        torch.onnx.export(module, images[:2], path, dynamo=False, training=kept, dynamic_axes=axes, **names)
    else:
        shapes = ({0: torch.export.Dim("batch")},)
        optimize = form != "raw.dy"
        options = {"dynamo": True, "external_data": True, "optimize": optimize, "verbose": False}
        torch.onnx.export(module, (images[:2],), path, dynamic_shapes=shapes, **options, **names)


class Kept:
    """What DIR holds already: for each file its recipe, its size and that of its external data."""

    def __init__(self, folder, full):
        self.folder, self.full = folder, full
        self.path = folder / "exports.json"
        self.entries = json.loads(self.path.read_text()) if self.path.is_file() else {}

    def recipe(self, name):
        return [RECIPE, environment.fingerprint(), *ARCHITECTURES[name], "full" if self.full else "small"]

    def sizes(self, file):
        return [p.stat().st_size if p.is_file() else None for p in (self.folder / file, self.folder / f"{file}.data")]

    def has(self, name, file):
        entry = self.entries.get(file)
        return entry is not None and entry["recipe"] == self.recipe(name) and entry["bytes"] == self.sizes(file)

    def add(self, name, file, facts):
        self.entries[file] = {"recipe": self.recipe(name), "bytes": self.sizes(file), **facts}
        partial = self.path.with_suffix(".partial")
        partial.write_text(json.dumps(dict(sorted(self.entries.items())), indent=1) + "\n")
        partial.replace(self.path)


def export_one(name, form, kept):
    """Makes one file in a folder of its own, so that what lies in DIR is whole, and moves it to its place."""
    import torch

    torch.manual_seed(zlib.crc32(name.encode()))
    _, height, width = ARCHITECTURES[name]
    if kept.full:
        height = width = 299 if name == "inception_v3" else 224
    images = torch.randn(8, 3, height, width)
    module = make_module(name, kept.full)
    fill_at_random(module, images)
    facts = check_scale(name, module, images)
    file = f"{name}.{form}.onnx"
    partial = kept.folder / "partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    export(module, images, partial / file, form)
    (kept.folder / f"{file}.data").unlink(missing_ok=True)
    for made in sorted(partial.iterdir(), reverse=True):
        made.replace(kept.folder / made.name)
    partial.rmdir()
    kept.add(name, file, facts)


def export_all(folder, only, full):
    """Exports what is missing. Returns the failures as (file, sentence)."""
    folder.mkdir(parents=True, exist_ok=True)
    kept, failures = Kept(folder, full), []
    for form, names in FORMS.items():
        for name in names:
            file = f"{name}.{form}.onnx"
            if (only and name not in only) or kept.has(name, file):
                continue
            start = time.monotonic()
            try:
                export_one(name, form, kept)
                print(f"{file}: exported in {time.monotonic() - start:.0f} s", flush=True)
            except Exception as error:
                failures.append((file, f"{type(error).__name__}: {str(error).strip().splitlines()[0][:300]}"))
                print(f"{file}: FAILED: {failures[-1][1]}", flush=True)
    return failures


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", metavar="DIR", type=pathlib.Path)
    parser.add_argument("--only", help="names of architectures, with commas between")
    parser.add_argument("--full", action="store_true", help="published picture sizes and heads")
    parser.add_argument("--venv", help="folder of the virtual environment (see environment.py)")
    arguments = parser.parse_args()
    only = arguments.only.split(",") if arguments.only else []
    if unknown := [name for name in only if name not in ARCHITECTURES]:
        sys.exit(f"export.py: no architecture {unknown[0]}: known are {', '.join(ARCHITECTURES)}")
    environment.run_inside(arguments.venv)
    import torch

    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    failures = export_all(arguments.folder, only, arguments.full)
    if failures:
        sys.exit(f"export.py: {len(failures)} files could not be exported: {', '.join(file for file, _ in failures)}")


if __name__ == "__main__":
    main()
