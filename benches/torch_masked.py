#!/usr/bin/env python3
"""PyTorch on a CUDA card, fp32 with TF32 off, on the work of `secateur bench eval --device gpu`: what
that is compared with.

masked: a candidate is the full-size ResNet with pruned inner channels zeroed, as AMC and MTACP score; candidates one after
another. dense: the unpruned network, images/s. Both eager, the better of NCHW and channels_last, best of the repetitions, images
already on the card, the count of correct predictions brought back.

Usage: python3 benches/torch_masked.py --net resnet56 --keep 0.5 --images 1000 --candidates 64
"""
import argparse
import json
import time

import torch
import torch.nn as nn
import torch.nn.functional as F


class Block(nn.Module):
    def __init__(self, c_in, c_out, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(c_in, c_out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(c_out)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(c_out)
        self.pad = (c_out - c_in) // 2 if c_in != c_out else None
        self.mask = None

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)))
        if self.mask is not None:
            y = y * self.mask
        y = self.bn2(self.conv2(y))
        s = x if self.pad is None else F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.pad, self.pad))
        return F.relu(y + s)


class Net(nn.Module):
    def __init__(self, depth):
        super().__init__()
        n, c, blocks = (depth - 2) // 6, 16, []
        self.stem, self.bn = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        for stage, width in enumerate((16, 32, 64)):
            for b in range(n):
                blocks.append(Block(c, width, 2 if stage and not b else 1))
                c = width
        self.blocks, self.fc = nn.Sequential(*blocks), nn.Linear(64, 10)

    def forward(self, x):
        return self.fc(self.blocks(F.relu(self.bn(self.stem(x)))).mean((2, 3)))


def best_s(work, repeats):
    work()
    times = []
    for _ in range(repeats):
        torch.cuda.synchronize()
        start = time.perf_counter()
        work()
        torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return min(times)


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--net", default="resnet56")
    ap.add_argument("--keep", type=float, default=0.5)
    ap.add_argument("--images", type=int, default=1000)
    ap.add_argument("--candidates", type=int, default=64)
    ap.add_argument("--repeats", type=int, default=5)
    ap.add_argument("--json", metavar="FILE", help="write the figures there too")
    a = ap.parse_args()
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = True
    torch.manual_seed(0)
    depth = int(a.net.removeprefix("resnet"))
    masked, dense = [], []
    for layout in (torch.contiguous_format, torch.channels_last):
        net = Net(depth).cuda().eval().to(memory_format=layout)
        images = torch.randn(a.images, 3, 32, 32, device="cuda").to(memory_format=layout)
        labels = torch.zeros(a.images, dtype=torch.long, device="cuda")

        def count():
            return int((net(images).argmax(1) == labels).sum())

        def candidates():
            for _ in range(a.candidates):
                for block in net.blocks:
                    n = block.conv1.out_channels
                    kept = torch.randperm(n, device="cuda")[: max(1, round(n * a.keep))]
                    block.mask = torch.zeros(1, n, 1, 1, device="cuda").index_fill_(1, kept, 1.0)
                count()

        with torch.inference_mode():
            dense.append(best_s(count, a.repeats))
            masked.append(best_s(candidates, a.repeats))
    name = torch.cuda.get_device_name()
    masked_rate, dense_rate = a.candidates / min(masked), a.images / min(dense)
    print(f"{name}, PyTorch {torch.__version__}, fp32, TF32 off")
    print(f"torch_masked {masked_rate:9.2f} candidates/s ({min(masked):.4f} s for {a.candidates})")
    print(f"torch_dense  {dense_rate:9.0f} images/s ({min(dense):.4f} s)")
    if a.json:
        figures = {"card": name, "torch": torch.__version__, "network": a.net, "keep": a.keep, "candidates": a.candidates,
                   "images": a.images, "masked_candidates_per_s": masked_rate, "dense_images_per_s": dense_rate}
        with open(a.json, "w", encoding="utf-8") as file:
            json.dump(figures, file, indent=1)


main()
