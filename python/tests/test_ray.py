"""Scored on a Ray cluster of two nodes, a search ends as on one machine, whatever becomes of workers, nodes and the head."""

import json
import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time

import pytest
import secateur
import secateur.ray
from conftest import QUICKSTART, SMALL, timeless

if os.environ.get("SECATEUR_REQUIRE_BINARY") != "1":
    pytest.importorskip("ray", reason="pip install -r python/tests/requirements.txt")
import ray  # noqa: E402
from ray.cluster_utils import Cluster  # noqa: E402

from secateur import _fleet  # noqa: E402

# Moments at which workers, nodes and the head are killed, each; a few for a quick look.
N_KILLS = int(os.environ.get("SECATEUR_RAY_KILLS", "2"))
# Enough walks that something is left behind each kill.
LONG = [*SMALL, f"walks_per_task={12 + 10 * N_KILLS}", "controls=[]"]
SCORE_S = 0.04
of_each_scheduler = pytest.mark.parametrize("sets", [LONG, [*LONG, "scheduler=Async"]], ids=["Lockstep", "Async"])


@pytest.fixture
def cluster(nodes):
    """Two nodes of one CPU each, beside a head node without."""
    while len(nodes.worker_nodes) < 2:
        nodes.small_node()
    nodes.wait_for_nodes()
    return nodes


@pytest.fixture(scope="module")
def nodes():
    # Paths of sockets, which are below it, may have 107 bytes.
    folder = os.environ["RAY_TMPDIR"] = tempfile.mkdtemp(prefix="sr", dir="/tmp")
    means = {"object_store_memory": 80 << 20, "include_dashboard": False}
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **means})
    made.small_node = lambda: made.add_node(num_cpus=1, object_store_memory=80 << 20)
    yield made
    ray.shutdown()
    made.shutdown()
    del os.environ["RAY_TMPDIR"]
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The same runs without Ray."""
    made = {}

    def run(sets):
        key = tuple(sets)
        if key not in made:
            made[key] = secateur.run(QUICKSTART, out=tmp_path_factory.mktemp("alone") / "run", sets=sets, progress=False)
        return timeless(made[key].summary)

    return run


def check_whole(out, sets, alone):
    """The run is that of one machine; under Async, where it depends on when scores came, every walk was counted, and once."""
    summary = json.loads((out / "summary.json").read_text())
    if "scheduler=Async" not in sets:
        assert timeless(summary) == alone(sets)
        return
    events = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    walked = [(event["task"], event["walk"]) for event in events if event["event"] == "candidate"]
    n_walks = int(re.findall(r"walks_per_task=(\d+)", " ".join(sets))[-1])
    assert sorted(walked) == sorted((task["name"], walk) for task in summary["tasks"] for walk in range(n_walks))
    # One machine scores the same probes beside its walks.
    beside = [run["candidates_scored"] + run["cache_hits"] - run["walks"] for run in (summary, alone([s for s in sets if "Async" not in s]))]
    assert summary["walks"] == len(walked) and beside[0] == beside[1]
    assert summary["scheduler"] == "async" and "count in the order in which they came" in (out / "log.txt").read_text()


def is_alive(pid):
    """Whether there is such a process, and it is more than a zombie."""
    try:
        return not re.search(r"^State:\s+Z", pathlib.Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    except OSError:
        return False


def slowly(folder=None):
    """Evaluators that take their time, and leave the number of their process in a folder. Once one of two workers is missed, a third is
    waited for: no search ends before, however long Ray takes to start one."""
    score_s = SCORE_S

    def make(inputs, threads, may_differ):
        import os
        import pathlib
        import time

        import secateur

        class Slow:
            def __init__(self):
                self.evaluator = secateur.Evaluator.of_worker_inputs(inputs, threads=threads, may_differ=may_differ)
                self.difference = self.evaluator.difference
                if folder is not None:
                    (pathlib.Path(folder) / str(os.getpid())).touch()

            def score(self, candidate):
                time.sleep(score_s)
                until = time.monotonic() + 120
                while folder is not None and is_missed(folder) and len(os.listdir(folder)) < 3 and time.monotonic() < until:
                    time.sleep(0.01)
                return self.evaluator.score(candidate)

        def is_missed(folder):
            return pathlib.Path(folder).with_suffix(".missed").exists()

        return Slow()

    return make


class At:
    """A callback that does something at random moments of a search, drawn from a seed, and tells workers once one is missed."""

    def __init__(self, seed, n, act, pids=None):
        draw = random.Random(seed)
        # Shares of the walks. The last ones of a search are scored in no time, out of the cache.
        self.moments = sorted(draw.uniform(0.02, 0.5) for _ in range(n))
        self.act, self.delay, self.n, self.notes = act, lambda: draw.uniform(0, 0.1), 0, []
        self.pids = pids

    def __call__(self, kind, name, done, total):
        if kind == "note":
            self.notes.append(name)
            if self.pids is not None and "go to others" in name:
                self.pids.with_suffix(".missed").touch()
        if self.moments and name == "walks on the cluster" and done >= self.moments[0] * total:
            self.moments.pop(0)
            self.n += 1
            # Ray starts nodes in the main thread only.
            time.sleep(self.delay())
            self.act()


def test_no_cluster_is_told_with_what_to_do(tmp_path):
    # First of all, while there is none.
    with pytest.raises(secateur.ArgumentError, match="ray start --head"):
        secateur.ray.run(QUICKSTART, tmp_path / "run", sets=SMALL, progress=False)


def test_workers_on_two_nodes_find_what_one_machine_finds(cluster, alone, tmp_path):
    told = []
    result = secateur.ray.run(QUICKSTART, tmp_path / "run", cluster.address, sets=SMALL, progress=lambda *stage: told.append(stage))
    assert timeless(result.summary) == alone(SMALL)
    assert not ray.is_initialized() and not (tmp_path / "run.search.json").exists()
    done = [done for kind, name, done, _ in told if name == "walks on the cluster"]
    total = next(total for _, name, _, total in told if name == "walks on the cluster")
    assert done == sorted(done) and done[-1] == total > 0
    assert {"prepare", "search", "refit", "test"} <= {kind for kind, *_ in told}


@of_each_scheduler
def test_killed_workers_take_nothing_with_them(cluster, alone, tmp_path, sets):
    pids = tmp_path / "pids"
    pids.mkdir()
    draw = random.Random(1)

    def kill():
        alive = [int(file.name) for file in pids.iterdir() if is_alive(file.name)]
        if alive:
            os.kill(draw.choice(sorted(alive)), signal.SIGKILL)

    kills = At(1, N_KILLS, kill, pids)
    secateur.ray.run(QUICKSTART, tmp_path / "run", cluster.address, sets=sets, progress=kills, _evaluator_of=slowly(str(pids)))
    check_whole(tmp_path / "run", sets, alone)
    assert kills.n == N_KILLS and len(list(pids.iterdir())) > 2, "a new worker came for one that was killed"
    assert any("go to others" in note for note in kills.notes)


@of_each_scheduler
def test_killed_nodes_take_nothing_with_them_and_new_ones_are_used(cluster, alone, tmp_path, sets):
    pids = tmp_path / "pids"
    pids.mkdir()

    def replace():
        # A raylet dies as by kill -9, and its workers a second or two behind it.
        cluster.remove_node(cluster.worker_nodes.copy().pop(), allow_graceful=False)
        cluster.small_node()

    kills = At(2, N_KILLS, replace, pids)
    secateur.ray.run(QUICKSTART, tmp_path / "run", cluster.address, sets=sets, progress=kills, _evaluator_of=slowly(str(pids)))
    check_whole(tmp_path / "run", sets, alone)
    assert kills.n == N_KILLS and len(list(pids.iterdir())) > 2, "new nodes have workers, too"


@of_each_scheduler
def test_a_killed_head_goes_on_where_it_was(cluster, alone, tmp_path, sets):
    # The head is a program of its own, that leaves a file with every walk.
    program = tmp_path / "head.py"
    program.write_text(
        textwrap.dedent(
            f"""
            import os, sys
            sys.path.insert(0, {os.path.dirname(__file__)!r})
            import secateur.ray
            import test_ray
            def seen(kind, name, done, total):
                if name == "walks on the cluster":
                    with open({str(tmp_path / "seen")!r}, "w") as file:
                        file.write(str(done / total))
            def main():
                secateur.ray.run(test_ray.QUICKSTART, {str(tmp_path / "run")!r}, {cluster.address!r}, sets={sets!r}, progress=seen,
                    resume=True, checkpoint_every_s=0.05, _evaluator_of=test_ray.slowly())
            main()
            """
        )
    )
    draw = random.Random(3)
    moments = sorted(draw.uniform(0.02, 0.8) for _ in range(N_KILLS))
    (tmp_path / "seen").write_text("0")
    found = []
    for moment in [*moments, None]:
        (tmp_path / "seen").write_text("0")
        head = subprocess.Popen([sys.executable, program], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if moment is None:
            said, _ = head.communicate(timeout=240)
            assert head.returncode == 0, said
            break
        until = time.monotonic() + 120
        while head.poll() is None and time.monotonic() < until and float((tmp_path / "seen").read_text() or 0) < moment:
            time.sleep(0.005)
        time.sleep(draw.uniform(0, 0.2))
        found.append(head.poll() is None)
        head.kill()
        head.communicate()
    assert all(found), "every kill came before the end"
    check_whole(tmp_path / "run", sets, alone)


def test_ctrl_c_saves_what_was_scored(cluster, alone, tmp_path):
    def stop():
        raise KeyboardInterrupt

    with pytest.raises(secateur.Interrupted, match="resume=True goes on") as raised:
        secateur.ray.run(QUICKSTART, tmp_path / "run", cluster.address, sets=SMALL, progress=At(4, 1, stop), checkpoint_every_s=1000)
    assert raised.value.result is None and not ray.is_initialized() and not (tmp_path / "run").exists()
    assert json.loads((tmp_path / "run.search.json").read_text())["told"]
    result = secateur.ray.run(QUICKSTART, tmp_path / "run", cluster.address, sets=SMALL, progress=False, resume=True)
    assert timeless(result.summary) == alone(SMALL)


def test_a_search_that_was_scored_needs_no_cluster_to_end(alone, tmp_path):
    out = tmp_path / "run"
    search = secateur.Search(QUICKSTART, out=out, sets=SMALL)
    evaluator = search.evaluator()
    while not search.done:
        for candidate in search.ask(10):
            search.tell(candidate, evaluator.score(candidate))
    search.save(tmp_path / "run.search.json")
    with pytest.raises(secateur.ArgumentError, match="go on from it with resume=True"):
        secateur.ray.run(QUICKSTART, out, "127.0.0.1:1", sets=SMALL)
    result = secateur.ray.run(QUICKSTART, out, "127.0.0.1:1", sets=SMALL, resume=True, progress=False)
    assert timeless(result.summary) == alone(SMALL)


def other_machine(pattern, behind):
    """Evaluators of a search on a machine of another kind, as far as its inputs tell."""

    def make(inputs, threads, may_differ):
        import re

        import secateur

        found = re.sub(pattern, lambda found: found[1] + behind, inputs.tobytes(), count=1)
        assert found != inputs.tobytes()
        return secateur.Evaluator.of_worker_inputs(found, threads=threads, may_differ=may_differ)

    return make


# The machine stands behind the search's digest: version, build, instruction set.
INSTRUCTIONS = (rb"(\x050\.1\.0\x40[0-9a-f]{64}).(Avx512|Avx2|Portable)", b"\x04Neon")
BUILD = (rb"(\x050\.1\.0\x40)[0-9a-f]{12}", b"0" * 12)


@pytest.mark.parametrize(("change", "text"), [(INSTRUCTIONS, "where the search has Neon"), (BUILD, "another build of secateur")])
def test_workers_that_compute_other_digits_are_refused(cluster, tmp_path, change, text):
    with pytest.raises(secateur.ArgumentError, match=f"every worker was refused; .*{text}.*install the same wheel"):
        secateur.ray.run(QUICKSTART, tmp_path / "run", cluster.address, sets=SMALL, progress=False, _evaluator_of=other_machine(*change))


def test_workers_that_may_differ_are_told(cluster, alone, tmp_path):
    with pytest.warns(UserWarning, match="may differ in their last digits: it computes with"):
        result = secateur.ray.run(
            QUICKSTART, tmp_path / "run", cluster.address, sets=SMALL, progress=False, may_differ=True, _evaluator_of=other_machine(*INSTRUCTIONS)
        )
    # Here they are of the same kind, whatever they are told.
    assert timeless(result.summary) == alone(SMALL)


def failing(how):
    def make(inputs, threads, may_differ):
        import os

        import secateur

        if how == "joining":
            os._exit(3)

        class Fails:
            difference = None

            def score(self, candidate):
                if how == "dies":
                    os._exit(3)
                if how == "raises":
                    raise ValueError("there is no such thing")
                return secateur.Score(accuracy=float("nan"), divergence=0.1)

        return Fails()

    return make


@pytest.mark.parametrize(
    ("how", "error", "text"),
    [
        ("raises", secateur.RunFailed, "task '.*', walk .*: there is no such thing"),
        ("nan", secateur.ArgumentError, "task '.*', walk .*: got the score .*NaN"),
        ("dies", secateur.RunFailed, "task '.*', walk .*: 2 workers ended while they scored it"),
        ("joining", secateur.RunFailed, "no worker comes up, 2 in a row ended"),
    ],
)
def test_what_no_worker_can_score_ends_the_run_with_its_name(cluster, tmp_path, monkeypatch, how, error, text):
    monkeypatch.setattr(_fleet, "TRIES_MAX", 2)
    monkeypatch.setattr(_fleet, "FAILED_JOINS_MAX", 2)
    with pytest.raises(error, match=text):
        secateur.ray.run(QUICKSTART, tmp_path / "run", cluster.address, num_workers=1, sets=SMALL, progress=False, _evaluator_of=failing(how))
    assert not ray.is_initialized()


def test_bad_arguments_are_refused_before_anything_is_scored(tmp_path):
    def refused(error, pattern, *arguments, **named):
        with pytest.raises(error, match=pattern):
            secateur.ray.run(QUICKSTART, *arguments, **{"sets": SMALL, "progress": False, **named})

    out = tmp_path / "run"
    refused(secateur.ArgumentError, "num_workers: expected a whole number of at least 1, or None, got 0", out, num_workers=0)
    refused(secateur.ArgumentError, "cpus_per_worker: .* got 0.5", out, cpus_per_worker=0.5)
    refused(secateur.ArgumentError, "in_flight_per_worker: .* got None", out, in_flight_per_worker=None)
    refused(secateur.SceneError, "scored on the processor(.|\n)*set `device: Cpu`", out, sets=[*SMALL, "device=Gpu"])
    refused(secateur.SceneError, "set `scheduler: Lockstep` or `scheduler: Async`", out, sets=[*SMALL, "scheduler=BoundedLag(max: 2)"])
    full = tmp_path / "full"
    full.mkdir()
    (full / "file").write_text("mine")
    refused(secateur.ArgumentError, "not an empty directory", full)
    assert not out.exists() and (full / "file").read_text() == "mine"


def test_a_cluster_without_room_for_a_worker_is_refused(cluster, tmp_path):
    with pytest.raises(secateur.ArgumentError, match="no node of the cluster has 5 CPUs for a worker"):
        secateur.ray.run(QUICKSTART, tmp_path / "run", cluster.address, cpus_per_worker=5, sets=SMALL, progress=False)


def test_inputs_of_a_worker_are_all_that_it_needs():
    search = secateur.Search(QUICKSTART, sets=SMALL)
    inputs = search.worker_inputs()
    away = secateur.Evaluator.of_worker_inputs(memoryview(inputs), threads=1)
    assert away.difference is None
    asked = search.ask(10)
    assert [away.score(candidate) for candidate in asked] == [search.evaluator().score(candidate) for candidate in asked]
    # Images of 2 data sets, 60 to be paid on and 20 to be refitted on, and the networks.
    assert len(inputs) < 2 * 80 * 3 * 32 * 32 * 4 + 2_000_000
    with pytest.raises(secateur.ArgumentError, match="damaged"):
        secateur.Evaluator.of_worker_inputs(inputs[:-5])
    with pytest.raises(secateur.ArgumentError, match="no inputs of a worker of this version"):
        secateur.Evaluator.of_worker_inputs(b"secateur")
    with pytest.raises(secateur.ArgumentError, match="expected the contiguous bytes"):
        secateur.Evaluator.of_worker_inputs("text")
    other = secateur.Search(QUICKSTART, sets=[*SMALL, "seed=8"]).ask(1)[0]
    with pytest.raises(secateur.SecateurError, match="another search"):
        away.score(other)


def test_the_module_is_a_program(binary, tmp_path):
    with pytest.raises(AssertionError, match=re.escape("python -m secateur.ray")):
        binary("run", QUICKSTART, "--workers", "ray://head:10001")
    call = [sys.executable, "-m", "secateur.ray", QUICKSTART, "--out", tmp_path / "run", "--address", "127.0.0.1:1", "--set", "walks_per_task=0"]
    done = subprocess.run(call, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "walks_per_task" in done.stderr
