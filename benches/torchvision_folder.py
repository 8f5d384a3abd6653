"""How fast torchvision reads a folder of images, to be compared with the example image_folder of crates/formats.

    python benches/torchvision_folder.py DIR [IMAGES [THREADS]]

DIR holds a folder for each class. Needs torch, torchvision and Pillow. Prints the rate of ImageFolder with Resize(256),
CenterCrop(224), ToTensor and Normalize, once with that many threads of one process, once with as many worker processes of a
DataLoader, which is how PyTorch programs read images.
"""
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import torch
from torchvision import transforms
from torchvision.datasets import ImageFolder

arguments = dict(enumerate(sys.argv))
folder, n, threads = arguments[1], int(arguments.get(2, 1000)), int(arguments.get(3, 2))
torch.set_num_threads(1)
steps = [transforms.Resize(256), transforms.CenterCrop(224), transforms.ToTensor(), transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])]
data = ImageFolder(folder, transforms.Compose(steps))
n = min(n, len(data))
indices = range(n)
for _ in range(2):
    start = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(data.__getitem__, indices):
            pass
    print(f"{threads} threads: {n / (time.perf_counter() - start):.0f} images/s")
part = torch.utils.data.Subset(data, indices)
for _ in range(2):
    start = time.perf_counter()
    for _ in torch.utils.data.DataLoader(part, batch_size=64, num_workers=threads):
        pass
    print(f"DataLoader, {threads} workers: {n / (time.perf_counter() - start):.0f} images/s")
