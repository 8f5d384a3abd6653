import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from secateur import RunResult

def run(
    scene: str | os.PathLike[str] | dict[str, Any],
    out: str | os.PathLike[str],
    address: str | None = "auto",
    *,
    num_workers: int | None = None,
    cpus_per_worker: int = 1,
    in_flight_per_worker: int = 2,
    may_differ: bool = False,
    resume: bool = False,
    checkpoint_every_s: float = 30.0,
    progress: None | bool | Callable[[str, str, int, int], object] = None,
    threads: int | None = None,
    sets: Iterable[str] | Mapping[str, Any] = (),
    data_root: str | os.PathLike[str] | None = None,
    model_root: str | os.PathLike[str] | None = None,
    memory: int | None = None,
) -> RunResult: ...
