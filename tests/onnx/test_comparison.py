"""Checks that the comparison catches what it is there to catch: python3 tests/onnx/test_comparison.py

A network of two convolutions is cut by hand, once rightly and then with one mistake at a time, each of which a named check must find.
The cutting is done by this file too: called with a mistake's name and onnx_cut's arguments it stands in for that tool. The same network as
we write networks of our own passes the checks of those, and fails the right one with each mistake.
"""

import json
import pathlib
import shutil
import sys
import tempfile
import unittest

sys.dont_write_bytecode = True
import environment

if __name__ == "__main__":
    environment.run_inside(None)

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

EXTERNAL = "weights.bin"


def network():
    """Conv (8 channels, as external data), BatchNormalization, Relu, Conv (4, typed), pooling, Reshape to [batch, 4], Gemm."""
    rng = np.random.default_rng(3)
    f32 = lambda *shape: rng.standard_normal(shape).astype(np.float32)
    constants = [numpy_helper.from_array(f32(8, 3, 3, 3), "w1")]
    constants += [numpy_helper.from_array(np.abs(f32(8)) + 0.5, name) for name in ("scale", "shift", "mean", "var")]
    w2 = f32(4, 8, 3, 3)
    constants += [helper.make_tensor("w2", TensorProto.FLOAT, w2.shape, w2.ravel())]
    constants += [numpy_helper.from_array(np.array([-1, 4], np.int64), "rows")]
    constants += [numpy_helper.from_array(f32(5, 4), "w3"), numpy_helper.from_array(f32(5), "b3")]
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["c1"], "conv1", doc_string="first"),
        helper.make_node("BatchNormalization", ["c1", "scale", "shift", "mean", "var"], ["n1"], "bn1"),
        helper.make_node("Relu", ["n1"], ["r1"], "relu1"),
        helper.make_node("Conv", ["r1", "w2"], ["c2"], "conv2"),
        helper.make_node("GlobalAveragePool", ["c2"], ["p2"], "pool2"),
        helper.make_node("Reshape", ["p2", "rows"], ["f2"], "flatten"),
        helper.make_node("Gemm", ["f2", "w3", "b3"], ["y"], "fc", transB=1),
    ]
    declare = lambda name, *dims: helper.make_tensor_value_info(name, TensorProto.FLOAT, dims)
    inner = [declare("c1", "batch", 8, 6, 6), declare("c2", "batch", 4, 4, 4), declare("f2", "batch", 4)]
    graph = helper.make_graph(
        nodes, "two", [declare("x", "batch", 3, 8, 8)], [declare("y", "batch", 5)], constants, "two convolutions", inner
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, producer_name="by hand")
    helper.set_model_props(model, {"classes": "a,b,c,d,e"})
    return model


def save(model, path, location):
    """Writes the model with the weight of its first convolution in a file beside it."""
    tensor = model.graph.initializer[0]
    onnx.external_data_helper.set_external_data(tensor, location)
    onnx.save(model, path)


def replace(tensor, array):
    """New elements, stored as the old ones were."""
    if tensor.float_data:
        tensor.CopyFrom(helper.make_tensor(tensor.name, tensor.data_type, array.shape, array.ravel()))
    else:
        tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(array), tensor.name))


def cut_and_masked(kept1, kept2):
    """The network with the given channels of both convolutions, and with the others set to zero in the weights that read them."""
    cut, masked = network(), network()
    by_name = {t.name: t for t in cut.graph.initializer}
    axes = {name: [kept1] for name in ("w1", "scale", "shift", "mean", "var")}
    axes |= {"w2": [kept2, kept1], "w3": [range(5), kept2]}
    for name, kept in axes.items():
        array = numpy_helper.to_array(by_name[name])
        for axis, places in enumerate(kept):
            array = np.take(array, list(places), axis)
        replace(by_name[name], array)
    replace(by_name["rows"], np.array([-1, len(kept2)], np.int64))
    for value, width in zip(cut.graph.value_info, (len(kept1), len(kept2), len(kept2)), strict=True):
        value.type.tensor_type.shape.dim[1].dim_value = width
    for tensor in masked.graph.initializer:
        if tensor.name in ("w2", "w3"):
            array = numpy_helper.to_array(tensor).copy()
            array[:, np.setdiff1d(np.arange(array.shape[1]), kept1 if tensor.name == "w2" else kept2)] = 0
            replace(tensor, array)
    return cut, masked


def spoil_elements(cut, masked):
    array = numpy_helper.to_array(cut.graph.initializer[5]).copy()
    array.flat[0] += 1
    replace(cut.graph.initializer[5], array)


def spoil_mask(cut, masked):
    replace(masked.graph.initializer[7], np.full((5, 4), 2, np.float32))


def spoil_storage(cut, masked):
    cut.graph.initializer[5].CopyFrom(numpy_helper.from_array(numpy_helper.to_array(cut.graph.initializer[5]), "w2"))


def leave_over(cut, masked):
    cut.graph.initializer.append(numpy_helper.from_array(np.zeros(3, np.float32), "left"))


def no_mistake(cut, masked):
    """Cut as it should be."""


# name: what goes wrong, and words that one of the problems must have.
MISTAKES = {
    "none": (no_mistake, None),
    "node_name": (lambda cut, masked: setattr(cut.graph.node[2], "name", "other"), "node 2 relu1: changed"),
    "node_doc": (lambda cut, masked: setattr(cut.graph.node[0], "doc_string", ""), "node 0 conv1: changed"),
    "node_gone": (lambda cut, masked: cut.graph.node.pop(2), "7 nodes became 6"),
    "attribute": (lambda cut, masked: setattr(cut.graph.node[6].attribute[0], "i", 0), "node 6 fc: changed"),
    "opset": (lambda cut, masked: setattr(cut.opset_import[0], "version", 18), "opset_import changed"),
    "ir_version": (lambda cut, masked: setattr(cut, "ir_version", 9), "ir_version changed"),
    "metadata": (lambda cut, masked: cut.metadata_props.pop(), "metadata_props changed"),
    "fixed_batch": (lambda cut, masked: dim(cut.graph.output[0], 0, 1), "graph output y: declaration changed"),
    "stale_shape": (lambda cut, masked: dim(cut.graph.value_info[0], 1, 8), "onnx.checker"),
    "elements": (spoil_elements, "holds elements that w2 does not"),
    "mask": (spoil_mask, "neither zero nor as they were"),
    "storage": (spoil_storage, "initialiser w2: form"),
    "left_over": (leave_over, "added that no node reads"),
    "no_mask": (lambda cut, masked: masked.CopyFrom(network()), "nothing was masked"),
    "no_cut": (lambda cut, masked: cut.CopyFrom(network()), "no fewer than the original"),
    "whole": (no_mistake, "file is not byte-equal"),
    "whole_data": (no_mistake, "external data weights.bin are not byte-equal"),
    "macs": (no_mistake, "the tool tells"),
    "groups": (no_mistake, "fewer than the 2 of expected.json"),
    "refusal": (no_mistake, "refused: two.onnx: Loop loop7 is control flow"),
}


def dim(value, axis, number):
    value.type.tensor_type.shape.dim[axis].dim_value = number


def stand_in(mistake, file, folder, options):
    """Does what onnx_cut would do for the network above, with one mistake."""
    if mistake == "refusal":
        sys.exit("two.onnx: Loop loop7 is control flow")
    options = dict(zip(options[::2], options[1::2], strict=True))
    rng = np.random.default_rng(int(options["--seed"]))
    draws = []
    for n in range(int(options["--draws"])):
        kept = [np.sort(rng.choice(w, min(w - 1, max(1, round(w * float(options["--keep"])))), False)) for w in (8, 4)]
        cut, masked = cut_and_masked(*kept)
        MISTAKES[mistake][0](cut, masked)
        for name, model in (("cut", cut), ("masked", masked)):
            save(model, folder / f"{name}_{n}.onnx", f"{name}_{n}.onnx.data")
        a, b = map(len, kept)
        draws.append({"macs": a * 27 * 36 + b * a * 9 * 16 + b * 5 + (mistake == "macs")})
    for name, place in ((file.name, "whole.onnx"), (EXTERNAL, EXTERNAL)):
        shutil.copy(file.parent / name, folder / place)
    for spoiled, name in (("whole", "whole.onnx"), ("whole_data", EXTERNAL)):
        if mistake == spoiled:
            (folder / name).write_bytes((folder / name).read_bytes()[:-1] + b"x")
    groups = [{"name": "c1", "channels": 8, "frozen": None}, {"name": "c2", "channels": 4, "frozen": None}]
    groups = groups[: 1 if mistake == "groups" else 2]
    refitted = {"refused": "the stand-in removes channels and refits nothing"}
    macs = 8 * 27 * 36 + 4 * 8 * 9 * 16 + 20
    print(json.dumps({"groups": groups, "frozen_nodes": [], "macs": macs, "draws": draws, "refitted": refitted}))


def written():
    """The network above as we write networks: its names, open batch, declared shapes."""
    model = network()
    model.producer_name = "secateur"
    for node in model.graph.node:
        node.input[:] = ["input" if name == "x" else name for name in node.input]
        node.output[:] = ["output" if name == "y" else name for name in node.output]
    model.graph.input[0].name, model.graph.output[0].name = "input", "output"
    sizes = {"c1": (8, 6, 6), "n1": (8, 6, 6), "r1": (8, 6, 6), "c2": (4, 4, 4), "p2": (4, 1, 1), "f2": (4,)}
    del model.graph.value_info[:]
    for name, size in sizes.items():
        model.graph.value_info.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, ("batch", *size)))
    return model


def images_of(written_model):
    """Three images, and what ONNX Runtime makes of them."""
    import onnxruntime

    images = np.random.default_rng(5).standard_normal((3, 3, 8, 8)).astype(np.float32)
    session = onnxruntime.InferenceSession(written_model.SerializeToString(), providers=["CPUExecutionProvider"])
    return images, session.run(None, {"input": images})[0]


# What goes wrong in a file that we write, and words that one of the problems must have.
WRITTEN_MISTAKES = {
    "opset": (lambda model: setattr(model.opset_import[0], "version", 16), "operator set, IR version"),
    "producer": (lambda model: setattr(model, "producer_name", ""), "producer"),
    "node_name": (lambda model: setattr(model.graph.node[0], "name", "bn1"), "1 names of nodes are there twice"),
    "fixed_batch": (lambda model: dim(model.graph.value_info[1], 0, 1), "n1: [1, 8, 6, 6] does not leave the batch open"),
    "stale_shape": (lambda model: dim(model.graph.value_info[0], 2, 7), "onnx.checker"),
    "undeclared": (lambda model: model.graph.value_info.pop(), "values without a declared shape: ['f2']"),
    "fixed_inside": (lambda model: replace(model.graph.initializer[6], np.array([1, -1], np.int64)), "3 images"),
    "weights": (lambda model: replace(model.graph.initializer[7], np.full((5, 4), 2, np.float32)), "differ from the engine's"),
    "kept_weight": (lambda model: setattr(model.graph.initializer[8], "raw_data", bytes(20)), "initialiser b3 is not the weight"),
}


class WrittenNetworks(unittest.TestCase):
    def problems_of(self, spoil):
        import exported

        with tempfile.TemporaryDirectory() as folder:
            path, model = pathlib.Path(folder) / "two.safetensors.onnx", written()
            images, outputs = images_of(model)
            images.tofile(path.with_suffix(".images.f32"))
            outputs.tofile(path.with_suffix(".outputs.f32"))
            bias = numpy_helper.to_array(model.graph.initializer[8]).tobytes()
            header = json.dumps({"b3": {"dtype": "F32", "shape": [5], "data_offsets": [0, 20]}}).encode()
            source = pathlib.Path(folder) / "two.safetensors"
            source.write_bytes(len(header).to_bytes(8, "little") + header + bias)
            spoil(model)
            onnx.save(model, path)
            return exported.entry_of(path, {source.name: source})["problems"]

    def test_a_right_file_passes_every_check(self):
        self.assertEqual(self.problems_of(lambda model: None), [])

    def test_each_mistake_is_found_by_its_check(self):
        for mistake, (spoil, words) in WRITTEN_MISTAKES.items():
            with self.subTest(mistake):
                problems = self.problems_of(spoil)
                self.assertTrue(any(words in problem for problem in problems), problems)


class Mistakes(unittest.TestCase):
    def entry_of(self, mistake):
        # Not above: the runtimes take a second to load, which the stand-in has no need of.
        from comparison import Comparison

        with tempfile.TemporaryDirectory() as folder:
            folder = pathlib.Path(folder)
            file, tool = folder / "two.onnx", folder / "onnx_cut"
            save(network(), file, EXTERNAL)
            tool.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{pathlib.Path(__file__).resolve()}" {mistake} "$@"\n')
            tool.chmod(0o755)
            tools = {"onnx_cut": tool, "onnx_logits": None}
            return Comparison(file, tools, {"groups": 2, "channels": 12}).run(quick=True, seed=1)

    def test_a_right_cut_passes_every_check(self):
        entry = self.entry_of("none")
        self.assertEqual(entry["problems"], [])
        self.assertEqual((entry["groups"], entry["channels"], entry["draws"], entry["batch"]), (2, 12, 3, 2))

    def test_each_mistake_is_found_by_its_check(self):
        for mistake, (_, words) in MISTAKES.items():
            if words is not None:
                with self.subTest(mistake):
                    problems = self.entry_of(mistake)["problems"]
                    self.assertTrue(any(words in problem for problem in problems), problems)


if __name__ == "__main__":
    if len(sys.argv) > 3 and sys.argv[1] in MISTAKES:
        stand_in(sys.argv[1], pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3]), sys.argv[4:])
    else:
        unittest.main()
