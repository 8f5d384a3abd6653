"""Prunes trained convolutional networks to a provable budget.

    import secateur

    result = secateur.run("scenes/quickstart.ron", out="runs/first")
    for task in result.tasks:
        print(task.name, task.accuracy, task.macs, task.model)

`Network` is one network by itself, `Search` and `Evaluator` a search whose candidates are scored wherever you like,
`secateur.torch` takes PyTorch modules over and cuts them.
"""

import json
import pathlib
from dataclasses import dataclass

from secateur import _progress, errors
from secateur._scene import Ron, make_spec as _make_spec, to_ron
from secateur._secateur import Candidate, Evaluator as _Evaluator, Network as _Network, Score, Search as _Search
from secateur._secateur import plan as _plan, run as _run
from secateur.errors import ArgumentError, IncompleteRun, Interrupted, ModuleError, RunFailed, SceneError, SecateurError

__all__ = [
    "ArgumentError",
    "BestCandidate",
    "Candidate",
    "Evaluation",
    "Evaluator",
    "IncompleteRun",
    "Interrupted",
    "ModuleError",
    "Network",
    "Ron",
    "RunFailed",
    "RunResult",
    "SceneError",
    "Score",
    "Search",
    "SecateurError",
    "TaskResult",
    "errors",
    "evaluate",
    "plan",
    "run",
    "to_ron",
]


@dataclass(frozen=True)
class TaskResult:
    """What a run found for a network, a data set and a budget."""

    directory: pathlib.Path
    """The run's directory."""
    summary: dict
    """The task's part of summary.json."""

    @property
    def name(self):
        return self.summary["name"]

    @property
    def accuracy(self):
        """Top-1 on the test split of the network that was written, [0, 1]; None without labels."""
        keys = ("test_accuracy_after_tuning", "test_accuracy_after_polish", "test_accuracy_before_tuning")
        return next((self.summary[key] for key in keys if self.summary.get(key) is not None), None)

    @property
    def macs(self):
        """Multiply-accumulates per image."""
        return self.summary["macs"]

    @property
    def params(self):
        return self.summary["params"]

    @property
    def cost(self):
        """What the network costs in the unit of its (first) budget."""
        return self.summary[self.summary["budget"]["kind"]]

    @property
    def budget(self):
        """kind, ratio and max of the (first) budget."""
        return self.summary["budget"]

    @property
    def model(self):
        """The network as safetensors."""
        return self.directory / self.summary["model_file"]

    @property
    def folder(self):
        """All of the task's files."""
        return self.model.parent

    @property
    def onnx(self):
        """The network as ONNX; None where it could not be written."""
        file = self.summary.get("onnx_file")
        return None if file is None else self.directory / file

    @property
    def plan(self):
        """plan.json, by which secateur.torch.to_module cuts a module; None where it could not be written."""
        file = self.summary.get("plan_file")
        return None if file is None else self.directory / file

    @property
    def certificate(self):
        """certificate.json: what was counted from the bytes of the written files."""
        return json.loads((self.folder / "certificate.json").read_text())

    def network(self, **choices):
        """The network, as Network.load reads it."""
        return Network.load(self.model, **choices)


@dataclass(frozen=True)
class RunResult:
    """What a run found."""

    directory: pathlib.Path
    """The run's directory."""
    summary: dict
    """summary.json."""

    @property
    def tasks(self):
        """A TaskResult for each task that has a network, in the order of the scene."""
        return [TaskResult(self.directory, task) for task in self.summary["tasks"]]

    def __getitem__(self, name):
        """The task of this name."""
        found = [task for task in self.tasks if task.name == name]
        if not found:
            raise KeyError(f"no task '{name}'; there are {', '.join(task.name for task in self.tasks)}")
        return found[0]

    @classmethod
    def _of(cls, ran):
        directory, summary = ran
        return cls(pathlib.Path(directory), json.loads(summary))


def run(scene, out=None, progress=None, threads=None, *, sets=(), resume=False, data_root=None, model_root=None, memory=None, checkpoint_every_s=30.0):
    """Runs a scene, as `secateur run` does, and returns a RunResult.

    scene: path of a scene file, or a dict of its fields over the defaults: a string is what stands behind `field:` in a scene
    (`{"agent": "Random"}`); within lists and dicts strings are quoted, and Ron("Macs(ratio: 0.5)") is not. sets: changes, as
    ["walks_per_task=50"] or {"walks_per_task": 50}. progress: None for bars if tqdm is there, False for silence, or a function of
    (kind, name, done, total). Raises Interrupted on Ctrl-C, with what there is as its `result`.
    """
    spec = _make_spec(
        scene, sets=sets, out=out, resume=resume, checkpoint_every_s=checkpoint_every_s, data_root=data_root, model_root=model_root, threads=threads, memory=memory
    )
    return RunResult._of(_run(spec, _progress.watching(progress)))


def plan(scene, progress=None, threads=None, *, weights="probed", sets=(), data_root=None, model_root=None, memory=None):
    """Widths, cost and expected accuracy for every task without a search, as `secateur plan --json` prints them: a dict."""
    spec = _make_spec(scene, sets=sets, data_root=data_root, model_root=model_root, threads=threads, memory=memory)
    return json.loads(_plan(spec, weights, _progress.watching(progress)))


class Network:
    """A network by itself: what it is, what it computes, and fewer of its channels."""

    def __init__(self, inner):
        self._inner = inner

    @classmethod
    def load(cls, path, *, arch=None, mean=None, std=None, size=None, protocol="full", model_root=None, threads=None):
        """Reads safetensors, .pth, .th or ONNX. size: rows and columns where the file leaves them open; protocol: 'full', or 'inner' to
        leave residual streams whole."""
        return cls(_Network.load(path, arch=arch, mean=mean, std=std, size=size, protocol=protocol, model_root=model_root, threads=threads))

    @classmethod
    def from_onnx(cls, model, *, size=None, mean=None, std=None, protocol="full", threads=None):
        """A network of an ONNX file, or of its bytes (also an onnx.ModelProto)."""
        import tempfile

        if hasattr(model, "SerializeToString"):
            model = model.SerializeToString()
        if not isinstance(model, (bytes, bytearray, memoryview)):
            return cls.load(model, size=size, mean=mean, std=std, protocol=protocol, threads=threads)
        with tempfile.TemporaryDirectory(prefix="secateur-") as folder:
            path = pathlib.Path(folder) / "network.onnx"
            path.write_bytes(model)
            return cls.load(path, size=size, mean=mean, std=std, protocol=protocol, threads=threads)

    def inspect(self):
        """name, input, classes, groups (name, channels, kept, why frozen), macs, params, activation_bytes: a dict."""
        return json.loads(self._inner._inspect())

    @property
    def widths(self):
        """Channels of every group that may be pruned, by name."""
        return {group["name"]: group["kept"] for group in self.inspect()["groups"] if group["frozen"] is None}

    @property
    def macs(self):
        """Multiply-accumulates per image."""
        return self.inspect()["macs"]

    @property
    def params(self):
        return self.inspect()["params"]

    def prune(self, widths, images=None, *, outputs="logits", progress=None):
        """A network with so many channels of each group that is named, and all of the others; or with a share of the channels of all
        groups, `prune(0.7)`.

        Without images it keeps the channels of largest L2 norm, with the weights that they had. With images, as for `logits`, it is
        repaired as the winner of a run is: channels are chosen by what their readers lose, and the weights of the readers are refitted
        by least squares so that the outputs on these images stay what they were. A few hundred images do, more are better; no labels
        are read. outputs: 'logits' of classes, whose probabilities are kept, or 'values', each of which is.
        """
        if outputs not in ("logits", "values"):
            raise ArgumentError(f"outputs: expected 'logits' or 'values', got {outputs!r}")
        if isinstance(widths, (int, float)) and not isinstance(widths, bool):
            if not 0 < widths <= 1:
                raise ArgumentError(f"widths: expected a share in (0, 1] or a dict of widths, got {widths}")
            widths = {name: max(1, round(widths * n)) for name, n in self.widths.items()}
        pruned = self._inner.prune({str(name): int(width) for name, width in dict(widths).items()})
        if images is not None:
            pruned = pruned._refitted(_images(images), outputs == "values", _progress.watching(progress))
        return type(self)(pruned)

    def save(self, folder):
        """Writes model.safetensors, model.onnx, plan.json and cut.py into a folder."""
        self._inner.save(folder)

    def logits(self, images):
        """Outputs [N, outputs] of images [N, C, H, W]: uint8 pixels, which are normalised as the network expects, or float32 that are
        what it reads."""
        import numpy

        images = _images(images)
        out = numpy.empty((len(images), self.inspect()["classes"]), dtype=numpy.float32)
        self._inner._logits(images, out)
        return out

    def __repr__(self):
        return repr(self._inner)


@dataclass(frozen=True)
class Evaluation:
    """Images that were predicted as their label, and all that were looked at."""

    n_correct: int
    n: int

    @property
    def top1(self):
        return self.n_correct / self.n


def evaluate(network, images, labels):
    """Top-1 of a network, as `secateur eval` counts it. images as for Network.logits; labels: integers [N]."""
    import numpy

    images, labels = _images(images), numpy.asarray(_array(labels, "labels"))
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise ArgumentError(f"labels: expected integers of shape [N], got {labels.dtype} of shape {list(labels.shape)}")
    n_outputs = network.inspect()["classes"]
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < n_outputs:
        raise ArgumentError(f"labels: expected 0 to {n_outputs - 1}, as the network has {n_outputs} outputs, got {labels.min()} to {labels.max()}")
    if len(images) == 0:
        raise ArgumentError("images: expected at least one")
    return Evaluation(network._inner._n_correct(images, labels.tolist()), len(images))


def _array(values, what):
    """The array of a tensor, without a copy."""
    if hasattr(values, "is_cuda"):
        if values.is_cuda:
            raise ArgumentError(f"{what}: is on {values.device}, and scored on the processor: call .cpu() first")
        return values.detach().numpy()
    return values


def _images(images):
    import numpy

    images = numpy.asarray(_array(images, "images"))
    if images.dtype not in (numpy.uint8, numpy.float32):
        raise ArgumentError(f"images: expected uint8 (pixels) or float32 (what the network reads), got {images.dtype}")
    if images.ndim != 4:
        raise ArgumentError(f"images: expected shape [N, C, H, W], got {list(images.shape)}")
    # A view with other strides is copied; what is contiguous is read where it lies.
    return numpy.ascontiguousarray(images)


class Evaluator:
    """Scores candidates of a scene; can be pickled. Of one scene, data, build and instruction set every evaluator gives the same scores,
    bit for bit, in any process and any order."""

    def __init__(self, scene, *, threads=None, sets=(), data_root=None, model_root=None, memory=None):
        self._inner = _Evaluator(_make_spec(scene, sets=sets, data_root=data_root, model_root=model_root, threads=threads, memory=memory))

    @classmethod
    def of_worker_inputs(cls, inputs, *, threads=None, may_differ=False):
        """An evaluator of what Search.worker_inputs gave, or of an array of these bytes. Raises ArgumentError on a machine that computes
        other last digits than the search's (another instruction set, or another build of secateur), unless it may differ; `difference`
        says how it does then."""
        return cls._of(_Evaluator.of_worker_inputs(inputs, threads, may_differ))

    @property
    def difference(self):
        """How scores may differ from those of the search's own machine; None where they do not."""
        return self._inner.difference

    def prepare(self, progress=False):
        """Reads networks and images now instead of with the first score."""
        self._inner.prepare(_progress.watching(progress))
        return self

    def score(self, candidate):
        """The Score of a Candidate."""
        return self._inner.score(candidate)

    @classmethod
    def _of(cls, inner):
        made = cls.__new__(cls)
        made._inner = inner
        return made

    @classmethod
    def _of_spec(cls, spec):
        return cls._of(_Evaluator(spec))

    def __reduce__(self):
        _, arguments = self._inner.__reduce__()
        return (Evaluator._of_spec, arguments)


@dataclass(frozen=True)
class BestCandidate:
    """The best candidate of a task so far, before any final refit."""

    task: str
    candidate: Candidate
    score: Score
    reward: float


class Search:
    """The search of a scene's agent, whose candidates you score.

    search = secateur.Search("scene.ron", out="runs/first")
    evaluator = search.evaluator()
    while not search.done:
        for candidate in search.ask(8):
            search.tell(candidate, evaluator.score(candidate))
    result = search.finish()    # the run, with these scores: the same summary.json as secateur.run gives
    """

    def __init__(
        self, scene, *, out=None, resume=False, threads=None, progress=None, sets=(), data_root=None, model_root=None, memory=None, _file=None
    ):
        """resume: whether finish may go on with a run of this scene in `out` that did not end."""
        spec = _make_spec(scene, sets=sets, out=out, resume=resume, data_root=data_root, model_root=model_root, threads=threads, memory=memory)
        self._inner = _Search(spec, _file, _progress.watching(progress))

    @classmethod
    def load(cls, file, scene, **means):
        """A search that goes on with what one of the same scene was told until it was saved."""
        return cls(scene, _file=file, **means)

    def save(self, file):
        """Writes what was told to a file; what was asked and not told is asked again after load."""
        self._inner.save(file)

    def ask(self, n=1):
        """Up to n candidates. An empty list says that nothing new comes before one that was handed out is told, or that the search is
        done. At most actors_per_task candidates of each task can be out at a time. Under the scheduler Lockstep new ones come once all
        of these are told, whatever their order; under Async each that is told makes place for the next."""
        if n < 1:
            raise ArgumentError(f"n: expected at least 1, got {n}")
        return self._inner.ask(n)

    def tell(self, candidate, score):
        """Gives a candidate its Score."""
        self._inner.tell(candidate, score)

    def ask_again(self):
        """Takes back what was handed out and not told, because whoever had it is gone. Returns how many can be asked for now."""
        return self._inner.ask_again()

    @property
    def done(self):
        """Whether every walk is walked and told."""
        return self._inner.is_done

    @property
    def n_told(self):
        return self._inner.n_told

    def best(self):
        """A BestCandidate for each task that has one."""
        return [BestCandidate(*best) for best in self._inner.best()]

    @property
    def progress(self):
        """Walks that were paid (or scored candidates, where the scene's `ends_after` counts these), and how many there will be."""
        return self._inner.progress

    def worker_inputs(self):
        """What Evaluator.of_worker_inputs needs in a process that has neither the scene nor its files: bytes, about as many as the images
        that walks are refitted and paid on have."""
        return self._inner.worker_inputs()

    def evaluator(self):
        """An Evaluator that shares what the search has prepared; pickled, it prepares again where it arrives."""
        return Evaluator._of(self._inner.evaluator())

    def finish(self, progress=None):
        """Runs controls, final refits and certificates with the scores that were told: a RunResult, in `out`."""
        return RunResult._of(self._inner.finish(_progress.watching(progress)))
