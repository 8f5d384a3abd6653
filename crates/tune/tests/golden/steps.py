#!/usr/bin/env python3
"""Three training steps of a small ResNet-20 in PyTorch: what `steps.rs` compares with.

Setup: python3 -m venv V && V/bin/pip install torch numpy
Usage: V/bin/python steps.py > steps.json

Every value follows from its position, so that only sums need to be kept: no file of weights. Images are 3x8x8, BatchNorm
is in training mode, the optimiser is SGD with Nesterov momentum and weight decay on weights only. The seed of the
images is such that no rectifier's input is nearer to zero than 2e-5: rounding decides over none of them, which would move
gradients by a hundredth.
"""
import json
import torch, torch.nn as nn, torch.nn.functional as F

torch.manual_seed(0)
torch.set_num_threads(1)


def numbers(n, seed):
    """As `numbers` in steps.rs."""
    index = torch.arange(n, dtype=torch.int64)
    i = index * 7 + index // 3
    values = ((i + 1) * 2654435761 + seed * 40503) % 100003
    return (values.to(torch.float32) / 50001.5 - 1.0)


class Block(nn.Module):
    def __init__(self, n_in, n_out, stride):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(n_in, n_out, 3, stride, 1, bias=False), nn.BatchNorm2d(n_out)
        self.conv2, self.bn2 = nn.Conv2d(n_out, n_out, 3, 1, 1, bias=False), nn.BatchNorm2d(n_out)
        self.pad = (n_out - n_in) // 2

    def forward(self, x):
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.pad:
            x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.pad, self.pad))
        return F.relu(y + x)


class ResNet20(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        n_in = 16
        for stage, (n_out, stride) in enumerate(((16, 1), (32, 2), (64, 2)), 1):
            blocks = []
            for at in range(3):
                blocks.append(Block(n_in, n_out, stride if at == 0 else 1))
                n_in = n_out
            setattr(self, f'layer{stage}', nn.Sequential(*blocks))
        self.linear = nn.Linear(64, 10)

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        return self.linear(self.layer3(self.layer2(self.layer1(x))).mean((2, 3)))


net = ResNet20().double().train()
names = sorted(name for name, _ in net.named_parameters())
parameters = dict(net.named_parameters())
with torch.no_grad():
    for seed, name in enumerate(names):
        values = numbers(parameters[name].numel(), seed).reshape(parameters[name].shape).double()
        is_norm = name.endswith('weight') and parameters[name].dim() == 1
        # Sums of many inputs stay near 1.
        fan_in = parameters[name][0].numel() if parameters[name].dim() > 1 else 1
        parameters[name].copy_(1 + 0.2 * values if is_norm else values * (2 / fan_in) ** 0.5 if fan_in > 1 else 0.1 * values)

images = numbers(5 * 3 * 8 * 8, 102).reshape(5, 8, 8, 3).permute(0, 3, 1, 2).double()
labels = torch.arange(5) * 7 % 10
teacher = 3 * numbers(50, 101).reshape(5, 10).double()
weights = [p for p in net.parameters() if p.dim() > 1]
others = [p for p in net.parameters() if p.dim() == 1]
groups = [{'params': weights, 'weight_decay': 5e-3}, {'params': others, 'weight_decay': 0.0}]
optimiser = torch.optim.SGD(groups, lr=0.01, momentum=0.9, nesterov=True)
steps = []
for step in range(3):
    optimiser.zero_grad()
    logits = net(images)
    soft = F.kl_div(F.log_softmax(logits / 4, 1), F.softmax(teacher / 4, 1), reduction='batchmean') * 16
    loss = 0.1 * F.cross_entropy(logits, labels, label_smoothing=0.1) + 0.9 * soft
    loss.backward()
    gradients = {name: [p.grad.sum().item(), p.grad.norm().item(), p.grad.flatten()[0].item()] for name, p in net.named_parameters()}
    optimiser.step()
    values = {name: [p.sum().item(), p.norm().item(), p.flatten()[-1].item()] for name, p in net.named_parameters()}
    steps.append({'loss': loss.item(), 'gradients': gradients if step == 0 else {}, 'values': values if step == 2 else {}})
statistics = {name: [b.sum().item(), b.norm().item()] for name, b in net.named_buffers() if 'running' in name}


def rounded(value):
    if isinstance(value, dict):
        return {key: rounded(v) for key, v in value.items()}
    return [rounded(v) for v in value] if isinstance(value, list) else float(f'{value:.9g}')


print(json.dumps(rounded({'steps': steps, 'statistics': statistics}), indent=None, separators=(',', ':')))
