"""Networks whose state dicts are recognised by their names, for state_dicts.py: those of torchvision, and those for small images, built
here as the programs do that people train them with.
"""

import torch
import torch.nn.functional as F
import torchvision.models as tv
from torch import nn

LARGE = (3, 224, 224)
SMALL = (3, 32, 32)


class Block(nn.Module):
    """A residual block with its projection under the name `shortcut`; bottleneck where `expansion` is 4."""

    def __init__(self, c_in, width, stride, expansion):
        super().__init__()
        out = width * expansion
        if expansion == 1:
            layers = [(c_in, width, 3, stride), (width, out, 3, 1)]
        else:
            layers = [(c_in, width, 1, 1), (width, width, 3, stride), (width, out, 1, 1)]
        self.n = len(layers)
        for i, (a, b, k, s) in enumerate(layers, 1):
            setattr(self, f"conv{i}", nn.Conv2d(a, b, k, s, k // 2, bias=False))
            setattr(self, f"bn{i}", nn.BatchNorm2d(b))
        self.shortcut = nn.Sequential()
        if stride != 1 or c_in != out:
            self.shortcut = nn.Sequential(nn.Conv2d(c_in, out, 1, stride, bias=False), nn.BatchNorm2d(out))

    def forward(self, x):
        y = x
        for i in range(1, self.n + 1):
            y = getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(y))
            y = F.relu(y) if i < self.n else y
        return F.relu(y + self.shortcut(x))


class ShortcutResNet(nn.Module):
    """ResNet for CIFAR with the names `shortcut` and `linear`."""

    def __init__(self, blocks, widths, expansion=1, channels=3):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, widths[0], 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        c_in, self.n = widths[0], len(blocks)
        for stage, (n, width) in enumerate(zip(blocks, widths, strict=True), 1):
            strides = [1 if stage == 1 else 2] + [1] * (n - 1)
            layers = []
            for stride in strides:
                layers.append(Block(c_in, width, stride, expansion))
                c_in = width * expansion
            setattr(self, f"layer{stage}", nn.Sequential(*layers))
        self.linear = nn.Linear(c_in, 10)

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        for stage in range(1, self.n + 1):
            x = getattr(self, f"layer{stage}")(x)
        return self.linear(x.mean((2, 3)))


def small_stem(model, channels=3):
    """torchvision's ResNet as it is changed for small images."""
    model.conv1 = nn.Conv2d(channels, model.conv1.out_channels, 3, 1, 1, bias=False)
    model.maxpool = nn.Identity()
    return model


class ThreeStageResNet(tv.ResNet):
    """torchvision's blocks and names, three stages, 16 to 64 channels: ResNet-20 with projections."""

    def __init__(self):
        super().__init__(tv.resnet.BasicBlock, [3, 3, 3, 1], num_classes=10)
        self.inplanes = 16
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        self.layer1 = self._make_layer(tv.resnet.BasicBlock, 16, 3)
        self.layer2 = self._make_layer(tv.resnet.BasicBlock, 32, 3, stride=2)
        self.layer3 = self._make_layer(tv.resnet.BasicBlock, 64, 3, stride=2)
        self.layer4, self.maxpool = nn.Sequential(), nn.Identity()
        self.fc = nn.Linear(64, 10)


class SmallVgg(nn.Module):
    """VGG for CIFAR with BatchNorm and one Linear layer, at a share of its widths."""

    def __init__(self, plan, share=1.0, norm=True):
        super().__init__()
        layers, c = [], 3
        for v in plan:
            if v == "M":
                layers.append(nn.MaxPool2d(2, 2))
                continue
            out = int(v * share)
            layers += [nn.Conv2d(c, out, 3, padding=1)] + ([nn.BatchNorm2d(out)] if norm else []) + [nn.ReLU()]
            c = out
        self.features = nn.Sequential(*layers, nn.AvgPool2d(1, 1))
        self.classifier = nn.Linear(c, 10)

    def forward(self, x):
        return self.classifier(self.features(x).flatten(1))


VGG11 = [64, "M", 128, "M", 256, 256, "M", 512, 512, "M", 512, 512, "M"]
VGG16 = [64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512, "M"]
VGG19 = [64, 64, "M", 128, 128, "M", *[256] * 4, "M", *[512] * 4, "M", *[512] * 4, "M"]


def vgg_with_head(plan, norm, dropout_first):
    """torchvision's sequence at 32x32, with three Linear layers of 512, numbered from 0 or behind a Dropout."""
    model = SmallVgg(plan, norm=norm)
    model.features = model.features[:-1]
    linear = [nn.Linear(512, 512), nn.ReLU(), nn.Dropout(), nn.Linear(512, 512), nn.ReLU(), nn.Dropout(), nn.Linear(512, 100)]
    if dropout_first:
        linear = [nn.Dropout(), nn.Linear(512, 512), nn.ReLU(), nn.Dropout(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10)]
    model.classifier = nn.Sequential(*linear)
    return model


class DenseLayer(nn.Module):
    def __init__(self, c, growth):
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(c), nn.Conv2d(c, 4 * growth, 1, bias=False)
        self.bn2, self.conv2 = nn.BatchNorm2d(4 * growth), nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False)

    def forward(self, x):
        return torch.cat([self.conv2(F.relu(self.bn2(self.conv1(F.relu(self.bn1(x)))))), x], 1)


class Transition(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.bn, self.conv = nn.BatchNorm2d(c), nn.Conv2d(c, c // 2, 1, bias=False)

    def forward(self, x):
        return F.avg_pool2d(self.conv(F.relu(self.bn(x))), 2)


class SmallDenseNet(nn.Module):
    """DenseNet for CIFAR whose layers put their new channels first."""

    def __init__(self, blocks, growth):
        super().__init__()
        c = 2 * growth
        self.conv1, self.n = nn.Conv2d(3, c, 3, padding=1, bias=False), len(blocks)
        for i, n in enumerate(blocks, 1):
            setattr(self, f"dense{i}", nn.Sequential(*[DenseLayer(c + j * growth, growth) for j in range(n)]))
            c += n * growth
            if i < len(blocks):
                setattr(self, f"trans{i}", Transition(c))
                c //= 2
        self.bn, self.linear = nn.BatchNorm2d(c), nn.Linear(c, 10)

    def forward(self, x):
        x = self.conv1(x)
        for i in range(1, self.n + 1):
            x = getattr(self, f"dense{i}")(x)
            x = getattr(self, f"trans{i}")(x) if i < self.n else x
        return self.linear(F.relu(self.bn(x)).mean((2, 3)))


def small_stem_densenet():
    """torchvision's DenseNet with the stem for small images: 3x3, no BatchNorm, no pool."""
    model = tv.DenseNet(12, (4, 4, 4), 24, num_classes=10)
    model.features.conv0 = nn.Conv2d(3, 24, 3, 1, 1, bias=False)
    del model.features.norm0, model.features.relu0, model.features.pool0
    return model


def networks():
    """A function that builds each network, and the shape of its images."""
    of_torchvision = (
        "resnet18 resnet34 resnet50 resnet101 resnet152 wide_resnet50_2 resnext50_32x4d vgg11 vgg13 vgg16 vgg19 vgg11_bn vgg13_bn vgg16_bn "
        "vgg19_bn alexnet mobilenet_v2 densenet121 densenet169 densenet201 densenet161 squeezenet1_0 squeezenet1_1"
    ).split()
    large = {name: lambda name=name: getattr(tv, name)(weights=None) for name in of_torchvision} | {
        "resnet18 of 7 classes": lambda: tv.resnet18(num_classes=7),
        "mobilenet_v2 half": lambda: tv.mobilenet_v2(width_mult=0.5, num_classes=10),
        "vgg16_bn of 10 classes": lambda: tv.vgg16_bn(num_classes=10),
    }
    small = {
        "cifar resnet18": lambda: small_stem(tv.resnet18(num_classes=10)),
        "cifar resnet50": lambda: small_stem(tv.resnet50(num_classes=100)),
        "cifar resnet18 shortcut": lambda: ShortcutResNet([2, 2, 2, 2], [64, 128, 256, 512]),
        "cifar resnet50 shortcut": lambda: ShortcutResNet([3, 4, 6, 3], [64, 128, 256, 512], 4),
        "cifar resnet18 narrow": lambda: ShortcutResNet([2, 2, 2, 2], [12, 20, 36, 70]),
        "cifar resnet20 downsample": ThreeStageResNet,
        "cifar resnet32 shortcut": lambda: ShortcutResNet([5, 5, 5], [16, 32, 64]),
        "cifar vgg11_bn": lambda: SmallVgg(VGG11),
        "cifar vgg16_bn": lambda: SmallVgg(VGG16),
        "cifar vgg16_bn narrow": lambda: SmallVgg(VGG16, 0.3),
        "cifar vgg19_bn": lambda: SmallVgg(VGG19),
        "cifar vgg11 of one layer": lambda: SmallVgg(VGG11, norm=False),
        "cifar vgg13_bn of three": lambda: vgg_with_head([64, *VGG11[:2], 128, *VGG11[2:]], True, False),
        "cifar vgg16 of three": lambda: vgg_with_head(VGG16, False, True),
        "cifar densenet": lambda: SmallDenseNet([6, 12, 24, 16], 12),
        "cifar densenet features": small_stem_densenet,
    }
    grey = {"grey resnet18": lambda: ShortcutResNet([2, 2, 2, 2], [8, 16, 24, 32], channels=1)}
    shapes = [(large, LARGE), (small, SMALL), (grey, (1, 32, 32))]
    return {name: (build, shape) for builds, shape in shapes for name, build in builds.items()}
