"""Scenes as Python has them: a file, or a dict."""

import os

from secateur._secateur import Spec
from secateur.errors import ArgumentError


class Ron(str):
    """Text that stands in a scene as it is: `Ron("Cifar10")`, `Ron("Macs(ratio: 0.5)")`."""


def to_ron(value):
    """A Python value as a scene has it: dicts become structs, lists and tuples lists, strings are quoted unless they are Ron."""
    if isinstance(value, Ron):
        return str(value)
    if value is None:
        return "None"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, (str, os.PathLike)):
        text = os.fspath(value)
        return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'
    if isinstance(value, dict):
        return "(" + ", ".join(f"{key}: {to_ron(item)}" for key, item in value.items()) + ")"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(to_ron, value)) + "]"
    if hasattr(value, "item"):
        return to_ron(value.item())
    raise ArgumentError(f"a scene cannot hold a {type(value).__name__}; expected dicts, lists, numbers, strings or Ron")


def make_spec(scene, *, sets=(), out=None, resume=False, checkpoint_every_s=30.0, data_root=None, model_root=None, threads=None, memory=None):
    """A scene file's path, or a dict of its fields over the defaults. In the dict a string is what stands behind `field:` in a scene
    (`"agent": "Random"`); within lists and dicts strings are quoted, and Ron is not."""
    if isinstance(sets, dict):
        sets = [f"{path}={value if isinstance(value, str) else to_ron(value)}" for path, value in sets.items()]
    if isinstance(sets, str):
        raise ArgumentError(f"sets: expected a list such as ['{sets}'], or a dict")
    text = None
    if isinstance(scene, dict):
        fields = ((key, str(value) if isinstance(value, str) else to_ron(value)) for key, value in scene.items())
        sets = [*(f"{key}={value}" for key, value in fields), *sets]
        scene, text = "scene.ron", _template()
    elif isinstance(scene, Spec):
        raise ArgumentError("scene: expected a path or a dict, got a Spec")
    elif not isinstance(scene, (str, os.PathLike)):
        raise ArgumentError(f"scene: expected a path or a dict, got {type(scene).__name__}")
    if threads is not None and (not isinstance(threads, int) or threads < 1):
        raise ArgumentError(f"threads: expected a number of at least 1, got {threads}")
    means = {"out": out, "resume": resume, "checkpoint_every_s": checkpoint_every_s, "data_root": data_root, "model_root": model_root}
    return Spec(os.fspath(scene), text=text, sets=list(sets), threads=threads, memory=memory, **means)


def _template():
    from secateur._secateur import template

    return template()
