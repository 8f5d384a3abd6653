"""Searches for smaller networks on a Ray cluster and shows what was found, and how fast.

    python python/examples/ray_search.py [SCENE.ron] --out runs/ray [--address auto | ray://HOST:10001 | local] [--workers N] [--resume]

Without a scene it is scenes/quickstart.ron, and without --address a cluster of this machine alone. Started again with --resume after Ctrl-C,
a crash or kill -9 it goes on with what was scored. With matplotlib it draws what the search found into OUT.png.
"""

import argparse
import json
import pathlib
import time

import secateur
import secateur.ray

QUICKSTART = pathlib.Path(__file__).resolve().parents[2] / "scenes" / "quickstart.ron"


class Pace:
    """Walks a second, told at most once a second; what happens to workers, as it happens."""

    def __init__(self):
        self.first, self.last = None, 0.0

    def __call__(self, kind, name, done, total):
        now = time.monotonic()
        if kind == "note":
            print(name)
        elif kind == "search" and (now - self.last >= 1.0 or done == total):
            self.first, self.last = self.first or (now, done), now
            (begin, before), seconds = self.first, max(now - self.first[0], 1e-9)
            print(f"{name}: {done} of {total}, {(done - before) / seconds:.1f} a second")


def candidates(directory):
    """What metrics.jsonl records of the scene's agent: task, walk, reward, MACs."""
    with open(directory / "metrics.jsonl") as lines:
        events = [json.loads(line) for line in lines]
    agent = json.loads((directory / "summary.json").read_text())["agent"]
    return [event for event in events if event.get("event") == "candidate" and event.get("agent") == agent]


def draw(directory, file):
    """Rewards by walk for each task, and the best so far."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    by_task = {}
    for event in candidates(directory):
        by_task.setdefault(event["task"], []).append(event["reward"])
    figure, axes = pyplot.subplots(len(by_task), 1, figsize=(7, 2.4 * len(by_task)), squeeze=False, sharex=True)
    for axis, (task, rewards) in zip(axes[:, 0], by_task.items()):
        best = [max(rewards[: i + 1]) for i in range(len(rewards))]
        axis.plot(rewards, ".", color="0.6", label="walks")
        axis.step(range(len(best)), best, where="post", label="best so far")
        axis.set(title=task, ylabel="reward")
    axes[-1, 0].set_xlabel("walk")
    axes[0, 0].legend()
    figure.tight_layout()
    figure.savefig(file, dpi=120)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scene", nargs="?", default=QUICKSTART, type=pathlib.Path)
    parser.add_argument("--out", required=True, type=pathlib.Path)
    parser.add_argument("--address", default="local")
    parser.add_argument("--workers", type=int)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--set", action="append", default=[])
    given = parser.parse_args()
    address = None if given.address == "local" else given.address
    result = secateur.ray.run(given.scene, given.out, address, num_workers=given.workers, resume=given.resume, sets=given.set, progress=Pace())
    for task in result.tasks:
        accuracy = "" if task.accuracy is None else f", {100 * task.accuracy:.2f} % of the test images"
        print(f"{task.name}: {task.macs} of {task.summary['original']['macs']} MACs{accuracy}, certificate holds: {task.certificate['budgets'][0]['ok']}")
    try:
        draw(result.directory, given.out.with_name(given.out.name + ".png"))
    except ImportError:
        print("pip install matplotlib draws what was found")


if __name__ == "__main__":
    main()
