"""A search looked at in cells, as a notebook would: what may be cut, what cutting costs, what a search finds.

Editors that know `# %%` run it cell by cell; as a program it runs whole and writes its plots beside the run:

    python python/examples/explore.py [SCENE.ron] [--out runs/explore] [--set walks_per_task=100 …]        # needs matplotlib
"""

# %% What is looked at
import argparse
import json
import pathlib
import sys

import matplotlib

if "ipykernel" not in sys.modules:
    matplotlib.use("Agg")
import secateur
from matplotlib import pyplot

QUICKSTART = pathlib.Path(__file__).resolve().parents[2] / "scenes" / "quickstart.ron"
parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("scene", nargs="?", default=QUICKSTART, type=pathlib.Path)
parser.add_argument("--out", default=pathlib.Path("runs/explore"), type=pathlib.Path, help="a new or empty folder")
parser.add_argument("--set", action="append", default=[], metavar="PATH=VALUE", help="change the scene; may be repeated")
given = parser.parse_args([] if "ipykernel" in sys.modules else None)


def show(figure, name):
    figure.tight_layout()
    given.out.mkdir(parents=True, exist_ok=True)
    figure.savefig(given.out.parent / f"{given.out.name}-{name}.png", dpi=120)
    print(f"{given.out.parent / f'{given.out.name}-{name}.png'}")


# %% Without a search: widths that a plan expects to lose least
plan = secateur.plan(given.scene, sets=given.set)
for task in plan["tasks"]:
    print(f"{task['name']}: {task['macs']} of {task['original']} by plan, expected to keep {task['expected_accuracy']}")

# %% The search
result = secateur.run(given.scene, out=given.out, sets=given.set)
for task in result.tasks:
    accuracy = "" if task.accuracy is None else f", {100 * task.accuracy:.2f} % of the test images"
    print(f"{task.name}: {task.macs} of {task.summary['original']['macs']} MACs{accuracy}")

# %% What its walks were paid
with open(given.out / "metrics.jsonl") as lines:
    walks = [event for event in map(json.loads, lines) if event["event"] == "candidate"]
figure, axes = pyplot.subplots(len(result.tasks), 1, figsize=(7, 2.4 * len(result.tasks)), squeeze=False, sharex=True)
for axis, task in zip(axes[:, 0], result.tasks):
    for agent in dict.fromkeys(event["agent"] for event in walks):
        rewards = [event["reward"] for event in walks if (event["task"], event["agent"]) == (task.name, agent)]
        axis.plot(rewards, ".", label=agent)
    axis.set(title=task.name, ylabel="reward")
axes[0, 0].legend()
axes[-1, 0].set_xlabel("walk")
show(figure, "walks")

# %% Accuracy for multiply-accumulates: every candidate, and the networks that were written
figure, axis = pyplot.subplots(figsize=(7, 4))
for task in result.tasks:
    of_task = [event for event in walks if event["task"] == task.name]
    points = axis.plot([event["macs"] / 1e6 for event in of_task], [event["reward"] for event in of_task], ".", alpha=0.3)[0]
    if task.accuracy is not None:
        axis.plot(task.macs / 1e6, task.accuracy, "o", color=points.get_color(), label=task.name)
axis.set(xlabel="million MACs", ylabel="reward of walks (.), test accuracy (o)")
axis.legend(fontsize=7)
show(figure, "costs")

# %% Which widths were chosen
figure, axes = pyplot.subplots(len(result.tasks), 1, figsize=(7, 2.4 * len(result.tasks)), squeeze=False)
for axis, task in zip(axes[:, 0], result.tasks):
    groups = [group for group in task.network().inspect()["groups"] if group["frozen"] is None]
    axis.bar(range(len(groups)), [group["channels"] for group in groups])
    axis.set(title=task.name, ylabel="channels left")
    axis.set_xticks(range(len(groups)), [group["name"] for group in groups], rotation=45, ha="right", fontsize=6)
show(figure, "widths")

# %% What every layer loses, width by width: the error of what reads it, as a share of its output
figure, axis = pyplot.subplots(figsize=(7, 4))
for network in json.loads((given.out / "error_curves.json").read_text())[:1]:
    for group in network["groups"]:
        n = group["channels"]
        axis.plot([(n - removed) / n for removed in range(len(group["errors"]))], group["errors"], label=group["name"])
    axis.set(title=f"{network['network']} on {network['dataset']}", xlabel="share of channels left", ylabel="relative error")
axis.legend(fontsize=6)
show(figure, "layers")
