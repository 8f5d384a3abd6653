"""Runs from Python are runs of the program."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import numpy
import pytest
import secateur
from conftest import QUICKSTART, ROOT, SMALL, timeless

PROCEDURAL = secateur.Ron("Procedural(kind: Shapes, seed: 1, train: 200, test: 100)")


def test_a_run_gives_the_summary_of_the_program(binary, tmp_path):
    sets = [argument for change in SMALL for argument in ("--set", change)]
    binary("run", QUICKSTART, "--out", tmp_path / "program", *sets, "--quiet")
    expected = json.loads((tmp_path / "program" / "summary.json").read_text())
    result = secateur.run(QUICKSTART, out=tmp_path / "python", sets=SMALL, threads=1, progress=False)
    assert timeless(result.summary) == timeless(expected)
    assert result.summary == json.loads((tmp_path / "python" / "summary.json").read_text())
    for task in result.tasks:
        assert task.macs == task.cost <= task.budget["max"]
        assert task.certificate["budgets"][0]["ok"] is True
        assert task.model.is_file() and task.onnx.is_file() and task.plan.is_file()
        assert task.accuracy == task.summary["test_accuracy_before_tuning"]
        assert result[task.name] == task and task.network().macs == task.macs
    with pytest.raises(KeyError, match="no task 'none'; there are"):
        result["none"]


def test_a_dict_is_a_scene_over_the_defaults(tmp_path):
    scene = {
        "networks": [{"name": "tiny", "file": ROOT / "scenes" / "quickstart" / "shapes.safetensors"}],
        "datasets": [{"name": "shapes", "source": PROCEDURAL}],
        "budgets": "[Macs(ratio: 0.6)]",
        "agent": "Uniform",
        "controls": [],
        "images": {"reward": 60, "calibration": 60, "walk": 20, "refit": 60},
        "finalists": 1,
    }
    told = []
    result = secateur.run(scene, out=tmp_path / "run", progress=lambda *stage: told.append(stage))
    assert [task.summary["network"] for task in result.tasks] == ["tiny"] and result.summary["seed"] == 7
    kinds = [kind for kind, *_ in told if kind != "note"]
    assert kinds[0] == "prepare" and {"search", "refit", "test"} <= set(kinds)
    assert all(0 <= done <= total for _, _, done, total in told)


def test_a_plan_is_the_programs(binary):
    expected = json.loads(binary("plan", QUICKSTART, "--json", "--quiet", *(a for change in SMALL for a in ("--set", change))))
    found = secateur.plan(QUICKSTART, sets=SMALL, progress=False)
    drop = lambda report: [{k: v for k, v in task.items() if not k.endswith("_s")} for task in report["tasks"]]
    assert drop(found) == drop(expected) and len(found["tasks"]) > 1


def test_mistakes_are_typed_exceptions_with_the_programs_text(tmp_path):
    with pytest.raises(secateur.SceneError, match=r"walks_per_task") as raised:
        secateur.run(QUICKSTART, out=tmp_path / "run", sets=["walks_per_task=0"])
    assert "quickstart.ron:" in str(raised.value) and isinstance(raised.value, ValueError)
    with pytest.raises(secateur.ArgumentError, match="none.ron"):
        secateur.run(tmp_path / "none.ron")
    with pytest.raises(secateur.ArgumentError, match="at least 1"):
        secateur.run(QUICKSTART, threads=0)
    with pytest.raises(secateur.ArgumentError, match="expected a path or a dict"):
        secateur.run(7)
    with pytest.raises(secateur.ArgumentError, match="sets: expected a list"):
        secateur.run(QUICKSTART, sets="seed=1")
    with pytest.raises(secateur.ArgumentError, match="'equal', 'probed'"):
        secateur.plan(QUICKSTART, weights="none")
    with pytest.raises(secateur.SceneError):
        secateur.run({"networks": [], "datasets": [], "budgets": []}, out=tmp_path / "run")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("mine")
    with pytest.raises(secateur.ArgumentError, match="not an empty directory"):
        secateur.run(QUICKSTART, out=tmp_path / "full", sets=SMALL)
    assert not (tmp_path / "run").exists()


def test_what_a_callback_raises_ends_the_run_and_comes_out(tmp_path):
    class Enough(Exception):
        pass

    def stop(kind, name, done, total):
        raise Enough(kind)

    with pytest.raises(Enough, match="prepare|note"):
        secateur.run(QUICKSTART, out=tmp_path / "early", sets=SMALL, progress=stop)

    def stop_later(kind, name, done, total):
        if kind == "search":
            raise Enough(kind)

    with pytest.raises(Enough, match="search"):
        secateur.run(QUICKSTART, out=tmp_path / "late", sets=SMALL, progress=stop_later)


def test_ctrl_c_ends_a_run_with_what_it_has_and_resume_goes_on(tmp_path):
    sets = [*SMALL, "walks_per_task=100000", "controls=[]"]
    begun = threading.Event()

    def interrupt():
        begun.wait(60)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    seen = lambda kind, name, done, total: begun.set() if kind == "search" and done > 4 else None
    with pytest.raises(KeyboardInterrupt) as raised:
        secateur.run(QUICKSTART, out=tmp_path / "run", sets=sets, progress=seen)
    assert isinstance(raised.value, secateur.Interrupted)
    assert raised.value.result.summary["interrupted"] is True
    assert raised.value.result.tasks[0].model.is_file()


def test_other_threads_go_on_while_a_run_computes(tmp_path):
    ticks, done = [], threading.Event()

    def tick():
        while not done.is_set():
            ticks.append(time.monotonic())
            time.sleep(0.001)

    thread = threading.Thread(target=tick)
    thread.start()
    secateur.run(QUICKSTART, out=tmp_path / "run", sets=SMALL, progress=False)
    done.set()
    thread.join()
    # With the lock held throughout there would be one tick before and one behind the run.
    assert len(ticks) > 20


def test_importing_needs_no_pytorch():
    code = "import sys, secateur, secateur.torch; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=pathlib.Path("/")).returncode == 0


def test_scenes_are_written_as_rust_reads_them():
    from secateur._scene import to_ron

    value = {"name": 'a "b"\\', "n": 3, "share": 0.5, "on": True, "none": None, "list": [1, secateur.Ron("Full")], "x": numpy.float32(0.25)}
    assert to_ron(value) == '(name: "a \\"b\\"\\\\", n: 3, share: 0.5, on: true, none: None, list: [1, Full], x: 0.25)'
    with pytest.raises(secateur.ArgumentError, match="cannot hold a object"):
        to_ron(object())
