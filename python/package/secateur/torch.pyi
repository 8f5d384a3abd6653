import os
from collections.abc import Iterable
from typing import Any, TypeVar

import numpy
import torch
from numpy.typing import NDArray

from secateur import Network, TaskResult
from secateur._graph_module import GraphModule

_Module = TypeVar("_Module", bound=torch.nn.Module)

TOLERANCE: float

def from_module(
    module: torch.nn.Module,
    example_input: torch.Tensor,
    *,
    mean: list[float] | None = None,
    std: list[float] | None = None,
    protocol: str = "full",
    threads: int | None = None,
    tolerance: float = ...,
) -> Network: ...
def to_module(
    network: Network | TaskResult | str | os.PathLike[str], module: _Module | None = None, *, tolerance: float = ...
) -> _Module | GraphModule: ...
def data(loader: Iterable[Any], n: int) -> tuple[NDArray[Any], NDArray[numpy.int64]]: ...
