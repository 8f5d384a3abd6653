import os
import pathlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy
from numpy.typing import ArrayLike, NDArray

from secateur import errors as errors
from secateur._scene import Ron as Ron, to_ron as to_ron
from secateur._secateur import Candidate as Candidate, Score as Score
from secateur.errors import (
    ArgumentError as ArgumentError,
    IncompleteRun as IncompleteRun,
    Interrupted as Interrupted,
    ModuleError as ModuleError,
    RunFailed as RunFailed,
    SceneError as SceneError,
    SecateurError as SecateurError,
)

_Path = str | os.PathLike[str]
_Scene = _Path | dict[str, Any]
_Sets = Iterable[str] | Mapping[str, Any]
_Progress = None | bool | Callable[[str, str, int, int], object]

@dataclass(frozen=True)
class TaskResult:
    directory: pathlib.Path
    summary: dict[str, Any]
    @property
    def name(self) -> str: ...
    @property
    def accuracy(self) -> float | None: ...
    @property
    def macs(self) -> int: ...
    @property
    def params(self) -> int: ...
    @property
    def cost(self) -> int: ...
    @property
    def budget(self) -> dict[str, Any]: ...
    @property
    def model(self) -> pathlib.Path: ...
    @property
    def folder(self) -> pathlib.Path: ...
    @property
    def onnx(self) -> pathlib.Path | None: ...
    @property
    def plan(self) -> pathlib.Path | None: ...
    @property
    def certificate(self) -> dict[str, Any]: ...
    def network(self, **choices: Any) -> Network: ...

@dataclass(frozen=True)
class RunResult:
    directory: pathlib.Path
    summary: dict[str, Any]
    @property
    def tasks(self) -> list[TaskResult]: ...
    def __getitem__(self, name: str) -> TaskResult: ...

def run(
    scene: _Scene,
    out: _Path | None = None,
    progress: _Progress = None,
    threads: int | None = None,
    *,
    sets: _Sets = (),
    resume: bool = False,
    data_root: _Path | None = None,
    model_root: _Path | None = None,
    memory: int | None = None,
    checkpoint_every_s: float = 30.0,
) -> RunResult: ...
def plan(
    scene: _Scene,
    progress: _Progress = None,
    threads: int | None = None,
    *,
    weights: str = "probed",
    sets: _Sets = (),
    data_root: _Path | None = None,
    model_root: _Path | None = None,
    memory: int | None = None,
) -> dict[str, Any]: ...

class Network:
    @classmethod
    def load(
        cls,
        path: _Path,
        *,
        arch: str | None = None,
        mean: list[float] | None = None,
        std: list[float] | None = None,
        size: tuple[int, int] | None = None,
        protocol: str = "full",
        model_root: _Path | None = None,
        threads: int | None = None,
    ) -> Self: ...
    @classmethod
    def from_onnx(
        cls,
        model: Any,
        *,
        size: tuple[int, int] | None = None,
        mean: list[float] | None = None,
        std: list[float] | None = None,
        protocol: str = "full",
        threads: int | None = None,
    ) -> Self: ...
    def inspect(self) -> dict[str, Any]: ...
    @property
    def widths(self) -> dict[str, int]: ...
    @property
    def macs(self) -> int: ...
    @property
    def params(self) -> int: ...
    def prune(
        self,
        widths: Mapping[str, int] | float,
        images: Any | None = None,
        *,
        outputs: Literal["logits", "values"] = "logits",
        progress: _Progress = None,
    ) -> Self: ...
    def save(self, folder: _Path) -> None: ...
    def logits(self, images: ArrayLike) -> NDArray[numpy.float32]: ...

@dataclass(frozen=True)
class Evaluation:
    n_correct: int
    n: int
    @property
    def top1(self) -> float: ...

def evaluate(network: Network, images: ArrayLike, labels: ArrayLike) -> Evaluation: ...

class Evaluator:
    def __init__(
        self,
        scene: _Scene,
        *,
        threads: int | None = None,
        sets: _Sets = (),
        data_root: _Path | None = None,
        model_root: _Path | None = None,
        memory: int | None = None,
    ) -> None: ...
    @classmethod
    def of_worker_inputs(cls, inputs: Any, *, threads: int | None = None, may_differ: bool = False) -> Self: ...
    @property
    def difference(self) -> str | None: ...
    def prepare(self, progress: _Progress = False) -> Self: ...
    def score(self, candidate: Candidate) -> Score: ...

@dataclass(frozen=True)
class BestCandidate:
    task: str
    candidate: Candidate
    score: Score
    reward: float

class Search:
    def __init__(
        self,
        scene: _Scene,
        *,
        out: _Path | None = None,
        resume: bool = False,
        threads: int | None = None,
        progress: _Progress = None,
        sets: _Sets = (),
        data_root: _Path | None = None,
        model_root: _Path | None = None,
        memory: int | None = None,
    ) -> None: ...
    @classmethod
    def load(cls, file: _Path, scene: _Scene, **means: Any) -> Self: ...
    def save(self, file: _Path) -> None: ...
    def ask(self, n: int = 1) -> list[Candidate]: ...
    def tell(self, candidate: Candidate, score: Score) -> None: ...
    def ask_again(self) -> int: ...
    @property
    def done(self) -> bool: ...
    @property
    def n_told(self) -> int: ...
    def best(self) -> list[BestCandidate]: ...
    @property
    def progress(self) -> tuple[int, int]: ...
    def worker_inputs(self) -> bytes: ...
    def evaluator(self) -> Evaluator: ...
    def finish(self, progress: _Progress = None) -> RunResult: ...
