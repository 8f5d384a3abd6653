"""Prunes networks without labels with `secateur run`, and computes in ONNX Runtime what summary.json says of their outputs.

    python3 tests/onnx/output_error.py [--secateur FILE] [--images FILE] [--scene SCENE.ron] [--venv DIR]

Detectors of several outputs on a folder of photographs (one is compared in front of its box decoding, which Secateur does not compute),
classifiers by `Kl` and a grey network by `OutputError`, on images whose labels are not used; or the tasks of SCENE.ron, on the test
images of its first data set. Dense and written model are run on the very images (examples/scene_images.rs writes them). The error of every
output, and their mean by weight, must be those of summary.json to a thousandth; the written model must load and is timed beside the dense
one, in turns, on one thread. Needs SECATEUR_DATA and SECATEUR_MODELS; without them it says that it is skipped.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

sys.dont_write_bytecode = True
import environment

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
SCENE = """(version: 1, seed: 7, networks: [(name: "net", file: {file}, mean: {mean}, std: {std})],
 datasets: [(name: "data", source: {source}, labels: None)], budgets: [Macs(ratio: 0.5)], protocol: Full, walks_per_task: 4, finalists: 1,
 images: (reward: {n}, calibration: {n}, walk: 32, refit: {n}), reward: {reward}, controls: [Uniform])"""
# A thousand flowers for training, as many for the test; labels are not looked for.
PHOTOGRAPHS = 'Images(dir: "flowers-102", labels: None)'
RELATIVE_MAX = 1e-3
# Below, an output hardly differs from the dense one's, and rounding is most of what is left.
ERROR_MIN = 1e-6
IMAGENET = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def scenes(models):
    """Text of scenes, by name."""
    networks = [
        ("nanodet", "../onnx/nanodet_m.onnx", PHOTOGRAPHS, IMAGENET, 96, "OutputError()"),
        ("ultraface", "../onnx/ultraface_rfb_320.onnx", PHOTOGRAPHS, ([0.498] * 3, [0.502] * 3), 96, 'OutputError(weights: {"318": 2.0})'),
        ("resnet20", "resnet20.onnx", "Cifar10", IMAGENET, 500, "Kl"),
        ("resnet20-100", "resnet20.onnx", "Cifar100", IMAGENET, 300, "Kl"),
        ("mnist", "../onnx/mnist_cntk.onnx", "Mnist", ([0.0], [1.0]), 500, "OutputError()"),
    ]
    for name, file, source, (mean, std), n, reward in networks:
        file = json.dumps(str((models / file).resolve()))
        yield name, SCENE.format(file=file, source=source, mean=mean, std=std, n=n, reward=reward)


def session(path, outputs):
    """A session of one thread that gives `outputs`, which may stand before the model's own."""
    import onnx
    import onnxruntime

    model = onnx.load(str(path))
    own = {output.name for output in model.graph.output}
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in outputs if name not in own)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def run(session, outputs, images):
    """Of every output, `[N, values]`; one image at a time where the model's batch is fixed, and where it is not."""
    import numpy as np

    name = session.get_inputs()[0].name
    of_images = [session.run(outputs, {name: image[None]}) for image in images]
    return [np.stack([values[i].reshape(-1) for values in of_images]).astype(np.float64) for i in range(len(outputs))]


def error(dense, pruned):
    """As documented in crates/sim/src/output_error.rs: variance, else energy, else a mean square."""
    squares = ((pruned - dense) ** 2).sum()
    variance, energy = ((dense - dense.mean(0)) ** 2).sum(), (dense**2).sum()
    if variance > 1e-10 * energy:
        return squares / variance, "variance"
    return (squares / energy, "energy") if energy > 0 else (squares / dense.size, "count")


def log_softmax(logits):
    import numpy as np

    shifted = logits - logits.max(1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(1, keepdims=True))


def milliseconds(sessions, image):
    """The fastest of some runs of each session, taken in turns."""
    best = [float("inf")] * len(sessions)
    for _ in range(30):
        for i, of in enumerate(sessions):
            start = time.perf_counter()
            of.run(None, {of.get_inputs()[0].name: image})
            best[i] = min(best[i], (time.perf_counter() - start) * 1e3)
    return best


def near(told, found):
    return abs(told - found) <= RELATIVE_MAX * max(abs(found), ERROR_MIN)


def compare(task, dense_file, written, images):
    """What differs from the summary, and a line of what was found."""
    import numpy as np

    told = task["outputs"]
    names = [output["name"] for output in told]
    dense, pruned = (run(session(path, names), names, images) for path in (dense_file, written))
    problems, errors = [], []
    for output, d, p in zip(told, dense, pruned):
        found, unit = error(d, p)
        errors.append(found)
        if not (near(output["test_error"], found) and unit == output["relative_to"] and d.shape[1] == output["values"]):
            problems.append(f"output {output['name']}: {found:.6g} of the {unit}, summary.json says {output}")
    mean = float(np.average(errors, weights=[output["weight"] for output in told]))
    if not near(task["test_output_error"], mean):
        problems.append(f"output error {mean:.6g}, summary.json says {task['test_output_error']:.6g}")
    if "test_divergence" in task:
        p, q = log_softmax(dense[0]), log_softmax(pruned[0])
        found = {"test_divergence": (np.exp(p) * (p - q)).sum(1).mean(), "test_same_class": (p.argmax(1) == q.argmax(1)).mean()}
        problems += [f"{key} {value:.6g}, summary.json says {task[key]:.6g}" for key, value in found.items() if abs(task[key] - value) > 1e-3]
    timed = milliseconds([session(dense_file, []), session(written, [])], images[:1])
    sizes = [path.stat().st_size / 1e6 for path in (dense_file, written)]
    return problems, f"output error {mean:.4f}, {sizes[0]:.2f} -> {sizes[1]:.2f} MB, {timed[0]:.3f} -> {timed[1]:.3f} ms ({timed[0] / timed[1]:.2f}x)"


def check(secateur, images_of, scene, folder):
    """Runs a scene and compares all of its tasks; whether all is as the summaries say."""
    import numpy as np
    import onnx

    out = folder / scene.stem
    subprocess.run([secateur, "run", scene, "--out", out, "--quiet"], check=True, stdout=subprocess.DEVNULL)
    summary = json.loads((out / "summary.json").read_text())
    raw = folder / f"{scene.stem}.bin"
    shape = subprocess.run([images_of, scene, raw], check=True, capture_output=True, text=True).stdout
    pixels = np.fromfile(raw, np.uint8).reshape([int(n) for n in shape.split()])
    is_right = True
    for task in summary["tasks"]:
        written = out / task["onnx_file"]
        properties = {p.key: p.value for p in onnx.load(str(written)).metadata_props}
        mean, std = (np.array(json.loads(properties[f"secateur.{key}"]), np.float32).reshape(-1, 1, 1) for key in ("mean", "std"))
        images = (pixels.astype(np.float32) / np.float32(255) - mean) / std
        dense = pathlib.Path(networks_of(scene)[task["network"]])
        problems, line = compare(task, dense, written, images)
        macs = task["original"]["macs"], task["macs"]
        print(f"{scene.stem:12} {len(images)} images, {macs[0]:,} -> {macs[1]:,} MACs: {line}  {'FAILED' if problems else 'ok'}", flush=True)
        for problem in problems:
            print(f"    {problem}")
        is_right &= not problems
    return is_right


def networks_of(scene):
    """Files of a scene's networks by name, which stand in it as (name: "…", file: "…"."""
    import re

    return dict(re.findall(r'name:\s*"([^"]+)",\s*file:\s*"([^"]+)"', scene.read_text()))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--secateur", type=pathlib.Path, default=ROOT / "target/release/secateur", metavar="FILE")
    parser.add_argument("--images", type=pathlib.Path, default=ROOT / "target/release/examples/scene_images", metavar="FILE", help="the example")
    parser.add_argument("--scene", type=pathlib.Path, help="a scene of one's own, whose networks are absolute paths to .onnx files")
    parser.add_argument("--only", help="only the built-in scenes whose name contains this")
    parser.add_argument("--venv", help="folder of the virtual environment (see environment.py)")
    arguments = parser.parse_args()
    models = os.environ.get("SECATEUR_MODELS")
    if not (models and os.environ.get("SECATEUR_DATA")) and not arguments.scene:
        if os.environ.get("SECATEUR_REQUIRE_DATA") == "1":
            sys.exit("output_error.py: SECATEUR_REQUIRE_DATA=1, but SECATEUR_DATA or SECATEUR_MODELS is not set")
        print("SKIPPED: output errors in ONNX Runtime: set SECATEUR_DATA and SECATEUR_MODELS")
        return
    environment.run_inside(arguments.venv)
    with tempfile.TemporaryDirectory(prefix="secateur-onnx-") as folder:
        folder = pathlib.Path(folder)
        files = [arguments.scene.resolve()] if arguments.scene else []
        for name, text in [] if arguments.scene else scenes(pathlib.Path(models)):
            if not arguments.only or arguments.only in name:
                files.append(folder / f"{name}.ron")
                files[-1].write_text(text)
        right = [check(arguments.secateur, arguments.images, file, folder) for file in files]
    sys.exit(0 if right and all(right) else 1)


if __name__ == "__main__":
    main()
