"""The examples run as their first lines say."""

import os
import subprocess
import sys

import pytest
from conftest import ROOT, SMALL

EXAMPLES = ROOT / "python" / "examples"
SETS = [argument for change in SMALL for argument in ("--set", change)]


def run(name, *arguments):
    environment = {**os.environ, "SECATEUR_HISTORY": "none", "RAY_AUTH_MODE": "disabled"}
    command = [sys.executable, EXAMPLES / name, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def needs(module):
    if os.environ.get("SECATEUR_REQUIRE_BINARY") != "1":
        pytest.importorskip(module, reason="pip install -r python/tests/requirements.txt")


def is_picture(path):
    return path.read_bytes().startswith(b"\x89PNG") and path.stat().st_size > 5000


def test_a_search_is_looked_at_in_cells(tmp_path):
    needs("matplotlib")
    said = run("explore.py", "--out", tmp_path / "run", *SETS)
    assert "% of the test images" in said
    assert all(is_picture(tmp_path / f"run-{name}.png") for name in ("walks", "costs", "widths", "layers"))


def test_a_search_runs_on_a_cluster_of_this_machine(tmp_path):
    needs("ray")
    said = run("ray_search.py", "--out", tmp_path / "run", "--workers", 2, *SETS)
    assert said.count("certificate holds: True") == 2 and "walks on the cluster" in said
    assert is_picture(tmp_path / "run.png")


def test_torchvisions_network_is_pruned_for_a_folder_of_images_and_fine_tuned(tmp_path):
    needs("torchvision")
    import numpy
    from PIL import Image

    draw = numpy.random.default_rng(1)
    for name in ("dark", "light"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for i in range(30):
            pixels = draw.integers(0, 128, (40, 40, 3)) + (127 if name == "light" else 0)
            Image.fromarray(pixels.astype(numpy.uint8)).save(tmp_path / "images" / name / f"{i}.png")
    said = run("prune_torchvision.py", tmp_path / "images", "--out", tmp_path / "out", "--weights", "none", "--size", 32)
    assert "certificate holds: True" in said and "epoch 1: divergence" in said
    assert (tmp_path / "out" / "pruned.onnx").stat().st_size < (tmp_path / "out" / "dense" / "model.onnx").stat().st_size
