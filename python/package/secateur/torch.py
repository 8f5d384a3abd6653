"""PyTorch modules in and out. `import torch` happens when a function is called, not before.

    network = secateur.torch.from_module(module.eval(), torch.randn(1, 3, 224, 224))
    smaller = network.prune(0.7)
    secateur.torch.to_module(smaller, module)      # the same object, of your own class: train it on, export it
    secateur.torch.to_module(smaller)              # or a plain module of the network's operations, without your class

A task of a run is cut into a module in the same way: `to_module(result.tasks[0], module)`.
"""

import copy
import importlib.util
import json
import pathlib
import tempfile
import warnings

import secateur
from secateur.errors import ArgumentError, ModuleError

TOLERANCE = 1e-4


def from_module(module, example_input, *, mean=None, std=None, protocol="full", threads=None, tolerance=TOLERANCE):
    """The Network that a module in evaluation mode computes, exported through torch.onnx.

    example_input: float32 [N, C, H, W] on the processor, which the module is traced with; its size is the network's. mean, std: what
    the module expects its images to be normalised by, for pixels; without them float images are what the module reads. The network's
    outputs must be the module's, relative to the largest, to `tolerance`; else ModuleError names the first layer that differs.
    """
    import torch

    example = _check(torch, module, example_input)
    channels, expected = example.shape[1], _outputs(torch, module, example).numpy()
    with tempfile.TemporaryDirectory(prefix="secateur-torch-") as folder:
        path = pathlib.Path(folder) / "module.onnx"
        traced_code = _export(torch, module, example, path)
        choices = {"mean": mean or [0.0] * channels, "std": std or [1.0] * channels, "protocol": protocol, "threads": threads}
        network = secateur.Network.load(path, **choices)
        _check_outputs(network, module, example, expected, tolerance, traced_code)
    return network


def to_module(network, module=None, *, tolerance=TOLERANCE):
    """Cuts `module` in place to what `network` is, and returns it: the class is yours, its layers lose channels and get the network's
    weights. network: a Network that was pruned, a TaskResult of a run, or a task's folder. module: what the network came from, in
    float32, with the weights that it had then. Its outputs must be those that are stored to `tolerance`, else ModuleError names
    the first layer that differs; then the module is what it was. Make optimisers afterwards: parameters are new ones.

    Without a module, and with a warning where the class of `module` cannot be resized (numbers of channels in its code, parametrised
    weights), a plain torch.nn.Module of the network's operations is returned, which computes the same, trains and
    exports; `module` stays what it was.
    """
    import torch

    if module is not None:
        if not isinstance(module, torch.nn.Module):
            raise ModuleError(f"module: expected a torch.nn.Module, got {type(module).__name__}")
        _check_tensors(torch, module)
    if isinstance(network, secateur.Network):
        with tempfile.TemporaryDirectory(prefix="secateur-torch-") as folder:
            network.save(folder)
            return _cut_or_made(module, pathlib.Path(folder), tolerance)
    folder = network.folder if isinstance(network, secateur.TaskResult) else pathlib.Path(network)
    if not (folder / "plan.json").is_file():
        raise ModuleError(f"'{folder}' has no plan.json: give a pruned Network, a task of a run, or its folder")
    return _cut_or_made(module, folder, tolerance)


def data(loader, n):
    """The first n images and labels of a DataLoader (or any iterable of (images, labels)), or of a pair of arrays: two numpy arrays,
    images [N, C, H, W] as float32 or uint8 and labels int64 [N]. They can be given to secateur.evaluate, and saved with numpy.save for
    a scene's `Arrays(images: …, labels: …, layout: Nchw, floats: Normalised)`."""
    import numpy

    if n < 1:
        raise ArgumentError(f"n: expected at least 1, got {n}")
    is_pair = isinstance(loader, (tuple, list)) and len(loader) == 2 and hasattr(loader[0], "shape")
    images, labels, found = [], [], 0
    for batch in [loader] if is_pair else loader:
        if not (isinstance(batch, (tuple, list)) and len(batch) >= 2):
            raise ArgumentError(f"loader: expected batches of (images, labels), got a {type(batch).__name__}")
        batch_images, batch_labels = (numpy.asarray(secateur._array(part, "loader")) for part in batch[:2])
        if batch_images.ndim != 4 or len(batch_images) != len(batch_labels):
            shapes = f"{list(batch_images.shape)} and {list(batch_labels.shape)}"
            raise ArgumentError(f"loader: expected images [N, C, H, W] and labels [N], got {shapes}")
        images.append(batch_images[: n - found])
        labels.append(batch_labels[: n - found])
        found += len(images[-1])
        if found == n:
            break
    if found < n:
        raise ArgumentError(f"loader: has {found} images, {n} were asked for")
    return secateur._images(numpy.concatenate(images)), numpy.concatenate(labels).astype(numpy.int64)


def _check(torch, module, example):
    """The example, contiguous."""
    if not isinstance(module, torch.nn.Module):
        raise ModuleError(f"module: expected a torch.nn.Module, got {type(module).__name__}")
    training = [name or "the module" for name, part in module.named_modules() if part.training]
    if training:
        raise ModuleError(f"{training[0]} is in training mode, in which outputs depend on the batch: call module.eval() first")
    _check_tensors(torch, module)
    if not isinstance(example, torch.Tensor):
        raise ArgumentError(f"example_input: expected a torch.Tensor, got {type(example).__name__}")
    if example.device.type != "cpu":
        raise ArgumentError(f"example_input: is on {example.device}: call .cpu() first")
    if example.dtype != torch.float32:
        raise ArgumentError(f"example_input: expected torch.float32, got {example.dtype}: call .float() first")
    if example.dim() != 4 or 0 in example.shape:
        raise ArgumentError(f"example_input: expected shape [N, C, H, W], got {list(example.shape)}")
    return example.detach().contiguous()


def _check_tensors(torch, module):
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        if tensor.device.type != "cpu":
            raise ModuleError(f"'{name}' is on {tensor.device}, and modules are taken over on the processor: call module.cpu() first")
        if tensor.is_floating_point() and tensor.dtype != torch.float32:
            raise ModuleError(f"'{name}' is {tensor.dtype}, expected torch.float32: call module.float() first")


def _export(torch, module, example, path):
    """Writes `path`; returns where the module's code takes a decision by values that a trace cannot see, if it does.

    The TorchScript exporter is quick and knows every operation of the networks that are pruned, but follows one path through the code
    and only warns of decisions; then torch.export, which does not trace what it cannot, has to agree.
    """
    names = {"input_names": ["input"], "output_names": ["output"]}
    images = example if len(example) > 1 else example.repeat(2, 1, 1, 1)
    decisions, failure = [], None
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            axes = {"input": {0: "batch"}, "output": {0: "batch"}}
            torch.onnx.export(module, images, str(path), dynamo=False, dynamic_axes=axes, **names)
        except Exception as error:
            failure = error
        for warning in caught:
            if issubclass(warning.category, torch.jit.TracerWarning):
                decisions.append(f"{warning.filename}:{warning.lineno}")
    if failure is None and not decisions:
        return None
    for made in path.parent.iterdir():
        made.unlink()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            shapes = ({0: torch.export.Dim("batch")},)
            torch.onnx.export(module, (images,), str(path), dynamo=True, dynamic_shapes=shapes, external_data=False, verbose=False, **names)
    except Exception as error:
        where = f"; its code decides by values at {decisions[0]}" if decisions else ""
        first = _first_line(failure or error)
        raise ModuleError(f"the module cannot be traced{where}: {first}; let what depends on values be outside of the module") from error
    return decisions[0] if decisions else None


def _first_line(error):
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__} {lines[0][:300] if lines else ''}".strip()


def _outputs(torch, module, images):
    with torch.no_grad():
        output = module(images)
    if not isinstance(output, torch.Tensor):
        raise ModuleError(f"the module returns a {type(output).__name__}, expected one tensor: wrap it in a module that returns one")
    return output.flatten(1)


def _check_outputs(network, module, example, expected, tolerance, decision):
    found = network.logits(example.numpy())
    if expected.shape != found.shape:
        raise ModuleError(f"the network has outputs of shape {list(found.shape)}, the module {list(expected.shape)}")
    error = float(abs(found - expected).max() / max(abs(expected).max(), 1e-30))
    if error <= tolerance:
        return
    problem = f"the network's outputs differ from the module's by {error:.1e} of the largest, at most {tolerance:.0e} is expected"
    if decision:
        problem += f"; the module's code decides by values at {decision}"
    # Cutting nothing off compares layer by layer.
    try:
        with tempfile.TemporaryDirectory(prefix="secateur-torch-") as folder:
            network.save(folder)
            _cut(copy.deepcopy(module), pathlib.Path(folder), TOLERANCE)
    except ModuleError as differs:
        problem += f" ({differs})"
    raise ModuleError(problem)


def _cut_or_made(module, folder, tolerance):
    """The module, cut, or a plain one of the network's operations."""
    if module is None:
        return _made(folder, tolerance)
    try:
        return _cut(module, folder, tolerance)
    except _CannotResize as error:
        # What follows the engine's part of a network is the class's alone.
        if json.loads((folder / "plan.json").read_text())["check"]["output"] is None:
            raise
        made = _made(folder, tolerance)
        warnings.warn(f"{error}; this is a plain module of the network's operations instead, and yours is what it was", stacklevel=3)
        return made


def _made(folder, tolerance):
    """The network's operations as a module, which computes what the engine does."""
    import torch

    from secateur._graph_module import GraphModule

    made, network = GraphModule.load(folder / "model.safetensors"), secateur.Network.load(folder / "model.safetensors")
    images = torch.randn(2, *network.inspect()["input"], generator=torch.Generator().manual_seed(1))
    found, expected = _outputs(torch, made, images).numpy(), network.logits(images.numpy())
    error = float(abs(found - expected).max() / max(abs(expected).max(), 1e-30))
    if not error <= tolerance:
        raise ModuleError(f"the module of the network's operations differs from the network by {error:.1e} of the largest output, at most {tolerance:.0e} is expected")
    return made


class _CannotResize(ModuleError):
    """What a plain module helps against."""


def _cut(module, folder, tolerance):
    spec = importlib.util.spec_from_file_location("secateur_cut", folder / "cut.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    try:
        return script.cut(module, folder, tolerance=tolerance)
    except script.CutError as error:
        # A run of an earlier version has a cut.py that does not tell them apart.
        kind = _CannotResize if isinstance(error, getattr(script, "CannotResize", ())) else ModuleError
        raise kind(str(error)) from error
