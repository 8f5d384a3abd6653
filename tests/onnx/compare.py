"""Removes channels from ONNX files with the example onnx_cut and checks the results in ONNX Runtime and OpenVINO.

    python3 tests/onnx/compare.py [--quick] [--only NAME] [--json FILE] [FILE.onnx ...]

Without files it takes the exports of export.py (made where they are missing) and the published files of --published. For each file, 20
random sets of kept channels (3 with --quick): the cut file passes onnx's checker, runs in both runtimes and equals the masked original
(the same channels set to zero where later layers read them) to 1e-5; nothing else of the document changed (document.py); with everything
kept the file is byte-equal; multiply-accumulates, counted here from the shapes of a run, shrink and are those that the tool tells; groups
and channels are at least those of expected.json. If the example onnx_logits is there, our own engine's outputs equal ONNX Runtime's to
1e-4 (a file that it does not compute must be known to expected.json), and operations.py's cases are compared. If the example onnx_export is
there, the files that it writes of networks of our own (trained ones of $SECATEUR_MODELS, with every operation, random) pass onnx's full
check, leave the batch open, declare the shapes that onnx infers, hold the weights bit by bit, and give our engine's outputs to 1e-5 in both
runtimes for 1 and 3 images. Prints a line per file; exit code 1 if anything failed. Needs cargo and, the first time, PyPI (environment.py).
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import time

sys.dont_write_bytecode = True
import environment
import export
import operations

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
# Few files that have every kind of coupling between them: residual, depthwise, gates, concatenations, shuffles, splits, branches, NHWC.
QUICK = [
    "resnet18.dy.onnx",
    "resnet18.raw.dy.onnx",
    "mobilenet_v2.ts.onnx",
    "mobilenet_v3_small.bn.ts.onnx",
    "efficientnet_b0.dy.onnx",
    "densenet121.ts.onnx",
    "shufflenet_v2_x0_5.ts.onnx",
    "shufflenet_v2_x0_5.dy.onnx",
    "convnext_tiny.dy.onnx",
    "mixnet_s.dy.onnx",
    "cs3darknet_s.dy.onnx",
    "skresnet18.ts.onnx",
    "tf_efficientnet_lite0.ts.onnx",
]


def published_folder(given):
    """The published files that are no part of the repository, or None where there are none."""
    models = os.environ.get("SECATEUR_MODELS")
    folder = pathlib.Path(given) if given else pathlib.Path(models) / ".." / "onnx" if models else None
    if folder is not None and folder.is_dir():
        return folder
    if os.environ.get("SECATEUR_REQUIRE_DATA") == "1" or given:
        sys.exit("compare.py: no folder of published ONNX files: set SECATEUR_MODELS, with onnx/ beside it, or give --published")
    print("SKIPPED: published files: set SECATEUR_MODELS to the folder of the networks, with onnx/ beside it", flush=True)
    return None


def choose_files(arguments):
    """The files to compare, exported first where they are missing."""
    if arguments.files:
        return [path.absolute() for path in arguments.files]
    names = QUICK if arguments.quick else export.file_names()
    if arguments.only:
        names = [name for name in export.file_names() if name.startswith(f"{arguments.only}.") or name == arguments.only]
    if names:
        architectures = ",".join(dict.fromkeys(name.split(".")[0] for name in names))
        subprocess.run([sys.executable, HERE / "export.py", arguments.exports, "--only", architectures], check=True)
    files = [arguments.exports / name for name in names]
    if not (arguments.only and names):
        folder = published_folder(arguments.published)
        published = sorted(folder.glob("*.onnx")) if folder else []
        files += [path for path in published if arguments.only in (None, path.name, path.stem)]
    if not files:
        sys.exit(f"compare.py: --only {arguments.only} names no file: known are {', '.join(export.file_names())}")
    return files


def find_tools(arguments):
    """Paths of onnx_cut and, where its source is there, onnx_logits; built unless told otherwise."""
    folder = arguments.tools or ROOT / "target" / "release" / "examples"
    sources = {"onnx_cut": ROOT / "crates/onnx/examples/onnx_cut.rs"}
    sources |= {name: ROOT / "examples" / f"{name}.rs" for name in ("onnx_logits", "onnx_export")}
    if arguments.tools is None:
        for name, package in (("onnx_cut", "secateur-onnx"), ("onnx_logits", "secateur"), ("onnx_export", "secateur")):
            if name == "onnx_cut" or sources[name].is_file():
                command = ["cargo", "build", "--release", "--locked", "-p", package, "--example", name]
                subprocess.run(command, cwd=ROOT, check=True)
    tools = {name: folder / name for name in sources}
    if not tools["onnx_cut"].is_file():
        sys.exit(f"compare.py: {tools['onnx_cut']} is missing: build it, or leave --tools out")
    for name, what in (("onnx_logits", "outputs of our own engine"), ("onnx_export", "networks written as ONNX")):
        if not tools[name].is_file():
            print(f"SKIPPED: {what}: the example {name} is not built", flush=True)
            tools[name] = None
    return tools


HEADER = f"{'file':32} {'groups':>6} {'channels':>8} {'MACs M':>8} {'half %':>6} {'ORT':>8} {'OpenVINO':>8} {'engine':>8} {'s':>4}  status"


def line_of(entry):
    """The table's line of one file."""
    halves = entry.get("halves")
    half = f"{100 * sum(halves) / len(halves) / entry['macs']:.0f}" if halves and entry.get("macs") else "-"
    macs = f"{entry['macs'] / 1e6:.2f}" if entry.get("macs") else "-"
    logits = f"{entry['logits']:.1e}" if "logits" in entry else "-"
    status = "ok"
    if entry["problems"]:
        status = f"FAILED ({len(entry['problems'])}): {entry['problems'][0]}"
    elif "refused" in entry:
        status = f"refused, as expected: {entry['refused']}"
    elif entry.get("frozen"):
        status = f"ok; {entry['frozen']} frozen, first {entry['first_frozen']}"
    errors = " ".join(f"{entry[key]:8.1e}" if entry.get("draws") else f"{'-':>8}" for key in ("ort", "openvino"))
    numbers = f"{entry.get('groups', '-'):>6} {entry.get('channels', '-'):>8} {macs:>8} {half:>6}"
    return f"{entry['file']:32} {numbers} {errors} {logits:>8} {entry['seconds']:4.0f}  {status[:200]}"


def compare(path, tools, expected, arguments):
    """The entry of one file; what stops its comparison altogether is a problem too."""
    from comparison import Comparison, in_one_line

    start = time.monotonic()
    try:
        entry = Comparison(path, tools, expected).run(arguments.quick, arguments.seed)
    except Exception as error:
        entry = {"file": path.name, "problems": [f"{type(error).__name__}: {in_one_line(error)}"]}
    return entry | {"seconds": round(time.monotonic() - start, 1)}


def compare_exports(tool, quick):
    """Entries of networks of our own that are written as ONNX."""
    import exported

    models = os.environ.get("SECATEUR_MODELS")
    if models is None:
        print("SKIPPED: trained networks: set SECATEUR_MODELS to the folder of the networks", flush=True)
    entries = []
    print(exported.HEADER)
    for entry in exported.compare_all(tool, pathlib.Path(models) if models else None, 10 if quick else 100):
        entries.append(entry)
        print(exported.line_of(entry), flush=True)
    return entries


def summary(entries):
    """How many files there were, how many lost channels and passed every check, and how many did not pass."""
    failed = sum(1 for e in entries if e["problems"])
    pruned = sum(1 for e in entries if not e["problems"] and e.get("groups"))
    architectures = {e["file"].split(".")[0] for e in entries}
    whole = architectures - {e["file"].split(".")[0] for e in entries if e["problems"] or not e.get("groups")}
    return (
        f"{len(entries)} files of {len(architectures)} networks: {pruned} files pruned and right, {failed} failed; "
        f"{len(whole)} networks right in every file"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=pathlib.Path, metavar="FILE.onnx", help="these files instead of the usual ones")
    parser.add_argument("--quick", action="store_true", help="3 draws in place of 20, and fewer files")
    parser.add_argument("--only", metavar="NAME", help="one architecture, or one file by its name")
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE", help="write every figure and problem")
    parser.add_argument("--exports", type=pathlib.Path, default=environment.cache_dir() / "onnx-exports", metavar="DIR")
    parser.add_argument("--published", type=pathlib.Path, metavar="DIR", help="default: onnx/ beside $SECATEUR_MODELS")
    parser.add_argument("--tools", type=pathlib.Path, metavar="DIR", help="folder of the built examples; without it cargo builds them")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--venv", help="folder of the virtual environment (see environment.py)")
    arguments = parser.parse_args()
    environment.run_inside(arguments.venv)
    files = choose_files(arguments)
    tools = find_tools(arguments)
    expected = json.loads((HERE / "expected.json").read_text())["files"]
    entries = []
    print(HEADER)
    for path in files:
        entries.append(compare(path, tools, expected.get(path.name, {}), arguments))
        print(line_of(entries[-1]), flush=True)
    unlike = []
    if tools["onnx_logits"] is not None and not (arguments.files or arguments.only):
        unlike, n_cases = operations.check(tools["onnx_logits"])
        print(f"{n_cases} networks of few operations, {len(unlike)} that our engine computes otherwise than ONNX Runtime")
    written = []
    if tools["onnx_export"] is not None and not (arguments.files or arguments.only):
        written = compare_exports(tools["onnx_export"], arguments.quick)
    if arguments.json:
        arguments.json.write_text(json.dumps(entries + written, indent=1) + "\n")
    for entry in entries + written:
        for problem in entry["problems"]:
            print(f"{entry['file']}: {problem}", file=sys.stderr)
    for problem in unlike:
        print(problem, file=sys.stderr)
    print(summary(entries))
    if written:
        print(f"{len(written)} networks written as ONNX: {sum(1 for e in written if e['problems'])} failed")
    sys.exit(1 if unlike or any(entry["problems"] for entry in entries + written) else 0)


if __name__ == "__main__":
    main()
