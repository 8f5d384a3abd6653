"""Prunes a torchvision ResNet-18 for a folder of images, fine-tunes it in PyTorch with a loop of one's own, and exports it.

    python prune_torchvision.py FOLDER --out runs/flowers [--weights resnet18.pth] [--macs 0.5] [--epochs 1] [--images 400] [--size 224]

FOLDER has a folder for each class, as torchvision.datasets.ImageFolder reads it, or images alone: then there are no labels, walks are paid
for keeping what the dense network says, and fine-tuning distils from it. Without --weights the network is torchvision's, if it can be
downloaded (`--weights none`: random weights, to see that everything works).
"""

import argparse
import pathlib
import time

import numpy
import secateur
import secateur.torch
import torch
import torchvision

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def load_module(weights, n_classes):
    if weights is None:
        return torchvision.models.resnet18(weights="DEFAULT")
    if weights == "none":
        torch.manual_seed(0)
        return torchvision.models.resnet18(num_classes=n_classes or 1000)
    state = torch.load(weights, map_location="cpu", weights_only=True)
    module = torchvision.models.resnet18(num_classes=len(state["fc.bias"]))
    module.load_state_dict(state)
    return module


class Images(torch.utils.data.Dataset):
    """The images of a folder, with the number of their sub-folder if there are any, else 0."""

    def __init__(self, folder, size, n):
        crop = torchvision.transforms.Compose([torchvision.transforms.Resize(size * 256 // 224), torchvision.transforms.CenterCrop(size)])
        self.make = torchvision.transforms.Compose([crop, torchvision.transforms.ToTensor(), torchvision.transforms.Normalize(MEAN, STD)])
        self.classes = sorted(path.name for path in folder.iterdir() if path.is_dir())
        paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png", ".webp", ".bmp"))
        order = numpy.random.default_rng(7).permutation(len(paths))[:n]
        number = lambda path: self.classes.index(path.relative_to(folder).parts[0]) if self.classes else 0
        self.files = [(paths[i], number(paths[i])) for i in order]

    def __len__(self):
        return len(self.files)

    def __getitem__(self, at):
        path, number = self.files[at]
        return self.make(torchvision.datasets.folder.default_loader(path)), number


def fine_tune(module, teacher, loader, epochs):
    """Any loop will do: this one distils from the dense network, so that it needs no labels."""
    module.train()
    # Few images tell little of activations' statistics: BatchNorms keep those that they have.
    for layer in module.modules():
        if isinstance(layer, torch.nn.modules.batchnorm._BatchNorm):
            layer.eval()
    # Parameters are new ones: an optimiser is made after cutting.
    optimizer = torch.optim.SGD(module.parameters(), lr=2e-3, momentum=0.9)
    for epoch in range(epochs):
        begin, total, n = time.monotonic(), 0.0, 0
        for at, (images, _) in enumerate(loader):
            with torch.no_grad():
                expected = teacher(images).log_softmax(1)
            loss = torch.nn.functional.kl_div(module(images).log_softmax(1), expected, log_target=True, reduction="batchmean")
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total, n = total + float(loss.detach()) * len(images), n + len(images)
            print(f"\repoch {epoch + 1} of {epochs}: {at + 1} of {len(loader)} batches", end="", flush=True)
        print(f"\repoch {epoch + 1}: divergence {total / n:.4f} nats, {time.monotonic() - begin:.0f} s" + " " * 20)
    return module.eval()


def agreement(module, teacher, loader):
    """Share of the images with the same most likely class as the dense network says."""
    with torch.no_grad():
        same = [(module(images).argmax(1) == teacher(images).argmax(1)) for images, _ in loader]
    return float(torch.cat(same).float().mean())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--out", type=pathlib.Path, required=True, help="a new folder for the run and the exported network")
    parser.add_argument("--weights", help="a state dict of resnet18, or 'none'")
    parser.add_argument("--macs", type=float, default=0.5, help="share of the multiply-accumulates that may be left")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--images", type=int, default=400, help="images to use")
    parser.add_argument("--size", type=int, default=224, help="rows and columns that the network sees")
    arguments = parser.parse_args()

    images = Images(arguments.folder, arguments.size, arguments.images)
    module = load_module(arguments.weights, len(images.classes)).eval()
    teacher = load_module(arguments.weights, len(images.classes)).eval()
    teacher.load_state_dict(module.state_dict())
    has_labels = bool(images.classes) and len(images.classes) == module.fc.out_features

    # What the network computes, checked against the module; the run reads it from the folder that it is saved in.
    network = secateur.torch.from_module(module, torch.zeros(1, 3, arguments.size, arguments.size), mean=MEAN, std=STD)
    arguments.out.mkdir(parents=True, exist_ok=True)
    network.save(arguments.out / "dense")

    # Images as PyTorch makes them. A scene can read the folder itself, too: Images(dir: "…").
    pixels, labels = secateur.torch.data(torch.utils.data.DataLoader(images, batch_size=32), len(images))
    numpy.save(arguments.out / "images.npy", pixels)
    numpy.save(arguments.out / "labels.npy", labels)
    file = lambda name: secateur.to_ron((arguments.out / name).absolute())
    of_labels = f", labels: {file('labels.npy')}" if has_labels else ""
    arrays = f"Arrays(images: {file('images.npy')}{of_labels}, layout: Nchw, floats: Normalised, test_percent: 20)"
    n_train = len(pixels) * 4 // 5
    scene = {
        "networks": [{"name": "resnet18", "file": (arguments.out / "dense" / "model.onnx").absolute()}],
        "datasets": [{"name": "images", "source": secateur.Ron(arrays), "labels": secateur.Ron("Given" if has_labels else "None")}],
        "budgets": f"[Macs(ratio: {arguments.macs})]",
        "protocol": "Full",
        "agent": "Knapsack()",
        "controls": [],
        "walks_per_task": 1,
        "finalists": 1,
        "refit_in_pairs": False,
        "reward": "Kl",
        "images": {"reward": n_train // 4, "calibration": n_train // 4, "walk": min(128, n_train // 4), "refit": n_train // 2},
    }
    task = secateur.run(scene, out=arguments.out / "run").tasks[0]
    print(f"{task.name}: {task.macs} of {task.summary['original']['macs']} MACs, certificate holds: {task.certificate['budgets'][0]['ok']}")

    pruned = secateur.torch.to_module(task, module)
    split = torch.utils.data.random_split(images, [n_train, len(images) - n_train], torch.Generator().manual_seed(1))
    training, held_out = (torch.utils.data.DataLoader(part, batch_size=32, shuffle=part is split[0]) for part in split)
    before = agreement(pruned, teacher, held_out)
    fine_tune(pruned, teacher, training, arguments.epochs)
    print(f"same class as the dense network on held-out images: {before:.3f} before fine-tuning, {agreement(pruned, teacher, held_out):.3f} after")

    path = arguments.out / "pruned.onnx"
    example = torch.zeros(1, 3, arguments.size, arguments.size)
    torch.onnx.export(pruned, example, str(path), dynamo=False, input_names=["input"], dynamic_axes={"input": {0: "batch"}})
    print(f"exported to {path} ({path.stat().st_size / 1e6:.1f} MB)")


if __name__ == "__main__":
    main()
