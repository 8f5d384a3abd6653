"""What of an ONNX document must stay as it was when channels are removed, checked on the messages themselves.

Two files are given: the user's own and the one made from it. Node names, order, operations, attributes, doc strings, metadata, opsets and
declared inputs and outputs are compared as bytes. What may differ: the sizes of constants, the attributes in COUNTS, and a node's constant
input that now reads a copy of its own (two users of one constant that need different numbers).
"""

import pathlib

import numpy as np
import onnx
from onnx import numpy_helper

# Attributes that hold counts or positions of channels, by operation.
COUNTS = {
    "Conv": {"group"},
    "ConvTranspose": {"group"},
    "Constant": {"value", "value_ints", "value_floats"},
    "Split": {"split", "num_outputs"},
    "Slice": {"starts", "ends"},
    "Pad": {"pads"},
    "Reshape": {"shape"},
}
FLOATS = {onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16}
TYPED = ("float_data", "int32_data", "int64_data", "double_data", "uint64_data", "string_data")


class Document:
    """A model without its external data, and its constants by name."""

    def __init__(self, path):
        self.path = pathlib.Path(path)
        self.model = onnx.load(self.path, load_external_data=False)
        self.graph = self.model.graph
        self.initializers = {t.name: t for t in self.graph.initializer}
        self.constants = dict(self.initializers)
        for node in self.graph.node:
            if node.op_type == "Constant" and node.attribute and node.attribute[0].HasField("t"):
                self.constants[node.output[0]] = node.attribute[0].t

    def inputs(self):
        """The inputs that a user feeds: without the initialisers that files of IR 3 list as inputs."""
        return [value for value in self.graph.input if value.name not in self.initializers]

    def derived(self, with_shapes=False):
        """Names of all tensors that depend on constants alone; with those that depend on other tensors' shapes, if asked for."""
        known = set(self.constants)
        for node in self.graph.node:
            starts = node.op_type == "Constant" or (with_shapes and node.op_type in ("Shape", "Size"))
            # CastLike takes only the type of its second input.
            inputs = node.input[:1] if node.op_type == "CastLike" else node.input
            if starts or (any(inputs) and all(i in known for i in inputs if i)):
                known.update(node.output)
        return known

    def array(self, name):
        return numpy_helper.to_array(self.constants[name], base_dir=str(self.path.parent))

    def external_files(self):
        tensors = self.constants.values()
        return {entry.value for t in tensors for entry in t.external_data if entry.key == "location"}


def structure_problems(original, made):
    """What differs that must not, as sentences."""
    problems = model_problems(original.model, made.model)
    problems += port_problems(original, made)
    forks, node_differences = node_problems(original, made)
    problems += node_differences
    return forks, problems + initializer_problems(original, made, forks)


def kept_problems(original, made):
    """What a file with other weights lacks of the original: its frame, or a tensor that depends on the images."""
    names = {output for node in made.graph.node for output in node.output}
    derived = original.derived(with_shapes=True)
    lost = [o for node in original.graph.node for o in node.output if o and o not in names and o not in derived]
    lost_problems = [f"tensor {name} is gone" for name in lost]
    return model_problems(original.model, made.model) + port_problems(original, made) + lost_problems


def model_problems(original, made):
    """Everything outside the nodes, the constants and the declared shapes."""

    def rest(model):
        copy = onnx.ModelProto()
        copy.CopyFrom(model)
        for field in ("node", "initializer", "value_info", "input", "output"):
            copy.graph.ClearField(field)
        own = [entry for entry in copy.metadata_props if not entry.key.startswith("secateur.")]
        del copy.metadata_props[:]
        copy.metadata_props.extend(own)
        return copy

    before, after = rest(original), rest(made)
    if before.SerializeToString(deterministic=True) == after.SerializeToString(deterministic=True):
        return []
    fields = [f.name for f in onnx.ModelProto.DESCRIPTOR.fields if getattr(before, f.name) != getattr(after, f.name)]
    return [f"model: {', '.join(fields) or 'fields unknown to onnx'} changed"]


def port_problems(original, made):
    """Declared inputs and outputs byte for byte, and no intermediate tensor declared that was not."""
    problems = []
    for kind in ("input", "output"):
        before, after = getattr(original.graph, kind), getattr(made.graph, kind)
        if [v.name for v in before if v.name not in original.initializers] != [
            v.name for v in after if v.name not in made.initializers
        ]:
            problems.append(f"graph {kind}s: names or order changed")
        kept = {v.name: v for v in after}
        for value in before:
            same = value.name in kept and value.SerializeToString() == kept[value.name].SerializeToString()
            if not same and value.name not in original.initializers:
                problems.append(f"graph {kind} {value.name}: declaration changed")
    order = [v.name for v in original.graph.value_info]
    place = {name: i for i, name in enumerate(order)}
    places = [place.get(v.name, -1) for v in made.graph.value_info if v.name in place or v.name not in made.initializers]
    if -1 in places or places != sorted(places):
        problems.append("value_info: names were added or reordered")
    return problems


def node_problems(original, made):
    """Compares node by node. Returns which initialisers are copies of which constant, and what differs."""
    after = made.graph.node
    forks, problems, derived = {}, [], original.derived(with_shapes=True)
    # What handed on weights that others were copied from may go, once nothing reads it.
    still_read = {name for node in after for name in node.input} | {value.name for value in made.graph.output}
    left = {name for node in after for name in node.output}
    is_idle = lambda node: all(name in derived and name not in still_read and name not in left for name in node.output)
    before = [node for node in original.graph.node if not is_idle(node)]
    if len(before) != len(after):
        return forks, [f"{len(before)} nodes became {len(after)}"]
    for i, (old, new) in enumerate(zip(before, after, strict=True)):
        place = f"node {i} {old.name or old.op_type}"
        if bare(old).SerializeToString() != bare(new).SerializeToString():
            problems.append(f"{place}: changed besides counts")
        added_split = old.op_type == "Split" and len(old.input) == 1 and len(new.input) == 2
        inputs = [*old.input, ""] if added_split else list(old.input)
        if len(inputs) != len(new.input):
            problems.append(f"{place}: {len(old.input)} inputs became {len(new.input)}")
            continue
        for source, name in zip(inputs, new.input, strict=True):
            if source == name:
                continue
            is_new = name in made.initializers and name not in original.constants
            if not is_new or (source and source not in derived):
                problems.append(f"{place}: input {source} became {name}")
            forks[name] = source
    return forks, problems


def bare(node):
    """The node without its inputs and without the values of attributes that may change."""
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    copy.ClearField("input")
    may_change = COUNTS.get(node.op_type, set())
    kept = [a for a in copy.attribute if a.name not in may_change]
    del copy.attribute[:]
    copy.attribute.extend(kept)
    return copy


def initializer_problems(original, made, forks):
    """Names, order and form of storage; what nothing uses any more may go, what nothing used before stays."""
    problems = []
    used_before = {i for node in original.graph.node for i in node.input} | {o.name for o in original.graph.output}
    used_after = {i for node in made.graph.node for i in node.input} | {o.name for o in made.graph.output}
    for name, tensor in original.initializers.items():
        if name not in made.initializers:
            if name in used_after or name not in used_before:
                problems.append(f"initialiser {name}: gone")
        elif form(tensor) != form(made.initializers[name]):
            problems.append(f"initialiser {name}: form {form(tensor)} became {form(made.initializers[name])}")
    order = [t.name for t in made.graph.initializer]
    if order != [n for n in original.initializers if n in made.initializers] + [n for n in order if n in forks]:
        problems.append("initialisers: order changed, or some were added that no node reads")
    if len(order) != len(made.initializers):
        problems.append("initialisers: a name occurs twice")
    for name, tensor in original.constants.items():
        if name not in original.initializers and name in made.constants and form(tensor) != form(made.constants[name]):
            problems.append(f"constant {name}: form changed")
    if orphans := [n for n in order if n in used_before and n not in used_after]:
        problems.append(f"initialiser {orphans[0]}: left over, no node reads it any more ({len(orphans)} such)")
    return problems


def form(tensor):
    """Element type, where the elements are stored, and the texts."""
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        stored = "external"
    elif tensor.HasField("raw_data"):
        stored = "raw"
    else:
        stored = "/".join(field for field in TYPED if len(getattr(tensor, field)))
    metadata = tuple((entry.key, entry.value) for entry in tensor.metadata_props)
    return tensor.data_type, stored, len(tensor.dims), tensor.doc_string, metadata


def bits(array):
    """The elements as integers, so that equal means equal bit for bit."""
    return np.atleast_1d(np.ascontiguousarray(array)).view(f"u{array.dtype.itemsize}")


def cut_value_problems(original, cut, forks):
    """Every float constant holds elements of the constant that it was, and never more than that along an axis."""
    problems = []
    for name, tensor in cut.constants.items():
        source = name if name in original.constants else forks.get(name)
        if tensor.data_type not in FLOATS or source not in original.constants:
            continue
        before, after = original.array(source), cut.array(name)
        if before.ndim != after.ndim or any(a > b for a, b in zip(after.shape, before.shape, strict=True)):
            problems.append(f"constant {name}: {before.shape} became {after.shape}")
        elif before.shape == after.shape:
            if not np.array_equal(bits(before), bits(after)):
                problems.append(f"constant {name}: elements changed though none was removed")
        elif not np.isin(bits(after), bits(before)).all():
            problems.append(f"constant {name}: holds elements that {source} does not")
    return problems


def resized(original, masked, forks):
    """Constants of the masked file that have not the shape that they had."""
    problems = []
    for name, tensor in masked.constants.items():
        source = original.constants.get(name if name in original.constants else forks.get(name))
        if source is not None and source.dims != tensor.dims:
            problems.append(f"constant {name}: {list(source.dims)} became {list(tensor.dims)}")
    return problems


def masked_value_problems(original, masked, forks):
    """Each element of a constant of the masked file is as it was or zero."""
    problems = []
    for name, tensor in masked.constants.items():
        source = name if name in original.constants else forks.get(name)
        if source not in original.constants or original.constants[source].dims != tensor.dims:
            continue
        before, after = bits(original.array(source)), bits(masked.array(name))
        if not ((before == after) | (after == 0)).all():
            problems.append(f"constant {name}: holds elements that are neither zero nor as they were")
    return problems


def whole_problems(original, folder):
    """With everything kept, the file and its external data are the same bytes."""
    problems = []
    if (folder / "whole.onnx").read_bytes() != original.path.read_bytes():
        problems.append("with everything kept the file is not byte-equal")
    for location in sorted(original.external_files()):
        if not (folder / location).is_file():
            problems.append(f"with everything kept the external data {location} are missing beside whole.onnx")
        elif (folder / location).read_bytes() != (original.path.parent / location).read_bytes():
            problems.append(f"with everything kept the external data {location} are not byte-equal")
    return problems
