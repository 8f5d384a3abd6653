"""Makes the virtual environment that export.py and compare.py need, and runs them inside it.

    python3 tests/onnx/environment.py [--venv DIR]      makes it if need be and prints its Python

The folder is --venv, else $SECATEUR_ONNX_VENV, else secateur/onnx-venv in the user's cache ($XDG_CACHE_HOME or ~/.cache).
It is kept as long as requirements.txt and the version of Python stay the same. On Linux PyPI's torch brings CUDA libraries along
(about 6 GB unpacked); where PyTorch's index of CPU wheels can be reached, name it in PIP_EXTRA_INDEX_URL to leave them out.
"""

import fcntl
import hashlib
import os
import pathlib
import shutil
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
REQUIREMENTS = HERE / "requirements.txt"
STAMP = "secateur-requirements.sha256"


def cache_dir():
    return pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "secateur"


def default_venv():
    return pathlib.Path(os.environ.get("SECATEUR_ONNX_VENV") or cache_dir() / "onnx-venv")


def fingerprint():
    """What the environment depends on: the pinned packages and the interpreter."""
    return hashlib.sha256(REQUIREMENTS.read_bytes() + sys.version.encode()).hexdigest()


def make_venv(folder):
    """The path of the environment's Python. Two callers at once are safe: the second waits and finds it made."""
    folder = pathlib.Path(folder).absolute()
    folder.parent.mkdir(parents=True, exist_ok=True)
    python = folder / "bin" / "python"
    with open(f"{folder}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        stamp = folder / STAMP
        if stamp.is_file() and stamp.read_text() == fingerprint() and python.exists():
            return python
        if folder.exists() and not (folder / "pyvenv.cfg").is_file():
            sys.exit(f"{folder} is not a virtual environment: name an empty or a new folder with --venv")
        print(f"making {folder} (a minute or two, then kept)", file=sys.stderr, flush=True)
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        install = [python, "-m", "pip", "install", "--quiet", "--no-compile", "--disable-pip-version-check"]
        subprocess.run([*install, "-r", REQUIREMENTS], check=True)
        stamp.write_text(fingerprint())
    return python


def run_inside(folder):
    """Returns at once inside the environment; elsewhere makes it and runs the same command in it instead."""
    folder = pathlib.Path(folder or default_venv()).absolute()
    if pathlib.Path(sys.prefix) == folder:
        return
    python = make_venv(folder)
    os.execv(python, [str(python), *sys.argv])


if __name__ == "__main__":
    arguments = sys.argv[1:]
    if arguments and (len(arguments) != 2 or arguments[0] != "--venv"):
        sys.exit(__doc__)
    print(make_venv(arguments[1] if arguments else default_venv()))
