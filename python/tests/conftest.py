"""Where things are, and the small scene that most tests run."""

import os
import pathlib
import signal
import subprocess

import pytest

# Whether a user of this machine has a token of Ray's is nothing that tests depend on. Read when Ray is imported.
os.environ["RAY_AUTH_MODE"] = "disabled"
# What a shell starts in the background ignores Ctrl-C, and so would all that the tests start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)
ROOT = pathlib.Path(__file__).resolve().parents[2]
QUICKSTART = ROOT / "scenes" / "quickstart.ron"
# Two networks on two drawn data sets, few walks and images.
SMALL = [
    "budgets=[Macs(ratio: 0.6)]",
    "agent=Mtacp()",
    "walks_per_task=6",
    "actors_per_task=2",
    "finalists=2",
    "images=(reward: 60, calibration: 60, walk: 20, refit: 60)",
    "controls=[Random(candidates: 2)]",
    'datasets=[(name: "shapes", source: Procedural(kind: Shapes, seed: 1, train: 200, test: 100)), '
    '(name: "textures", source: Procedural(kind: Textures, seed: 2, train: 200, test: 100))]',
]


def timeless(summary):
    """A summary without what the clock says."""
    return {key: value for key, value in summary.items() if not key.endswith("_s")}


@pytest.fixture(scope="session")
def binary():
    """The program, built before the tests run."""
    path = pathlib.Path(os.environ.get("SECATEUR_BINARY", ROOT / "target" / "release" / "secateur"))
    if not path.is_file():
        if os.environ.get("SECATEUR_REQUIRE_BINARY") == "1":
            pytest.fail(f"no program at '{path}': cargo build --release, or set SECATEUR_BINARY")
        pytest.skip(f"no program at '{path}': cargo build --release, or set SECATEUR_BINARY")

    def call(*arguments):
        done = subprocess.run([path, *map(str, arguments)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return call
