"""Cuts one ONNX file with the example onnx_cut, many times at random, and checks what comes out. compare.py says what is checked."""

import json
import pathlib
import subprocess
import tempfile

import numpy as np
import onnx

import document
import runtimes

TOLERANCE = 1e-5
LOGITS_TOLERANCE = 1e-4
# Draws are made in several calls of the tool, so that their files never take more than this.
DISK_MAX = 2 << 30
TIMEOUT_S = 600


class Refused(Exception):
    """The tool does not take the file, in its own words."""


def draw_plan(quick):
    """Share of channels kept and number of draws: mostly half, once nearly all, once a single channel of each group."""
    return [(0.5, 1 if quick else 18), (0.9, 1), (0.001, 1)]


def in_one_line(error):
    """The beginning of an error's text without its line breaks."""
    return " ".join(str(error).split())[:300]


def call(command):
    """Standard output of a tool, or Refused with the last line that it wrote to standard error."""
    try:
        done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        raise Refused(f"{pathlib.Path(command[0]).name} took more than {TIMEOUT_S} s") from None
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode} and no word"]
        raise Refused(lines[-1])
    return done.stdout


class Comparison:
    """All checks of one file. `problems` holds a sentence for each that failed, `facts` what the table shows."""

    def __init__(self, path, tools, expected):
        self.tools, self.expected = tools, expected
        self.open_sizes = expected.get("open_sizes")
        self.original = document.Document(path)
        self.problems = []
        self.facts = {"file": path.name, "ort": 0.0, "openvino": 0.0, "draws": 0, "forks": 0}
        self.feeds, self.dense = self.run_original()

    def run_original(self):
        """Inputs and ONNX Runtime's outputs; one image where a constant inside fixes the batch that the declaration leaves open."""
        for batch in (runtimes.OPEN_BATCH, 1):
            feeds = runtimes.random_inputs(self.original, batch, self.open_sizes)
            try:
                outputs = runtimes.run_ort(self.original.path, feeds)
            except Exception:
                if batch == 1 or not runtimes.has_open_batch(self.original):
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
            probe = runtimes.Probe(copy, self.open_sizes)
        self.facts["macs"] = probe.macs()
        self.was_stale = bool(probe.stale_shapes())

    def link_external_data(self, folder):
        for location in self.original.external_files():
            # Hard links: onnxruntime follows no symbolic link out of a model's folder.
            target = folder / location
            try:
                target.hardlink_to(self.original.path.parent / location)
            except OSError:
                target.write_bytes((self.original.path.parent / location).read_bytes())

    def checker_problem(self, path):
        try:
            onnx.checker.check_model(str(path), full_check=True)
        except Exception as error:
            return f"{path.name}: onnx.checker: {in_one_line(error)}"
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
                    self.check_refitted(pathlib.Path(folder), told)
                for i in range(n):
                    self.check_draw(pathlib.Path(folder), i, told, keep)

    def cut(self, folder, draws, keep, seed):
        options = ["--draws", draws, "--seed", seed, "--keep", keep, *self.size_option()]
        printed = call([self.tools["onnx_cut"], self.original.path, folder, *options])
        try:
            told = json.loads(printed)
        except json.JSONDecodeError as error:
            raise ValueError(f"onnx_cut printed no JSON object ({error}), but: {in_one_line(printed)}") from None
        if len(told["draws"]) != draws:
            self.check([f"{draws} draws asked for, {len(told['draws'])} told"])
        return told

    def size_option(self):
        """Tells the tools the rows and columns of the input where the file leaves them open."""
        shapes, is_chosen = runtimes.shapes_of_inputs(self.original, 1, self.open_sizes)
        return ["--size", *next(iter(shapes.values()))[2:4]] if is_chosen else []

    def note_groups(self, told):
        free = [g for g in told["groups"] if g["frozen"] is None and g["channels"] > 1]
        frozen = told["frozen_nodes"]
        self.facts |= {"groups": len(free), "channels": sum(g["channels"] for g in free), "frozen": len(frozen)}
        if frozen:
            self.facts["first_frozen"] = "{op} {node}: {reason}".format(**frozen[0])
        if told.get("macs") not in (None, self.facts["macs"]):
            self.check([f"the tool tells {told['macs']} MACs of the original, counted here: {self.facts['macs']}"])

    def check_whole(self, folder):
        self.check(document.whole_problems(self.original, folder))

    def check_refitted(self, folder, told):
        """Other weights, with and without BatchNorm: both files compute the same, and our engine what ONNX Runtime does."""
        if "refused" in told["refitted"]:
            self.facts["refit"] = told["refitted"]["refused"]
            return
        refitted, folded = folder / "refitted.onnx", folder / "folded.onnx"
        if self.is_valid:
            self.check([p for p in map(self.checker_problem, (refitted, folded)) if p])
        self.check(document.kept_problems(self.original, document.Document(refitted)))
        outputs = runtimes.run_ort(refitted, self.feeds)
        for name, others in (
            ("OpenVINO of the refitted file", runtimes.run_openvino(refitted, self.feeds)),
            ("the file without BatchNorm", runtimes.run_ort(folded, self.feeds)),
        ):
            error = runtimes.worst_error(others, outputs)
            if not error <= TOLERANCE:
                self.check([f"refitted: {name} differs by {error:.1e} from ONNX Runtime of the refitted file"])
        self.check_logits(refitted, self.feeds, outputs)

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
            self.check([f"does not run: {in_one_line(error)}"], draw)

    def check_documents(self, cut, masked, draw):
        cut, masked = document.Document(cut), document.Document(masked)
        forks, problems = document.structure_problems(self.original, cut)
        self.facts["forks"] = max(self.facts["forks"], len(forks))
        mask_forks, mask_problems = document.structure_problems(self.original, masked)
        mask_problems += document.resized(self.original, masked, mask_forks)
        # The values are compared for the first draw of the file alone: sorting millions of weights takes longer than running them.
        if draw == 0:
            problems += document.cut_value_problems(self.original, cut, forks)
            mask_problems += document.masked_value_problems(self.original, masked, mask_forks)
        self.check(problems, draw)
        self.check([f"masked: {p}" for p in mask_problems], draw)

    def check_runs(self, cut, masked, draw):
        reference = runtimes.run_ort(masked, self.feeds)
        outputs = runtimes.run_ort(cut, self.feeds)
        error = runtimes.worst_error(outputs, reference)
        self.facts["ort"] = max(self.facts["ort"], error)
        if not error <= TOLERANCE:
            self.check([f"ONNX Runtime: cut and masked differ by {error:.1e}"], draw)
        if self.facts["groups"] and runtimes.worst_error(reference, self.dense) == 0:
            self.check(["the masked file's outputs are the original's: nothing was masked"], draw)
        self.check_openvino(cut, masked, reference, draw)
        if draw == 0:
            self.check_logits(cut, self.feeds, outputs)

    def check_openvino(self, cut, masked, reference, draw):
        """Against ONNX Runtime's masked outputs; where that fails, against OpenVINO's own, since the runtimes may differ by more."""
        outputs = runtimes.run_openvino(cut, self.feeds)
        error = runtimes.worst_error(outputs, reference)
        if not error <= TOLERANCE:
            error = runtimes.worst_error(outputs, runtimes.run_openvino(masked, self.feeds))
        self.facts["openvino"] = max(self.facts["openvino"], error)
        if not error <= TOLERANCE:
            self.check([f"OpenVINO: cut and masked differ by {error:.1e}"], draw)

    def check_macs(self, cut, told, draw, keep):
        probe = runtimes.Probe(cut, self.open_sizes)
        macs = probe.macs()
        if not self.was_stale:
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
        if self.tools["onnx_logits"] is None or len(feeds) != 1:
            return
        with tempfile.TemporaryDirectory(prefix="secateur-onnx-") as folder:
            images, written = pathlib.Path(folder) / "images.f32", pathlib.Path(folder) / "outputs.f32"
            next(iter(feeds.values())).astype("<f4").tofile(images)
            try:
                ends = call([self.tools["onnx_logits"], path, images, written, *self.size_option()]).strip()
            except Refused as refusal:
                self.facts["engine"] = str(refusal)
                if self.expected.get("engine") is None:
                    self.check([f"our engine: refused: {refusal}"])
                return
            ours = np.fromfile(written, "<f4")
        if ends:
            outputs = runtimes.run_ort_up_to(path, feeds, json.loads(ends))
            self.facts["engine"] = f"computes {len(outputs)} tensors in front of the outputs"
        for reference in (outputs, outputs[:1]):
            if ours.size == sum(o.size for o in reference):
                parts = np.split(ours, np.cumsum([o.size for o in reference])[:-1])
                pairs = [(a.reshape(o.shape), o) for a, o in zip(parts, reference, strict=True)]
                error = max(runtimes.relative_error(a, o) for a, o in pairs)
                self.facts["logits"] = max(self.facts.get("logits", 0.0), error)
                if not error <= LOGITS_TOLERANCE:
                    self.check([f"our engine's outputs of {path.name} differ from ONNX Runtime's by {error:.1e}"])
                return
        self.check([f"our engine wrote {ours.size} numbers for {path.name}, ONNX Runtime {[o.size for o in outputs]}"])
