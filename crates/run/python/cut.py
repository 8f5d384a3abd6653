"""Cuts a PyTorch module down to the network that Secateur found, in place. Needs torch and safetensors, nothing else.

    from cut import cut

    module = MyNetwork()                # the class whose export or state dict was pruned, in float32
    module.load_state_dict(...)         # as before: what its BatchNorms know of activations is kept
    cut(module)                         # reads plan.json and model.safetensors beside this file

Layers lose the channels that the plan does not keep and get the repaired weights. A BatchNorm that the pruned network has folded into the
layer in front of it stays a BatchNorm, with the statistics and the scale that it had: the layer's weights and the BatchNorm's shift are
chosen so that both together compute what the pruned network does. So the module can be trained further and exported again. Make optimisers
afterwards: parameters are new ones. Then the module is run on the images of the plan, and must give the stored outputs to 1e-5.

The module's layers are found by running it once: by the names of the plan, else by the weights that they had, else by the order in which they
run. Where something does not fit, CutError says what, and the module is what it was. What cannot be cut: layers that run twice, parametrised
weights, code that has numbers of channels written in it, which it can take from what is there instead: `x.split(x.shape[1] // 2, 1)`,
`x.split([layer.in_channels for layer in self.branches], 1)`.
"""

import contextlib
import itertools
import json
import math
import pathlib
import traceback

import torch
from torch import nn

FORMAT = 1
TOLERANCE = 1e-5
BatchNorm, InstanceNorm = nn.modules.batchnorm._BatchNorm, nn.modules.instancenorm._InstanceNorm
# Which modules compute a layer of the plan: a 1x1 convolution may have been a Linear layer behind a permutation.
KINDS = {
    "Conv2d": (nn.Conv2d, nn.Linear),
    "Linear": (nn.Linear, nn.Conv2d),
    "ConvTranspose2d": (nn.ConvTranspose2d,),
    "BatchNorm": (BatchNorm,),
    "PReLU": (nn.PReLU,),
    "LayerNorm": (nn.LayerNorm,),
    "GroupNorm": (nn.GroupNorm, InstanceNorm),
    "ChannelConv": (nn.Conv1d,),
}
LAYERS = tuple({kind for kinds in KINDS.values() for kind in kinds})
# Operations on constants in an ONNX file that Secateur reads as a BatchNorm, and what leaves everything as it is.
NEUTRAL = {"Mul": 1.0, "Div": 1.0, "Add": 0.0, "Sub": 0.0}
# Scales of a BatchNorm that are smaller than this share of its largest are not divided by.
SCALE_MIN = 1e-3
# Images of a plan hold fewer numbers.
NUMBERS_MAX = 1 << 28


class CutError(ValueError):
    """Why a module is not cut."""


class CannotResize(CutError):
    """Why no module of this class is: its code cannot do with fewer channels."""


def cut(module, folder=pathlib.Path(__file__).parent, tolerance=TOLERANCE):
    """Cuts `module` in place by the plan in `folder`, and returns it."""
    plan = read_plan(pathlib.Path(folder) / "plan.json")
    weights = read_weights(pathlib.Path(folder) / plan["weights"], plan["layers"])
    check_dtypes(module)
    was_training = [m for m in module.modules() if m.training]
    before = [(m, {**vars(m)}, {**m._parameters}, {**m._buffers}) for m in module.modules()]
    module.eval()
    try:
        calls, _ = run(module, plan, CutError, f"the module does not run on images of shape {plan['check']['images']}, which the plan is for")
        pairs = pair_all(plan["layers"], calls, goes_on=plan["check"]["output"] is None)
        of_pairs = [layer for pair in pairs for layer in pair.affine]
        constants = [(layer, *found) for layer in plan["layers"] if layer not in of_pairs for found in find_constants(layer, module)]
        with torch.no_grad():
            for layer, owner, key, op in constants:
                cut_constant(layer, owner, key, op)
            for pair in pairs:
                pair.cut(weights)
        compare(module, plan, pairs, tolerance)
    except BaseException:
        restore(before)
        raise
    finally:
        for m in was_training:
            m.training = True
    return module


def restore(before):
    """Makes modules what they were: tensors and numbers were replaced, none was written into."""
    for module, attributes, parameters, buffers in before:
        vars(module).update(attributes)
        module._parameters.clear(), module._parameters.update(parameters)
        module._buffers.clear(), module._buffers.update(buffers)


# What is read.


def read_plan(path):
    """The plan, as far as its own numbers tell that it is one."""
    try:
        plan = json.loads(path.read_text())
    except OSError as error:
        raise CutError(f"cannot read '{path}' ({error.strerror}): give the folder of a task of a run") from None
    except ValueError as error:
        raise CutError(f"'{path}' is no plan: {error}; take the one that the run wrote") from None
    if not isinstance(plan, dict) or plan.get("format") != FORMAT:
        found = plan.get("format") if isinstance(plan, dict) else None
        raise CutError(f"'{path}' has format {found}, this cut.py reads format {FORMAT}: take the cut.py beside it")
    try:
        for layer in plan["layers"]:
            check_layer(layer)
        names = [layer["name"] for layer in plan["layers"]]
        if len({*names}) < len(names):
            raise ValueError("two layers have one name")
        check = plan["check"]
        if plan["weights"] != pathlib.Path(plan["weights"]).name:
            raise ValueError(f"weights in '{plan['weights']}', which is not beside the plan")
        right = len(check["images"]) == 4 and all(whole(n) and n > 0 for n in check["images"]) and math.prod(check["images"]) <= NUMBERS_MAX
        right = right and isinstance(plan["splits"], list) and (check["output"] is None or all(isinstance(check["output"][key], float) for key in ("rms", "probe")))
        logits = check["logits"]
        if logits is not None:
            torch.tensor(logits, dtype=torch.float64)
            right = right and len(logits) == check["images"][0] and check["output"] is not None
    except (AttributeError, KeyError, TypeError, IndexError, ValueError) as error:
        raise CutError(f"'{path}' was changed: {type(error).__name__} {error}; take the one that the run wrote") from None
    if not right:
        raise CutError(f"'{path}' was changed: what it is checked by does not fit together; take the one that the run wrote")
    return plan


def whole(n):
    return isinstance(n, int) and not isinstance(n, bool)


def channels(layer, shape, groups):
    """Input and output channels of a layer whose weight has this shape."""
    if layer["kind"] == "ConvTranspose2d":
        return shape[0], shape[1] * groups
    if layer["kind"] in ("Conv2d", "Linear"):
        return shape[1] * groups, shape[0]
    return None if layer["kind"] == "ChannelConv" else (shape[0], shape[0])


def check_layer(layer):
    """Lists of channels are in order and of the lengths that the shapes say."""
    if layer["kind"] not in KINDS:
        raise ValueError(f"layer '{layer['name']}' is of kind {layer['kind']}")
    texts = [layer["name"], *(layer[key] for key in ("module", "node", "op", "behind") if layer[key] is not None), *layer["parameters"]]
    numbers = [*layer["shape"], *layer["cut_shape"], layer["groups"], layer["cut_groups"]]
    texts += [text for op, names in layer["absorbed"] for text in (op, *names)]
    is_right = all(isinstance(text, str) for text in texts) and all(whole(n) and n > 0 for n in numbers)
    if not is_right or len(layer["original"]) not in (1, 5) or not all(isinstance(x, (int, float)) for x in layer["original"]):
        raise ValueError(f"layer '{layer['name']}'")
    if layer["output"] is not None and not all(isinstance(layer["output"][key], float) for key in ("rms", "probe")):
        raise ValueError(f"output of layer '{layer['name']}'")
    before, after = (channels(layer, layer[of + "shape"], layer[of + "groups"]) for of in ("", "cut_"))
    lists = layer["keep_inputs"], layer["keep_outputs"]
    for kept, n, n_kept in zip(lists, before or (), after or ()):
        in_order = all(whole(c) for c in kept) and kept == sorted(set(kept)) and len(kept) == n_kept
        if not in_order or not kept or kept[0] < 0 or kept[-1] >= n:
            raise ValueError(f"layer '{layer['name']}' keeps other channels than {n_kept} of {n}")


def read_weights(path, layers):
    """The repaired weights, of which no layer's is missing or of another shape."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        weights = load_file(path)
    except FileNotFoundError:
        raise CutError(f"cannot find '{path}': the weights must lie beside the plan") from None
    except (OSError, SafetensorError) as error:
        raise CutError(f"cannot read '{path}': {error}; take the one that the run wrote") from None
    for layer in layers:
        weight = weights.get(layer["name"] + ".weight")
        if weight is None or list(weight.shape) != layer["cut_shape"]:
            found = "is missing" if weight is None else f"has shape {list(weight.shape)}, the plan says {layer['cut_shape']}"
            raise CutError(f"'{path}' is not of this plan: the weight of '{layer['name']}' {found}; take both from one run")
        n = channels(layer, layer["cut_shape"], layer["cut_groups"])
        for key in ("bias", "running_mean", "running_var"):
            vector = weights.get(f"{layer['name']}.{key}")
            is_missing = vector is None and (key == "bias" or layer["kind"] == "BatchNorm") and layer["kind"] in ("BatchNorm", "LayerNorm", "GroupNorm")
            if is_missing or vector is not None and list(vector.shape) != [n[1] if n else 1]:
                found = "is missing" if is_missing else f"has shape {list(vector.shape)}"
                raise CutError(f"'{path}' is not of this plan: the {key} of '{layer['name']}' {found}; take both from one run")
    return weights


def check_dtypes(module):
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        if tensor.is_floating_point() and tensor.dtype != torch.float32:
            raise CutError(f"'{name}' of the module is {tensor.dtype}, expected torch.float32: call module.float() before cutting, module.to() after")


# What a module runs.


class Call:
    """A layer as it ran: what it read and made."""

    def __init__(self, path, module, image, output):
        self.path, self.module = path, module
        self.reads, self.makes = identity(image), identity(output)
        self.mark = mark(output, module)


def identity(tensor):
    """The same for a tensor and its views as long as nothing writes into them."""
    return tensor.untyped_storage().data_ptr(), tensor._version, tensor.numel()


def noise(n):
    """`n` numbers from 0 to 1, as in the plan."""
    x = torch.arange(1, n + 1, dtype=torch.int64) & 0xFFFFFFFF
    for factor in (0x7FEB352D, 0x846CA68B):
        x = ((x ^ (x >> 16)) * factor) & 0xFFFFFFFF
    return ((x ^ (x >> 16)) >> 8).double() / 2**24


def mark(output, module=None):
    """Two numbers by which the plan knows an output: its root mean square, and its mean weighed by `noise`."""
    behind = isinstance(module, nn.Linear) or (isinstance(module, nn.LayerNorm) and output.shape[1] != module.normalized_shape[-1])
    x = output.movedim(-1, 1) if behind and output.dim() > 2 else output
    x = x.detach().cpu().double().flatten(1)
    return {"rms": x.square().mean().sqrt().item(), "probe": (x * noise(x.shape[1])).mean().item()}


def is_mark(found, expected, tolerance):
    return all(abs(found[key] - expected[key]) <= tolerance * expected["rms"] for key in expected)


def run(module, plan, failure, problem):
    """The layers that the module runs on the plan's images, in order, and its outputs; a module that does not run is a `problem`."""
    calls, alive, paths = [], [], {m: path for path, m in module.named_modules()}

    def note(layer, images, options, output):
        if any(call.module is layer for call in calls) and [*layer.parameters()]:
            raise CannotResize(f"layer '{paths[layer]}' runs twice: its weights cannot fit both places; make it two layers, load the weights into both, and prune that")
        image = images[0] if images else next(iter(options.values()))
        # Kept, so that no other tensor takes their place in memory.
        alive.extend((image, output))
        calls.append(Call(paths[layer], layer, image, output))

    n, *shape = plan["check"]["images"]
    device = next((p.device for p in module.parameters()), torch.device("cpu"))
    images = torch.stack([4 * noise(n * shape[0] * shape[1] * shape[2]) - 2]).float().view(n, *shape).to(device)
    hooks = [m.register_forward_hook(note, with_kwargs=True) for m in module.modules() if isinstance(m, LAYERS)]
    try:
        with torch.no_grad(), exact():
            return calls, module(images)
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        if isinstance(error, CutError):
            raise
        raise failure(f"{problem} ({str(error).splitlines()[0]}{place(error)})") from error
    finally:
        for hook in hooks:
            hook.remove()


def place(error):
    """Which lines of the module's own code an error came up in, the outer one first."""
    foreign = (str(pathlib.Path(torch.__file__).parent), __file__)
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(foreign)]
    lines = [f"'{frame.filename}', line {frame.lineno}, `{frame.line}`" for frame in frames[-2:]]
    return f", at {', then '.join(lines)}" if lines else ""


@contextlib.contextmanager
def exact():
    """Products of 32 bits on graphics cards, too."""
    backends = torch.backends.cuda.matmul, torch.backends.cudnn
    before = [backend.allow_tf32 for backend in backends]
    try:
        for backend in backends:
            backend.allow_tf32 = False
        yield
    finally:
        for backend, allowed in zip(backends, before):
            backend.allow_tf32 = allowed


# Which layer of the plan is which of the module's.


class Pair:
    """A layer of the plan, the module that computes it, and the BatchNorms behind it that the plan has folded into it."""

    def __init__(self, layer, call):
        self.layer, self.path, self.module, self.norms = layer, call.path, call.module, []
        # Exporters write the scale and the shift of a GroupNorm as products and sums of their own.
        self.affine = []

    def cut(self, weights):
        parameters = {key.rpartition(".")[2]: value for key, value in weights.items() if key.rpartition(".")[0] == self.layer["name"]}
        for layer in self.affine:
            key = "weight" if layer["op"] == "Mul" else "bias"
            parameters[key] = weights[f"{layer['name']}.{key}"]
        device = next((t.device for t in [*self.module.parameters(), *self.module.buffers()]), None)
        parameters = {key: value.to(device).double() for key, value in parameters.items()}
        cut_layer(self.module, self.layer, parameters, [norm.module for norm in self.norms])

    def last(self):
        return self.norms[-1] if self.norms else self

    def mark(self):
        return self.affine[-1]["output"] if self.affine else self.layer["output"]


def is_constant(layer):
    """Whether a BatchNorm of the plan is a product or a sum in the ONNX file."""
    return layer["kind"] == "BatchNorm" and layer["op"] not in (None, "BatchNormalization")


def pair_all(layers, calls, goes_on):
    """Every layer of the plan with its module, in the order in which they run. A module that goes on has others behind them, which stay."""
    for call in calls:
        check_module(call)
    is_norm = lambda call: isinstance(call.module, BatchNorm)
    norms = [layer for layer in layers if layer["kind"] == "BatchNorm" and not is_constant(layer)]
    after = {call.reads: call.module for call in calls}
    pairs = match([layer for layer in layers if layer["kind"] != "BatchNorm"], [call for call in calls if not is_norm(call)], after, goes_on)
    of_module = {pair.module: pair for pair in pairs}
    makers = {call.makes: of_module[call.module] for call in calls if call.module in of_module}
    apart = {layer["behind"]: layer for layer in norms}
    free = []
    for call in filter(is_norm, calls):
        pair = makers.get(call.reads)
        if pair is None or pair.layer["name"] in apart or pair.layer["kind"] not in ("Conv2d", "ConvTranspose2d", "Linear"):
            free.append(call)
        else:
            pair.norms.append(call)
            makers[call.makes] = pair
    pairs += match(norms, free, after, goes_on)
    for pair in pairs:
        if pair.layer["kind"] in ("GroupNorm", "LayerNorm"):
            behind = layers[layers.index(pair.layer) + 1 :]
            own = lambda layer: is_constant(layer) and layer["op"] in ("Mul", "Add") and layer["module"] == pair.layer["module"]
            pair.affine = list(itertools.takewhile(own, behind))
    order = {call.module: i for i, call in enumerate(calls)}
    return sorted(pairs, key=lambda pair: order[pair.module])


def check_module(call):
    if "weight" not in call.module._parameters and hasattr(call.module, "weight"):
        raise CannotResize(f"the weight of '{call.path}' is computed from others: call torch.nn.utils.parametrize.remove_parametrizations or remove_weight_norm first")
    if isinstance(call.module, BatchNorm) and call.module.running_mean is None:
        raise CutError(f"BatchNorm '{call.path}' keeps no running statistics: what it computes depends on the batch, so that no plan fits")


def match(layers, calls, after, goes_on):
    """Layers of the plan and calls of the module, one to one but for those of a module that goes on."""
    pairs, layers, calls = [], list(layers), list(calls)

    def take(is_it):
        for layer in list(layers):
            found = [call for call in calls if fits(layer, call.module) and is_it(layer, call)]
            if len(found) == 1:
                pairs.append(Pair(layer, found[0]))
                layers.remove(layer)
                calls.remove(found[0])

    take(lambda layer, call: call.path == layer["module"])
    # A wrapper may have put its name in front of all others, here or where the network came from.
    take(lambda layer, call: ends(call.path, layer["module"]))
    take(lambda layer, call: has_weight(layer, call, after))
    for layer, call in zip(layers, calls):
        if not fits(layer, call.module):
            raise CutError(f"the module is not the one of the plan: '{call.path}' is {described(call.module)} where the plan has {wanted(layer)}")
        pairs.append(Pair(layer, call))
    if len(layers) > len(calls):
        raise CutError(f"the module is not the one of the plan: it lacks {wanted(layers[len(calls)])}")
    if len(calls) > len(layers) and not goes_on:
        call = calls[len(layers)]
        raise CutError(f"the module is not the one of the plan, which has no layer for '{call.path}', {described(call.module)}")
    return pairs


def ends(a, b):
    """Whether one path is the end of the other."""
    return bool(a and b) and (a.endswith("." + b) or b.endswith("." + a))


def fits(layer, module):
    """Whether the module is of the kind and the size that the layer had before it was cut."""
    if not isinstance(module, KINDS[layer["kind"]]):
        return False
    if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
        shape = layer["shape"] + [1] * (module.weight.dim() - len(layer["shape"]))
        plain = list(module.weight.shape) + [1] * (len(shape) - module.weight.dim())
        return shape == plain and getattr(module, "groups", 1) == layer["groups"]
    if isinstance(module, nn.Conv1d):
        return module.weight.numel() == layer["shape"][0]
    if isinstance(module, nn.PReLU):
        return module.num_parameters in (1, layer["shape"][0])
    if isinstance(module, nn.GroupNorm):
        return (module.num_channels, module.num_groups) == (layer["shape"][0], layer["groups"])
    size = module.normalized_shape[-1] if isinstance(module, nn.LayerNorm) else module.num_features
    return size == layer["shape"][0]


def has_weight(layer, call, after):
    """Whether the module's weight, with a BatchNorm behind it, is the one that was pruned."""
    weight, norm = call.module.weight, after.get(call.makes)
    if weight is None or not layer["original"] or weight.numel() == 0:
        return False
    weight = weight.detach().cpu().double()
    if isinstance(norm, BatchNorm) and weight.dim() > 1:
        scale = norm_numbers(norm)[0].cpu()
        weight = scaled(weight, scale, layer["groups"] if isinstance(call.module, nn.ConvTranspose2d) else None)
    flat, n = weight.flatten(), len(layer["original"]) - 1
    found = torch.stack([flat.norm(), *(flat[i * (len(flat) - 1) // (n - 1)] for i in range(n))])
    expected = torch.tensor(layer["original"], dtype=torch.float64)
    return bool(((found - expected).abs() <= 1e-4 * expected.abs().clamp(min=1e-3 * float(flat.abs().max()))).all())


def described(module):
    size = module.extra_repr().split(", ")
    return f"a {type(module).__name__}({', '.join(size[:3])})"


def wanted(layer):
    n = channels(layer, layer["shape"], layer["groups"])
    size = f" of {n[0]} inputs and {n[1]} outputs" if n else ""
    kernel = f", kernel {'x'.join(map(str, layer['shape'][2:]))}" if len(layer["shape"]) > 2 else ""
    return f"'{layer['module'] or layer['node'] or layer['name']}', a {layer['kind']}{size}{kernel}"


# How a layer is cut.


def norm_numbers(norm):
    """Scale, mean and shift of a BatchNorm, in 64 bits."""
    gamma = norm.running_var.new_ones(norm.num_features) if norm.weight is None else norm.weight.detach()
    beta = torch.zeros_like(gamma) if norm.bias is None else norm.bias.detach()
    return gamma.double() / (norm.running_var.double() + norm.eps).sqrt(), norm.running_mean.double(), beta.double()


def scaled(weight, scale, groups):
    """The weight with each output channel scaled; `groups` are those of a transposed convolution."""
    if groups is None:
        return weight * scale.view(-1, *[1] * (weight.dim() - 1))
    n_in, per_group, *kernel = weight.shape
    scale = scale.view(groups, 1, per_group, *[1] * len(kernel))
    return (weight.view(groups, n_in // groups, per_group, *kernel) * scale).reshape(weight.shape)


def put(module, key, value):
    """A parameter or buffer of a new shape; a parameter that was frozen stays frozen."""
    old = getattr(module, key)
    value = value.float().contiguous().clone()
    if key in module._buffers:
        module._buffers[key] = value
    else:
        module.register_parameter(key, nn.Parameter(value, requires_grad=module.weight.requires_grad if old is None else old.requires_grad))


def cut_layer(module, layer, parameters, norms):
    """Gives one layer, and the BatchNorms behind it, its channels and its weights."""
    resize(module, layer)
    weight, bias = parameters["weight"], parameters.get("bias")
    if isinstance(module, nn.PReLU) and module.weight.numel() == 1:
        weight = weight[:1]
    if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
        keep = torch.tensor(layer["keep_outputs"], device=weight.device)
        if norms:
            groups = layer["cut_groups"] if isinstance(module, nn.ConvTranspose2d) else None
            weight, bias = behind_norms(module, weight, bias, norms, keep, groups)
        weight = weight.reshape(*weight.shape[:2], *module.weight.shape[2:])
        if bias is None and module.bias is not None:
            bias = weight.new_zeros(len(keep))
    elif isinstance(module, nn.Conv1d):
        weight = weight.reshape(module.weight.shape)
    for key, value in {**parameters, "weight": weight, "bias": bias}.items():
        # A norm without a scale or a shift has what the pruned network has as ones or zeros; a layer gets the bias that it lacks.
        is_fixed = getattr(module, key, None) is None and not (key == "bias" and isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)))
        if value is not None and not is_fixed:
            put(module, key, value)


def behind_norms(module, weight, bias, norms, keep, groups):
    """What the layer needs so that it and the BatchNorms behind it compute what `weight` and `bias` alone do."""
    norm, n = norms[0], len(keep)
    bias = weight.new_zeros(n) if bias is None else bias
    own = weight.new_zeros(n) if module.bias is None else module.bias.detach().double()[keep]
    for other in norms[1:]:
        neutral = torch.ones(n, dtype=torch.bool, device=weight.device)
        cut_norm(other, keep, neutral)
        if other.bias is not None:
            put(other, "bias", weight.new_zeros(n))
    scale = norm_numbers(norm)[0][keep]
    cut_norm(norm, keep, scale.abs() < SCALE_MIN * scale.abs().max() if norm.weight is not None else torch.zeros_like(scale, dtype=torch.bool))
    scale, mean, _ = norm_numbers(norm)
    weight = scaled(weight, 1 / scale, groups)
    if norm.bias is None:
        return weight, bias / scale + mean
    put(norm, "bias", bias - (own - mean) * scale)
    return weight, None if module.bias is None else own


def cut_norm(norm, keep, neutral):
    """Channels of a BatchNorm; those that are `neutral` are passed on as they are."""
    for key, value in (("weight", 1.0), ("bias", 0.0), ("running_mean", 0.0), ("running_var", 1.0 - norm.eps)):
        if getattr(norm, key) is not None:
            put(norm, key, getattr(norm, key).detach()[keep].masked_fill(neutral, value))
    norm.num_features = len(keep)


def resize(module, layer):
    n_in, n_out = len(layer["keep_inputs"]), len(layer["keep_outputs"])
    if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
        module.in_channels, module.out_channels, module.groups = n_in, n_out, layer["cut_groups"]
    elif isinstance(module, nn.Linear):
        module.in_features, module.out_features = n_in, n_out
    elif isinstance(module, nn.GroupNorm):
        module.num_channels, module.num_groups = n_out, layer["cut_groups"]
    elif isinstance(module, (BatchNorm, InstanceNorm)):
        module.num_features = n_out
    elif isinstance(module, nn.LayerNorm):
        module.normalized_shape = (n_out,)
    elif isinstance(module, nn.PReLU) and module.num_parameters > 1:
        module.num_parameters = n_out


# Parameters that stand in no layer, such as scales of residual branches.


def find_constants(layer, module):
    """Where constants of a layer stand in the module: the part, the parameter's name, the operation (None: it is folded into the layer)."""
    sources = [(op, names, True) for op, names in layer["absorbed"]]
    tensors = [name for name, _ in [*module.named_parameters(), *module.named_buffers()]]
    if is_constant(layer) and layer["op"] in NEUTRAL:
        sources.append((layer["op"], layer["parameters"], False))
    for op, names, is_folded in sources:
        for name in names:
            known = [known for known in tensors if known == name or ends(known, name)]
            if len(known) != 1:
                if is_folded or layer["cut_shape"] != layer["shape"]:
                    raise CannotResize(f"the constant '{name}' ({op}) behind '{layer['module'] or layer['name']}' is no parameter of the module: make it one, export again, and prune that")
                continue
            path, _, key = known[0].rpartition(".")
            yield module.get_submodule(path), key, (op if is_folded else None)


def cut_constant(layer, owner, key, op):
    """A parameter beside layers loses the channels that its layer loses; one that was folded into the layer then does nothing."""
    value = getattr(owner, key).detach()
    n, keep = channels(layer, layer["shape"], layer["groups"])[1], torch.tensor(layer["keep_outputs"], device=value.device)
    axis = [i for i, size in enumerate(value.shape) if size == n]
    if axis and n > 1:
        value = value.index_select(axis[0], keep)
    if op is not None:
        value = torch.full_like(value, NEUTRAL.get(op, 1.0))
    is_parameter = key in owner._parameters
    if is_parameter:
        owner.register_parameter(key, nn.Parameter(value.clone(), requires_grad=getattr(owner, key).requires_grad))
    else:
        setattr(owner, key, value.clone())


# Whether it worked.


def tensors_of(output):
    """All tensors of a module's output, in order."""
    if isinstance(output, torch.Tensor):
        return [output]
    items = output.values() if isinstance(output, dict) else output if isinstance(output, (list, tuple)) else []
    return [tensor for item in items for tensor in tensors_of(item)]


def unequal(plan):
    """What is to be said of parts that code with chunk() would not make."""
    for split in plan["splits"]:
        first, last = split["channels"]
        cut_first, cut_last = split["cut_channels"]
        if split["of"] == 2 * (last - first) and split["cut_of"] != 2 * (cut_last - cut_first):
            return f"; at '{split['name']}' the plan takes {cut_last - cut_first} of {split['cut_of']} channels where there were halves: code with chunk() cannot"
    return ""


def compare(module, plan, pairs, tolerance):
    """Raises CutError unless the module computes what the plan says, with the first layer that does not."""
    check = plan["check"]
    calls, output = run(
        module,
        plan,
        CannotResize,
        f"the module does not run without the channels that the plan removes{unequal(plan)}; it seems that numbers of channels are written in its code: take them"
        " from tensors and layers there, as in `x.shape[1] // 2` or `self.conv.in_channels`, and cut again, or spare these channels in the scene with `keep`",
    )
    outputs = [tensor for tensor in tensors_of(output) if tensor.dim() > 0 and tensor.shape[0] == check["images"][0]]
    found = torch.cat([tensor.detach().cpu().double().flatten(1) for tensor in outputs], 1) if outputs else torch.zeros(1, 0)
    if check["logits"] is not None and found.shape[1] == len(check["logits"][0]):
        expected = torch.tensor(check["logits"], dtype=torch.float64)
        error = float((found - expected).abs().max() / expected.abs().max().clamp(min=1e-30))
        if error <= tolerance:
            return
        problem = f"outputs differ from the plan's by {error:.1e} of the largest, at most {tolerance:.0e} is expected"
    elif check["output"] is None:
        problem = "layers are not those of the plan"
    elif found.numel() > 0 and is_mark(mark(found), check["output"], tolerance):
        return
    else:
        problem = "outputs are not those of the plan"
    marks = {call.module: call.mark for call in calls}
    is_plain = lambda at: not isinstance(at.module, BatchNorm) or type(at.module).forward is BatchNorm.forward
    checked = [pair for pair in pairs if pair.mark() is not None and is_plain(pair.last()) and pair.last().module in marks]
    differs = [pair for pair in checked if not is_mark(marks[pair.last().module], pair.mark(), tolerance)]
    if check["output"] is None and checked and not differs:
        return
    first = f"; the first layer that differs is '{differs[0].path}'" if differs else "; all of its layers agree, so what follows them differs"
    raise CutError(f"without the channels that the plan removes, the module's {problem}{first}")
