"""Writes expected.json: how many channel groups, and channels in them, compare.py asks for at the least.

    python3 -m venv /tmp/oracle && /tmp/oracle/bin/pip install onnx==1.23.2 onnxruntime==1.32.0 onnxsim==0.8.1 numpy==2.4.6
    /tmp/oracle/bin/python tests/onnx/expected.py PROTOTYPE DIR

PROTOTYPE is the path of onnx_groups_prototype.py, the oracle that lies among the project's shared files, DIR the folder that
export.py filled. The oracle simplifies a network with onnxsim first and derives the groups from what is left: a second
implementation by other means. Counted are groups of more than one channel that are not frozen. Where the oracle fails on a file,
or finds no group, the entry says so and holds what it finds in the same network's TorchScript export. Run again when export.py changes the networks; it takes some minutes.
"""

import importlib.util
import json
import pathlib
import sys

import onnx

HERE = pathlib.Path(__file__).resolve().parent
HOW = (
    "tests/onnx/expected.py on the files of export.py; "
    "the five published files: table 1 of the project's notes on ONNX, same oracle"
)

# The five published files; what our engine does not compute to the end; the sizes (channels, rows, columns) where a file leaves them open.
PUBLISHED = {
    "mnist_cntk.onnx": {"groups": 2, "channels": 24},
    "nanodet_m.onnx": {"groups": 37, "channels": 3182},
    "pplcnet_orientation.onnx": {"groups": 17, "channels": 4464},
    "ppocr_cls_mobilenetv3.onnx": {"groups": 26, "channels": 1338, "open_sizes": [3, 48, 192]},
    "ultraface_rfb_320.onnx": {"groups": 25, "channels": 1716, "engine": "ends in front of box decoding"},
}


def shape_of_input(path):
    """The one input's name and shape, with a batch of 1."""
    value = onnx.load(path, load_external_data=False).graph.input[0]
    return value.name, [1, *(d.dim_value for d in value.type.tensor_type.shape.dim[1:])]


def count(prototype, path):
    name, shape = shape_of_input(path)
    try:
        groups = prototype.Net(str(path), {name: shape}).groups()
    except Exception as error:
        return {"groups": 0, "channels": 0, "oracle": f"{type(error).__name__}: {str(error).splitlines()[0][:120]}"}
    free = [members for (_, reason), members in groups.items() if reason is None and len(members) > 1]
    return {"groups": len(free), "channels": sum(len(members) for members in free)}


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    spec = importlib.util.spec_from_file_location("prototype", sys.argv[1])
    prototype = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(prototype)
    files = dict(PUBLISHED)
    for path in sorted(pathlib.Path(sys.argv[2]).glob("*.onnx")):
        files[path.name] = count(prototype, path)
        print(path.name, files[path.name], flush=True)
    for name, entry in files.items():
        if entry["groups"] == 0:
            found = files[f"{name.split('.')[0]}.ts.onnx"]
            files[name] = {**found, "oracle": entry.get("oracle", "found no group here")}
    lines = ",\n".join(f'  "{name}": {json.dumps(entry)}' for name, entry in sorted(files.items()))
    (HERE / "expected.json").write_text(f'{{\n "how": {json.dumps(HOW)},\n "files": {{\n{lines}\n }}\n}}\n')


if __name__ == "__main__":
    main()
