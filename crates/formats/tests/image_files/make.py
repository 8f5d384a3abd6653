"""Writes resized.bin: what torchvision's Resize and CenterCrop make of drawn pictures, for tests/it/image_files.rs.

Needs torchvision and Pillow. One record for each case: width, height, side to resize to, rows and columns to cut, method
(0 bilinear, 1 bicubic, 2 nearest, 3 lanczos), grey (1) or RGB (0), each in two bytes, little-endian; then the pixels [H, W, C].
The pictures themselves are drawn from the same formula there and here.
"""
import struct
from pathlib import Path

import numpy as np
from PIL import Image
from torchvision.transforms import CenterCrop, InterpolationMode, Resize

METHODS = [InterpolationMode.BILINEAR, InterpolationMode.BICUBIC, InterpolationMode.NEAREST, InterpolationMode.LANCZOS]
CASES = [
    (100, 75, 37, 32, 32, 0, 0), (75, 100, 37, 32, 32, 0, 0), (61, 37, 37, 32, 32, 0, 0), (20, 31, 37, 32, 32, 0, 0),
    (400, 3, 37, 32, 32, 0, 0), (1, 1, 18, 16, 16, 0, 0), (97, 64, 18, 16, 16, 0, 1), (97, 64, 37, 32, 32, 1, 0),
    (97, 64, 37, 32, 32, 3, 0), (97, 64, 37, 31, 31, 0, 0), (64, 97, 40, 24, 37, 0, 0), (97, 64, 37, 32, 32, 2, 0),
]


def picture(w, h):
    """Smooth waves, hard edges and noise of a small generator, [H, W, 3]."""
    y, x, c = np.mgrid[0:h, 0:w, 0:3].astype(np.int64)
    noise = ((x * 7919 + y * 104729 + c * 1299709) * 2654435761 >> 7) % 61
    return ((x * (3 + c) + y * (5 - c)) % 160 + noise + np.where((x // 9 + y // 7) % 2 == 0, 30, 0)).astype(np.uint8)


out = bytearray()
for w, h, side, rows, cols, method, is_grey in CASES:
    image = Image.fromarray(picture(w, h))
    if is_grey:
        image = image.convert("L")
    image = CenterCrop((rows, cols))(Resize(side, METHODS[method])(image))
    out += struct.pack("<7H", w, h, side, rows, cols, method, is_grey) + np.asarray(image).tobytes()
Path(__file__).with_name("resized.bin").write_bytes(out)
