"""Removes channels from ONNX files with the example onnx_cut and checks the results in ONNX Runtime and OpenVINO.

    python3 tests/onnx/compare.py [--quick] [--only NAME] [--json FILE] [FILE.onnx ...]

Without files it takes the exports of export.py (made where they are missing) and the published files of --published. For each file, 20
random sets of kept channels (3 with --quick): the cut file passes onnx's checker, runs in both runtimes and equals the masked original
(the same channels set to zero where later layers read them) to 1e-5; nothing else of the document changed (document.py); with everything
kept the file is byte-equal; multiply-accumulates, counted here from the shapes of a run, shrink and are those that the tool tells; groups
and channels are at least those of expected.json. If the example onnx_logits is there, our own engine's outputs equal ONNX Runtime's to
1e-4. Prints a line per file; exit code 1 if anything failed. Needs cargo and, the first time, PyPI (environment.py).
"""

import argparse
import json
import math
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import environment
import export

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
TOLERANCE = 1e-5
LOGITS_TOLERANCE = 1e-4
# Draws are made in several calls of the tool, so that their files never take more than this.
DISK_MAX = 2 << 30
TIMEOUT = 600
# Few files that have every kind of coupling between them: residual, depthwise, gates, concatenations, shuffles, splits, branches, NHWC.
QUICK = [
    "resnet18.dy.onnx",
    "resnet18.raw.dy.onnx",
    "mobilenet_v2.ts.onnx",
    "mobilenet_v3_small.bn.ts.onnx",
    "efficientnet_b0.dy.onnx",
    "densenet121.ts.onnx",
    "shufflenet_v2_x0_5.ts.onnx",
    "shufflenet_v2_x0_5.dy.onnx",
    "convnext_tiny.dy.onnx",
    "mixnet_s.dy.onnx",
    "cs3darknet_s.dy.onnx",
    "skresnet18.ts.onnx",
    "tf_efficientnet_lite0.ts.onnx",
]


class Refused(Exception):
    """The tool does not take the file, in its own words."""


def draw_plan(quick):
    """Share of channels kept and number of draws: mostly half, once nearly all, once a single channel of each group."""
    return [(0.5, 1 if quick else 18), (0.9, 1), (0.001, 1)]


def published_folder(given):
    """The published files that are no part of the repository, or None where there are none."""
    models = os.environ.get("SECATEUR_MODELS")
    folder = pathlib.Path(given) if given else pathlib.Path(models) / ".." / "onnx" if models else None
    if folder is not None and folder.is_dir():
        return folder
    if os.environ.get("SECATEUR_REQUIRE_DATA") == "1" or given:
        sys.exit("compare.py: no folder of published ONNX files: set SECATEUR_MODELS, with onnx/ beside it, or give --published")
    print("SKIPPED: published files: set SECATEUR_MODELS to the folder of the networks, with onnx/ beside it", flush=True)
    return None


def choose_files(arguments):
    """The files to compare, exported first where they are missing."""
    if arguments.files:
        return [path.absolute() for path in arguments.files]
    names = QUICK if arguments.quick else export.file_names()
    if arguments.only:
        names = [name for name in export.file_names() if name.startswith(f"{arguments.only}.") or name == arguments.only]
    if names:
        architectures = ",".join(dict.fromkeys(name.split(".")[0] for name in names))
        subprocess.run([sys.executable, HERE / "export.py", arguments.exports, "--only", architectures], check=True)
    files = [arguments.exports / name for name in names]
    if not (arguments.only and names):
        folder = published_folder(arguments.published)
        published = sorted(folder.glob("*.onnx")) if folder else []
        files += [path for path in published if arguments.only in (None, path.name, path.stem)]
    if not files:
        sys.exit(f"compare.py: --only {arguments.only} names no file: known are {', '.join(export.file_names())}")
    return files


def find_tools(arguments):
    """Paths of onnx_cut and, where its source is there, onnx_logits; built unless told otherwise."""
    folder = arguments.tools or ROOT / "target" / "release" / "examples"
    sources = {"onnx_cut": ROOT / "crates/onnx/examples/onnx_cut.rs", "onnx_logits": ROOT / "examples/onnx_logits.rs"}
    if arguments.tools is None:
        for name, package in (("onnx_cut", "secateur-onnx"), ("onnx_logits", "secateur")):
            if name == "onnx_cut" or sources[name].is_file():
                command = ["cargo", "build", "--release", "--locked", "-p", package, "--example", name]
                subprocess.run(command, cwd=ROOT, check=True)
    tools = {name: folder / name for name in sources}
    if not tools["onnx_cut"].is_file():
        sys.exit(f"compare.py: {tools['onnx_cut']} is missing: build it, or leave --tools out")
    if not tools["onnx_logits"].is_file():
        print("SKIPPED: outputs of our own engine: the example onnx_logits is not built", flush=True)
        tools["onnx_logits"] = None
    return tools


def call(command):
    """Standard output of a tool, or Refused with the last line that it wrote to standard error."""
    try:
        done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=TIMEOUT, check=False)
    except subprocess.TimeoutExpired:
        raise Refused(f"{pathlib.Path(command[0]).name} took more than {TIMEOUT} s") from None
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode} and no word"]
        raise Refused(lines[-1])
    return done.stdout


class Comparison:
    """All checks of one file. `problems` holds a sentence for each that failed, `facts` what the table shows."""

    def __init__(self, path, tools, expected):
        import runtimes
        from document import Document

        self.runtimes, self.tools, self.expected = runtimes, tools, expected
        self.original = Document(path)
        self.problems = []
        self.facts = {"file": path.name, "ort": 0.0, "openvino": 0.0, "draws": 0, "forks": 0}
        self.feeds, self.dense = self.run_original()

    def run_original(self):
        """Inputs and ONNX Runtime's outputs; one image where a constant inside fixes the batch that the declaration leaves open."""
        for batch in (self.runtimes.OPEN_BATCH, 1):
            feeds = self.runtimes.random_inputs(self.original, batch)
            try:
                outputs = self.runtimes.run_ort(self.original.path, feeds)
            except Exception:
                if batch == 1 or not self.runtimes.has_open_batch(self.original):
                    raise
                continue
            self.facts["batch"] = batch
            return feeds, outputs
        raise AssertionError("a batch of 1 either returns or raises")

    def check(self, problems, draw=None):
        """Notes problems, at most three of a kind: one mistake is often told by every node."""
        told = [f"draw {draw}: {p}" if draw is not None else p for p in problems]
        self.problems += told[:3] + ([f"and {len(told) - 3} more like it"] if len(told) > 3 else [])

    def run(self, quick, seed):
        """Cuts and compares; a refusal is a fact, not a problem, if expected.json knows it."""
        self.check_original()
        try:
            for keep, draws in draw_plan(quick):
                self.cut_in_portions(keep, draws, seed)
                seed += 1000
            self.check_counts()
        except Refused as refusal:
            self.facts["refused"] = str(refusal)
            if self.expected.get("refused") is None:
                self.check([f"refused: {refusal}"])
        self.check_logits(self.original.path, self.feeds, self.dense)
        return self.facts | {"problems": self.problems}

    def check_original(self):
        self.is_valid = self.checker_problem(self.original.path) is None
        with tempfile.TemporaryDirectory(prefix="secateur-onnx-") as folder:
            copy = pathlib.Path(folder) / self.original.path.name
            copy.symlink_to(self.original.path)
            self.link_external_data(pathlib.Path(folder))
            probe = self.runtimes.Probe(copy)
        self.facts["macs"] = probe.macs()
        self.stale_before = bool(probe.stale_shapes())

    def link_external_data(self, folder):
        for location in self.original.external_files():
            # Hard links: onnxruntime follows no symbolic link out of a model's folder.
            target = folder / location
            try:
                target.hardlink_to(self.original.path.parent / location)
            except OSError:
                target.write_bytes((self.original.path.parent / location).read_bytes())

    def checker_problem(self, path):
        import onnx

        try:
            onnx.checker.check_model(str(path), full_check=True)
        except Exception as error:
            return f"{path.name}: onnx.checker: {str(error).strip().splitlines()[0][:200]}"
        return None

    def cut_in_portions(self, keep, draws, seed):
        """Calls the tool for as many draws at a time as the disk has room for; each call's folder goes before the next."""
        size = self.original.path.stat().st_size
        size += sum((self.original.path.parent / f).stat().st_size for f in self.original.external_files())
        portion = max(1, min(draws, DISK_MAX // (2 * size) - 1))
        for first in range(0, draws, portion):
            with tempfile.TemporaryDirectory(prefix="secateur-onnx-") as folder:
                n = min(portion, draws - first)
                told = self.cut(pathlib.Path(folder), n, keep, seed + first)
                if "groups" not in self.facts:
                    self.note_groups(told)
                    self.check_whole(pathlib.Path(folder))
                for i in range(n):
                    self.check_draw(pathlib.Path(folder), i, told, keep)

    def cut(self, folder, draws, keep, seed):
        command = [self.tools["onnx_cut"], self.original.path, folder, "--draws", draws, "--seed", seed, "--keep", keep]
        shapes, chosen = self.runtimes.shapes_of_inputs(self.original, batch=1)
        if chosen and len(shapes) == 1:
            command += ["--shape", ",".join(map(str, *shapes.values()))]
        told = json.loads(call(command))
        if len(told["draws"]) != draws:
            self.check([f"{draws} draws asked for, {len(told['draws'])} told"])
        return told

    def note_groups(self, told):
        free = [g for g in told["groups"] if g["frozen"] is None and g["channels"] > 1]
        frozen = told["frozen_nodes"]
        self.facts |= {"groups": len(free), "channels": sum(g["channels"] for g in free), "frozen": len(frozen)}
        if frozen:
            self.facts["first_frozen"] = "{op} {node}: {reason}".format(**frozen[0])
        if told.get("macs") not in (None, self.facts["macs"]):
            self.check([f"the tool tells {told['macs']} MACs of the original, counted here: {self.facts['macs']}"])

    def check_whole(self, folder):
        import document

        self.check(document.whole_problems(self.original, folder))

    def check_draw(self, folder, i, told, keep):
        cut, masked = folder / f"cut_{i}.onnx", folder / f"masked_{i}.onnx"
        draw = self.facts["draws"]
        self.facts["draws"] += 1
        if missing := [path.name for path in (cut, masked) if not path.is_file()]:
            self.check([f"{missing[0]} was not written"], draw)
            return
        if self.is_valid:
            self.check([p for p in map(self.checker_problem, (cut, masked)) if p], draw)
        self.check_documents(cut, masked, draw)
        try:
            self.check_runs(cut, masked, draw)
            self.check_macs(cut, told["draws"][i].get("macs"), draw, keep)
        except Exception as error:
            self.check([f"does not run: {str(error).strip().splitlines()[0][:300]}"], draw)

    def check_documents(self, cut, masked, draw):
        import document

        cut, masked = document.Document(cut), document.Document(masked)
        forks, problems = document.structure_problems(self.original, cut)
        self.facts["forks"] = max(self.facts["forks"], len(forks))
        mask_forks, mask_problems = document.structure_problems(self.original, masked)
        # The values are compared for the first draw of the file alone: sorting millions of weights takes longer than running them.
        if draw == 0:
            problems += document.cut_value_problems(self.original, cut, forks)
            mask_problems += document.masked_value_problems(self.original, masked, mask_forks)
        self.check(problems, draw)
        self.check([f"masked: {p}" for p in mask_problems], draw)

    def check_runs(self, cut, masked, draw):
        reference = self.runtimes.run_ort(masked, self.feeds)
        outputs = self.runtimes.run_ort(cut, self.feeds)
        error = self.runtimes.worst_error(outputs, reference)
        self.facts["ort"] = max(self.facts["ort"], error)
        if not error <= TOLERANCE:
            self.check([f"ONNX Runtime: cut and masked differ by {error:.1e}"], draw)
        if self.facts["groups"] and self.runtimes.worst_error(reference, self.dense) == 0:
            self.check(["the masked file's outputs are the original's: nothing was masked"], draw)
        self.check_openvino(cut, masked, reference, draw)
        if draw == 0:
            self.check_logits(cut, self.feeds, outputs)

    def check_openvino(self, cut, masked, reference, draw):
        """Against ONNX Runtime's masked outputs; where that fails, against OpenVINO's own, since the runtimes may differ by more."""
        outputs = self.runtimes.run_openvino(cut, self.feeds)
        error = self.runtimes.worst_error(outputs, reference)
        if not error <= TOLERANCE:
            error = self.runtimes.worst_error(outputs, self.runtimes.run_openvino(masked, self.feeds))
        self.facts["openvino"] = max(self.facts["openvino"], error)
        if not error <= TOLERANCE:
            self.check([f"OpenVINO: cut and masked differ by {error:.1e}"], draw)

    def check_macs(self, cut, told, draw, keep):
        probe = self.runtimes.Probe(cut)
        macs = probe.macs()
        if not self.stale_before:
            self.check(probe.stale_shapes(), draw)
        if told not in (None, macs):
            self.check([f"the tool tells {told} MACs, counted here: {macs}"], draw)
        if self.facts["groups"] and not macs < self.facts["macs"]:
            self.check([f"{macs} MACs are no fewer than the original's {self.facts['macs']}"], draw)
        if keep == 0.5:
            self.facts.setdefault("halves", []).append(macs)

    def check_counts(self):
        for key in ("groups", "channels"):
            least = self.expected.get(key, 1)
            if self.facts[key] < least:
                self.check([f"{self.facts[key]} {key} are fewer than the {least} of expected.json"])

    def check_logits(self, path, feeds, outputs):
        """Our own engine's outputs, one after the other, for the same images."""
        import numpy as np

        if self.tools["onnx_logits"] is None or len(feeds) != 1:
            return
        with tempfile.TemporaryDirectory(prefix="secateur-onnx-") as folder:
            images, written = pathlib.Path(folder) / "images.f32", pathlib.Path(folder) / "outputs.f32"
            next(iter(feeds.values())).astype("<f4").tofile(images)
            try:
                call([self.tools["onnx_logits"], path, images, written])
            except Refused as refusal:
                self.facts["engine"] = str(refusal)
                return
            ours = np.fromfile(written, "<f4")
        for reference in (outputs, outputs[:1]):
            if ours.size == sum(o.size for o in reference):
                parts = np.split(ours, np.cumsum([o.size for o in reference])[:-1])
                pairs = [(a.reshape(o.shape), o) for a, o in zip(parts, reference, strict=True)]
                error = max(self.runtimes.relative_error(a, o) for a, o in pairs)
                self.facts["logits"] = max(self.facts.get("logits", 0.0), error)
                if not error <= LOGITS_TOLERANCE:
                    self.check([f"our engine's outputs of {path.name} differ from ONNX Runtime's by {error:.1e}"])
                return
        self.check([f"our engine wrote {ours.size} numbers for {path.name}, ONNX Runtime {[o.size for o in outputs]}"])


HEADER = f"{'file':32} {'groups':>6} {'channels':>8} {'MACs M':>8} {'half %':>6} {'ORT':>8} {'OpenVINO':>8} {'engine':>8} {'s':>4}  status"


def line_of(entry):
    """The table's line of one file."""
    halves = entry.get("halves")
    half = f"{100 * sum(halves) / len(halves) / entry['macs']:.0f}" if halves and entry.get("macs") else "-"
    macs = f"{entry['macs'] / 1e6:.2f}" if entry.get("macs") else "-"
    logits = f"{entry['logits']:.1e}" if "logits" in entry else "-"
    status = "ok"
    if entry["problems"]:
        status = f"FAILED ({len(entry['problems'])}): {entry['problems'][0]}"
    elif "refused" in entry:
        status = f"refused, as expected: {entry['refused']}"
    elif entry.get("frozen"):
        status = f"ok; {entry['frozen']} frozen, first {entry['first_frozen']}"
    errors = " ".join(f"{entry[key]:8.1e}" if entry.get("draws") else f"{'-':>8}" for key in ("ort", "openvino"))
    numbers = f"{entry.get('groups', '-'):>6} {entry.get('channels', '-'):>8} {macs:>8} {half:>6}"
    return f"{entry['file']:32} {numbers} {errors} {logits:>8} {entry['seconds']:4.0f}  {status[:200]}"


def compare(path, tools, expected, arguments):
    """The entry of one file; what stops its comparison altogether is a problem too."""
    start = time.monotonic()
    try:
        entry = Comparison(path, tools, expected).run(arguments.quick, arguments.seed)
    except Exception as error:
        entry = {"file": path.name, "problems": [f"{type(error).__name__}: {str(error).strip().splitlines()[0][:300]}"]}
    return entry | {"seconds": round(time.monotonic() - start, 1)}


def summary(entries):
    """Files and architectures, of which how many lose channels."""
    def prunable(group):
        return sum(1 for e in group if not e["problems"] and e.get("groups"))

    failed = sum(1 for e in entries if e["problems"])
    return f"{len(entries)} files: {prunable(entries)} pruned and right, {failed} failed"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=pathlib.Path, metavar="FILE.onnx", help="these files instead of the usual ones")
    parser.add_argument("--quick", action="store_true", help="3 draws in place of 20, and fewer files")
    parser.add_argument("--only", metavar="NAME", help="one architecture, or one file by its name")
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE", help="write every figure and problem")
    parser.add_argument("--exports", type=pathlib.Path, default=environment.cache_dir() / "onnx-exports", metavar="DIR")
    parser.add_argument("--published", type=pathlib.Path, metavar="DIR", help="default: onnx/ beside $SECATEUR_MODELS")
    parser.add_argument("--tools", type=pathlib.Path, metavar="DIR", help="folder of the built examples; without it cargo builds them")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--venv", help="folder of the virtual environment (see environment.py)")
    arguments = parser.parse_args()
    environment.run_inside(arguments.venv)
    files = choose_files(arguments)
    tools = find_tools(arguments)
    expected = json.loads((HERE / "expected.json").read_text())["files"]
    entries = []
    print(HEADER)
    for path in files:
        entries.append(compare(path, tools, expected.get(path.name, {}), arguments))
        print(line_of(entries[-1]), flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(entries, indent=1) + "\n")
    for entry in entries:
        for problem in entry["problems"]:
            print(f"{entry['file']}: {problem}", file=sys.stderr)
    print(summary(entries))
    sys.exit(1 if any(entry["problems"] for entry in entries) else 0)


if __name__ == "__main__":
    main()
