#!/usr/bin/env python3
"""Networks at 224x224 (and further ONNX files) in Secateur, OpenVINO and ONNX Runtime, fp32, images per second.

Each round runs all of them once, one after the other, for each network; medians over the rounds, and ours over the better of the
two. With --kept the same of the networks with half of the channels of every group (`Network.prune(0.5)`, weights not refitted:
speed does not depend on them), the time to compile included: what a candidate costs before its first image.

Needs torch, torchvision, onnx, onnxruntime, openvino; with --kept also `pip install ./python`.
Usage: python3 benches/large_images.py --secateur target/release/secateur --rounds 3 [--kept] [--networks resnet50,…] [--json FILE]
       a network is one of torchvision's (random weights), or FILE.onnx:HEIGHTxWIDTH:BATCH
"""
import argparse
import json
import os
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np

# Name, images of a call, images of a pass.
CASES = [
    ("resnet18", 16, 64), ("resnet50", 16, 32), ("mobilenet_v2", 16, 64), ("efficientnet_b0", 16, 64),
    ("resnet18", 1, 16), ("mobilenet_v2", 1, 32),
]


def export(name, folder):
    """A torchvision network as an ONNX file that takes any number of images."""
    import torch
    import torchvision

    path = folder / f"{name}.onnx"
    if not path.exists():
        torch.manual_seed(0)
        module = getattr(torchvision.models, name)(weights=None).eval()
        axes = {"images": {0: "n"}, "classes": {0: "n"}}
        torch.onnx.export(module, torch.zeros(1, 3, 224, 224), path, opset_version=17, dynamo=False,
                          input_names=["images"], output_names=["classes"], dynamic_axes=axes)
    return path


def half(path, folder):
    """The file of the network with half of the channels of every group."""
    to = folder / f"{path.stem}-half"
    if not to.exists():
        import secateur

        secateur.Network.from_onnx(str(path)).prune(0.5).save(str(to))
    return to / "model.onnx"


def ours(program, path, images, batch, threads):
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        call = [program, "bench", "eval", "--network", path, "--keep", 1, "--images", images, "--batch", batch,
                "--threads", threads, "--repair-images", 1, "--json", file.name]
        subprocess.run([str(word) for word in call], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        report = json.load(open(file.name))
    return {"images_per_s": report["images_per_s"], "compile_s": report["plan_s"]}


def rate(call, images, batch):
    """Images per second, the median of five passes after one to warm up."""
    call()
    times = []
    for _ in range(5):
        start = time.perf_counter()
        for _ in range(max(1, images // batch)):
            call()
        times.append(time.perf_counter() - start)
    return max(1, images // batch) * batch / statistics.median(times)


def openvino(path, x, images, threads):
    import openvino

    core = openvino.Core()
    core.set_property("CPU", {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"})
    start = time.perf_counter()
    model = core.read_model(path)
    model.reshape(x.shape)
    request = core.compile_model(model, "CPU").create_infer_request()
    compile_s = time.perf_counter() - start
    return {"images_per_s": rate(lambda: request.infer({0: x}), images, len(x)), "compile_s": compile_s}


def onnxruntime(path, x, images, threads):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    start = time.perf_counter()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    compile_s = time.perf_counter() - start
    name = session.get_inputs()[0].name
    return {"images_per_s": rate(lambda: session.run(None, {name: x}), images, len(x)), "compile_s": compile_s}


def with_compiling(one, images):
    return images / (images / one["images_per_s"] + one["compile_s"])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--secateur", default="target/release/secateur")
    parser.add_argument("--networks", help="names of the table, or files, separated by commas")
    parser.add_argument("--kept", action="store_true")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="where networks are exported to")
    parser.add_argument("--json")
    arguments = parser.parse_args()
    folder = arguments.folder or Path(tempfile.mkdtemp())
    folder.mkdir(parents=True, exist_ok=True)

    asked = arguments.networks.split(",") if arguments.networks else sorted({name for name, _, _ in CASES})
    cases = [(export(name, folder), name, 224, 224, batch, images) for name, batch, images in CASES if name in asked]
    for file in (name for name in asked if ".onnx" in name):
        path, size, batch = file.split(":")
        height, width = map(int, size.split("x"))
        cases.append((Path(path), Path(path).stem, height, width, int(batch), 64))

    measured = {}
    for _ in range(arguments.rounds):
        for path, name, height, width, batch, images in cases:
            for kept in (False, True) if arguments.kept and batch > 1 else (False,):
                file = half(path, folder) if kept else path
                x = np.random.default_rng(0).standard_normal((batch, 3, height, width)).astype(np.float32)
                runs = measured.setdefault((name, batch, kept), {"secateur": [], "openvino": [], "onnxruntime": []})
                value = (lambda one: with_compiling(one, images)) if kept else (lambda one: one["images_per_s"])
                runs["secateur"].append(value(ours(arguments.secateur, file, images, batch, arguments.threads)))
                for peer in (openvino, onnxruntime):
                    # A file whose shapes hold for one image alone.
                    try:
                        runs[peer.__name__].append(value(peer(str(file), x, images, arguments.threads)))
                    except Exception as error:
                        print(f"{name}: {peer.__name__} takes one image at a time: {str(error).splitlines()[0]}", flush=True)
                        runs[peer.__name__].append(value(peer(str(file), x[:1], images, arguments.threads)))
                print(name, f"batch {batch}", "half" if kept else "dense",
                      *(f"{who} {rates[-1]:.1f}" for who, rates in runs.items()), f"load {os.getloadavg()[0]:.1f}", flush=True)

    print("\n| network | Secateur | OpenVINO | ONNX Runtime | over the better |\n|---|---|---|---|---|")
    rows = []
    for (name, batch, kept), runs in measured.items():
        medians = {who: statistics.median(rates) for who, rates in runs.items()}
        ratio = medians["secateur"] / max(medians["openvino"], medians["onnxruntime"])
        what = f"{name}, {'half of every group, compiling included' if kept else 'dense'}, batch {batch}"
        print(f"| {what} |", " | ".join(f"{value:.1f}" for value in medians.values()), f"| {ratio:.2f} |")
        rows.append({"network": name, "batch": batch, "kept": 0.5 if kept else 1.0, **medians, "ratio": ratio})
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
