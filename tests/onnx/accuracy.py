"""Prunes trained ONNX classifiers with `secateur run`, and counts in other runtimes what the written models get right.

    python3 tests/onnx/accuracy.py [--secateur FILE] [--venv DIR]

A published MNIST network and the published ResNet-20 (CIFAR-10), each at half of its MACs and at half of its parameters, with few walks.
The model.onnx of every task must have in ONNX Runtime and in OpenVINO the accuracy on the whole test split that summary.json tells, to
within 2 images of 10,000 (runtimes round differently). Needs SECATEUR_DATA (mnist, cifar-10-batches-bin) and SECATEUR_MODELS (resnet20.onnx,
../onnx/mnist_cntk.onnx); without them it says that it is skipped.
"""

import argparse
import gzip
import json
import os
import pathlib
import subprocess
import sys
import tempfile

sys.dont_write_bytecode = True
import environment

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
SCENE = """(version: 1, seed: 7, networks: [(name: "net", file: {file}, mean: {mean}, std: {std})],
 datasets: [(name: "data", source: {source})], budgets: [Macs(ratio: 0.5), Params(ratio: 0.5)], protocol: Full, walks_per_task: 2, finalists: 1,
 images: (reward: 500, calibration: 200, walk: 100, refit: 500), controls: [])"""
IMAGES_DIFFERENT_MAX = 2


def mnist(data):
    import numpy as np

    images = np.frombuffer(gzip.decompress((data / "mnist/t10k-images-idx3-ubyte.gz").read_bytes()), np.uint8, offset=16)
    labels = np.frombuffer(gzip.decompress((data / "mnist/t10k-labels-idx1-ubyte.gz").read_bytes()), np.uint8, offset=8)
    return images.reshape(-1, 1, 28, 28), labels


def cifar10(data):
    import numpy as np

    records = np.frombuffer((data / "cifar-10-batches-bin/test_batch.bin").read_bytes(), np.uint8).reshape(-1, 3073)
    return records[:, 1:].reshape(-1, 3, 32, 32), records[:, 0]


def networks(models):
    """File, data set and how the images are normalised."""
    yield models / "../onnx/mnist_cntk.onnx", "Mnist", mnist, [0.0], [1.0]
    yield models / "resnet20.onnx", "Cifar10", cifar10, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def correct(path, images, labels):
    """Images that each runtime gets right; one at a time where the model's batch is fixed."""
    import onnxruntime
    import openvino

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    name, shape = session.get_inputs()[0].name, session.get_inputs()[0].shape
    batch = shape[0] if isinstance(shape[0], int) and shape[0] > 0 else 100
    compiled = openvino.Core().compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    right = {"ONNX Runtime": 0, "OpenVINO": 0}
    for first in range(0, len(labels), batch):
        x, y = images[first : first + batch], labels[first : first + batch]
        right["ONNX Runtime"] += int((session.run(None, {name: x})[0].argmax(1) == y).sum())
        right["OpenVINO"] += int((compiled(x)[compiled.outputs[0]].argmax(1) == y).sum())
    return right


def prune(secateur, folder, network):
    """The summary of a run."""
    import numpy as np

    file, source, _, mean, std = network
    scene = folder / f"{source}.ron"
    scene.write_text(SCENE.format(file=json.dumps(str(file.resolve())), mean=mean, std=std, source=source))
    out = folder / source
    subprocess.run([secateur, "run", scene, "--out", out], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    mean, std = (np.array(v, np.float32).reshape(1, -1, 1, 1) for v in (mean, std))
    return out, json.loads((out / "summary.json").read_text()), mean, std


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--secateur", type=pathlib.Path, default=ROOT / "target/release/secateur", metavar="FILE")
    parser.add_argument("--venv", help="folder of the virtual environment (see environment.py)")
    arguments = parser.parse_args()
    data, models = os.environ.get("SECATEUR_DATA"), os.environ.get("SECATEUR_MODELS")
    if not (data and models):
        if os.environ.get("SECATEUR_REQUIRE_DATA") == "1":
            sys.exit("accuracy.py: SECATEUR_REQUIRE_DATA=1, but SECATEUR_DATA or SECATEUR_MODELS is not set")
        print("SKIPPED: accuracy in other runtimes: set SECATEUR_DATA and SECATEUR_MODELS")
        return
    environment.run_inside(arguments.venv)
    import numpy as np

    failed = False
    with tempfile.TemporaryDirectory(prefix="secateur-onnx-") as folder:
        for network in networks(pathlib.Path(models)):
            out, summary, mean, std = prune(arguments.secateur, pathlib.Path(folder), network)
            pixels, labels = network[2](pathlib.Path(data))
            images = ((pixels.astype(np.float32) / 255 - mean) / std).astype(np.float32)
            for task in summary["tasks"]:
                told = round(task["test_accuracy_before_tuning"] * len(labels))
                right = correct(out / task["onnx_file"], images, labels)
                is_right = all(abs(n - told) <= IMAGES_DIFFERENT_MAX for n in right.values())
                failed |= not is_right
                counts = ", ".join(f"{runtime} {n}" for runtime, n in right.items())
                verdict = "ok" if is_right else "FAILED"
                of_dense = task["test_accuracy_original"]
                print(f"{network[0].name:16} {task['name']:22} summary.json {told} of {len(labels)} (dense {of_dense:.4f}), {counts}  {verdict}")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
