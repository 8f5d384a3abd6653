"""What the head of a search on a cluster costs, with an evaluator that sleeps instead of computing.

    python python/benchmarks/ray_overhead.py ray [--workers 64] [--in-flight 16] [--rounds 3]
    python python/benchmarks/ray_overhead.py simulated [--workers 64,256,1024,4096,10000] [--in-flight 1] [--rounds 3]

    python python/benchmarks/ray_overhead.py real SCENE.ron [--workers 2] [--repeats 3] [--set walks_per_task=200 …]

`ray` starts a cluster of this machine, told that it has as many CPUs as there are workers, each of which takes --score-s seconds for a
candidate: 100 MB of memory each. `simulated` has no Ray: a stub returns what was handed out when its time is over, so that only the search
and the loop around it are measured. Under Lockstep a tick waits for all of its candidates; a round is one of these. Under Async every
actor waits for its own. `real` scores a scene's candidates by as many workers as `secateur.run` has threads, in turns with that, and
compares walks a second and the summaries.
"""

import argparse
import collections
import heapq
import os
import pathlib
import shutil
import tempfile
import time

import secateur
from secateur.ray import _score_all

QUICKSTART = pathlib.Path(__file__).resolve().parents[2] / "scenes" / "quickstart.ron"


def search_of(agent, scheduler, n_out, rounds):
    """A search that has about n_out candidates out at a time, `rounds` times; fewer where two are the same."""
    # A loose budget, and nothing spent behind a walk, so that few candidates are.
    both = '["shapes", "textures"]'
    networks = [f'(name: "{name}", file: "./quickstart/{name}.safetensors", datasets: {both})' for name in ("shapes", "textures")]
    actors = -(-n_out // 4)
    sets = {
        "networks": f"[{', '.join(networks)}]",
        "budgets": "[Macs(ratio: 0.95)]",
        "spend_leftover": False,
        "agent": agent,
        "scheduler": scheduler,
        "actors_per_task": actors,
        "walks_per_task": actors * rounds,
        "controls": "[]",
        "finalists": 1,
        "images": "(reward: 20, calibration: 20, walk: 10, refit: 20)",
    }
    return secateur.Search(QUICKSTART, sets=sets)


class Sleeps:
    """Takes a fixed time for every candidate; its scores depend on what is kept."""

    difference = None

    def __init__(self, score_s):
        self.score_s = score_s

    def score(self, candidate):
        time.sleep(self.score_s)
        return made_up(candidate)


def made_up(candidate):
    return secateur.Score(accuracy=(sum(candidate.widths) * 7919 + candidate.macs) % 1000 / 1000, divergence=0.1)


class Stub:
    """Workers of which each has one candidate at a time and others waiting, without Ray."""

    def __init__(self, n_workers, in_flight, score_s):
        self.score_s, self.free = score_s, n_workers * in_flight
        # When each worker has done what it has.
        self.workers = [0.0] * n_workers
        self.out = []
        self.n = 0

    def room(self):
        return self.free

    def submit(self, candidate):
        done = max(time.perf_counter(), self.workers[0]) + self.score_s
        heapq.heapreplace(self.workers, done)
        self.n += 1
        heapq.heappush(self.out, (done, self.n, candidate))
        self.free -= 1

    def wait(self, timeout):
        if not self.out:
            return [], []
        time.sleep(min(timeout, max(0.0, self.out[0][0] - time.perf_counter())))
        now, scored = time.perf_counter(), []
        while self.out and self.out[0][0] <= now:
            candidate = heapq.heappop(self.out)[2]
            scored.append((candidate, made_up(candidate)))
        self.free += len(scored)
        return scored, []


class Watched:
    """A fleet, with the time that is spent waiting for it."""

    def __init__(self, fleet):
        self.fleet, self.waited = fleet, 0.0
        self.room, self.submit = fleet.room, fleet.submit

    def wait(self, timeout):
        begin = time.perf_counter()
        returned = self.fleet.wait(timeout)
        self.waited += time.perf_counter() - begin
        return returned


def measure(search, fleet, n_workers, score_s):
    watched = Watched(fleet)
    waiting = collections.deque(search.ask(1))
    cpu, begin = time.process_time(), time.perf_counter()
    _score_all(search, watched, waiting)
    wall, cpu = time.perf_counter() - begin, time.process_time() - cpu
    n = search.n_told
    share = n / wall / (n_workers / score_s)
    load = os.getloadavg()[0]
    print(
        f"{n_workers:6} workers: {n} candidates in {wall:.1f} s, {n / wall:.0f} a second, {100 * share:.1f} % of the ideal; head per candidate: "
        f"{1000 * cpu / n:.3f} ms of processor, {1000 * (wall - watched.waited) / n:.3f} ms not waiting for workers; load {load:.1f}",
        flush=True,
    )


def on_ray(arguments):
    import ray
    from secateur._fleet import Fleet

    # Paths of sockets, which are below it, may have 107 bytes.
    folder = tempfile.mkdtemp(prefix="sr", dir="/tmp")
    ray.init(num_cpus=arguments.workers, include_dashboard=False, object_store_memory=100 << 20, _temp_dir=folder, logging_level="warning")
    try:
        score_s = arguments.score_s

        def make(inputs, threads, may_differ, sleeps=Sleeps):
            return sleeps(score_s)

        n_out = arguments.workers * arguments.in_flight
        search = search_of(arguments.agent, arguments.scheduler, n_out, arguments.rounds)
        fleet = Fleet(
            search.worker_inputs(),
            num_workers=arguments.workers,
            cpus_per_worker=1,
            in_flight_per_worker=arguments.in_flight,
            may_differ=False,
            note=print,
            evaluator_of=make,
        )
        begin = time.perf_counter()
        while fleet.n_ready < arguments.workers:
            fleet.wait(0.2)
        print(f"{arguments.workers} workers joined within {time.perf_counter() - begin:.0f} s; up to {n_out} candidates in flight", flush=True)
        measure(search, fleet, arguments.workers, score_s)
        fleet.close()
    finally:
        ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


def simulated(arguments):
    for n_workers in map(int, str(arguments.workers).split(",")):
        search = search_of(arguments.agent, arguments.scheduler, n_workers * arguments.in_flight, arguments.rounds)
        measure(search, Stub(n_workers, arguments.in_flight, arguments.score_s), n_workers, arguments.score_s)


def real(arguments):
    import ray
    from secateur._fleet import Fleet

    sets = [*arguments.set, "controls=[]", "history=(scores: false)"]
    work = pathlib.Path(tempfile.mkdtemp(prefix="sr", dir="/tmp"))
    ratios = []
    try:
        ray.init(num_cpus=arguments.workers, include_dashboard=False, object_store_memory=400 << 20, _temp_dir=str(work / "ray"), logging_level="warning")
        for repeat in range(arguments.repeats):
            alone = secateur.run(arguments.scene, out=work / f"alone{repeat}", threads=arguments.workers, sets=sets, progress=False)
            alone_s = alone.summary["search_wall_s"]
            search = secateur.Search(arguments.scene, out=work / f"ray{repeat}", threads=1, sets=sets, progress=False)
            fleet = Fleet(
                search.worker_inputs(),
                num_workers=arguments.workers,
                cpus_per_worker=1,
                in_flight_per_worker=arguments.in_flight,
                may_differ=False,
                note=print,
            )
            while fleet.n_ready < arguments.workers:
                fleet.wait(0.2)
            begin = time.perf_counter()
            _score_all(search, fleet, collections.deque())
            ray_s, n = time.perf_counter() - begin, search.progress[0]
            fleet.close()
            result = search.finish(progress=False)
            same = all(result.summary[key] == value for key, value in alone.summary.items() if not key.endswith("_s"))
            ratios.append(alone_s / ray_s)
            print(
                f"{n} walks: {n / alone_s:.2f} a second by {arguments.workers} threads, {n / ray_s:.2f} by {arguments.workers} workers, "
                f"{alone_s / ray_s:.3f} of that; summaries are {'equal' if same else 'NOT EQUAL'}; load {os.getloadavg()[0]:.1f}",
                flush=True,
            )
        print(f"median {sorted(ratios)[len(ratios) // 2]:.3f} of {len(ratios)}")
    finally:
        ray.shutdown()
        shutil.rmtree(work, ignore_errors=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    for name, call, workers, in_flight in (("ray", on_ray, 64, 16), ("simulated", simulated, "64,256,1024,4096,10000", 1)):
        command = commands.add_parser(name)
        command.set_defaults(call=call)
        command.add_argument("--workers", type=type(workers), default=workers)
        command.add_argument("--in-flight", type=int, default=in_flight, help="candidates that a worker has at a time")
        command.add_argument("--rounds", type=int, default=3, help="how often all of these are out")
        command.add_argument("--score-s", type=float, default=0.2, help="seconds that a candidate takes")
        command.add_argument("--agent", default="Random", help="the scene's agent")
        command.add_argument("--scheduler", default="Lockstep", help="the scene's scheduler: Lockstep or Async")
    command = commands.add_parser("real")
    command.set_defaults(call=real)
    command.add_argument("scene", type=pathlib.Path)
    command.add_argument("--workers", type=int, default=2)
    command.add_argument("--in-flight", type=int, default=2)
    command.add_argument("--repeats", type=int, default=3)
    command.add_argument("--set", action="append", default=[], metavar="PATH=VALUE")
    arguments = parser.parse_args()
    arguments.call(arguments)


if __name__ == "__main__":
    main()
