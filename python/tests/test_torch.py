"""PyTorch modules in, fewer channels, and the same modules out."""

import sys
import zlib

import numpy
import pytest
import secateur
import secateur.torch
from conftest import ROOT

torch = pytest.importorskip("torch")
torchvision = pytest.importorskip("torchvision")
sys.path.insert(0, str(ROOT / "tests" / "onnx"))
import export  # noqa: E402  random weights that make outputs worth comparing

# name: rows and columns of the images. The first few are what a quick look takes.
NETWORKS = {
    "resnet18": 64,
    "mobilenet_v2": 64,
    "squeezenet1_1": 64,
    "mobilenet_v3_small": 64,
    "shufflenet_v2_x0_5": 64,
    "googlenet": 64,
    "vgg11_bn": 64,
    "efficientnet_b0": 64,
    "resnet50": 64,
    "densenet121": 64,
}


def make(name, size):
    torch.manual_seed(zlib.crc32(name.encode()))
    options = {"googlenet": {"aux_logits": False, "init_weights": True}}.get(name, {})
    module = torchvision.models.get_model(name, weights=None, **options).eval()
    if name.startswith("vgg"):
        export.narrow_head(module, 512)
    export.fill_at_random(module.eval(), torch.randn(8, 3, size, size))
    return module


def difference(network, module, images):
    """The largest difference of outputs, as a share of the largest output."""
    with torch.no_grad():
        expected = module(images).numpy()
    return abs(network.logits(images.numpy()) - expected).max() / abs(expected).max()


def half_of_the_macs(network):
    """The network with the largest share of all groups' channels that costs at most half."""
    low, high = 0.3, 1.0
    for _ in range(6):
        share = (low + high) / 2
        low, high = (share, high) if network.prune(share).macs <= network.macs / 2 else (low, share)
    return network.prune(low)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_module_comes_back_whole_and_with_half_of_its_macs(name, tmp_path):
    size = NETWORKS[name]
    module = make(name, size)
    images = torch.randn(4, 3, size, size, generator=torch.Generator().manual_seed(1))
    network = secateur.torch.from_module(module, images[:1])
    assert difference(network, module, images) < 1e-4
    dense = secateur.torch.to_module(network, module)
    assert dense is module and difference(network, dense, images) < 1e-4
    half = half_of_the_macs(network)
    assert 0.3 * network.macs < half.macs <= 0.5 * network.macs
    n_before = sum(p.numel() for p in module.parameters())
    cut = secateur.torch.to_module(half, module)
    assert cut is module and sum(p.numel() for p in cut.parameters()) < n_before
    assert difference(half, cut, images) < 1e-4
    # What is exported again is the same network.
    again = secateur.torch.from_module(cut, images[:1])
    assert difference(again, cut, images) < 1e-4
    # And it learns.
    cut.train()
    optimizer = torch.optim.SGD(cut.parameters(), lr=1e-3)
    before = [p.detach().clone() for p in cut.parameters()]
    torch.nn.functional.cross_entropy(cut(images), torch.tensor([1, 2, 3, 4])).backward()
    optimizer.step()
    assert all(torch.isfinite(p).all() for p in cut.parameters())
    assert any(not torch.equal(a, b) for a, b in zip(before, cut.parameters()))


class Small(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.first = torch.nn.Conv2d(3, 8, 3, padding=1)
        self.second = torch.nn.Conv2d(8, 8, 3, padding=1)
        self.head = torch.nn.Linear(8, 10)

    def forward(self, x):
        x = torch.relu(self.second(torch.relu(self.first(x))))
        return self.head(x.mean((2, 3)))


@pytest.fixture
def small():
    torch.manual_seed(5)
    return Small().eval()


EXAMPLE = torch.zeros(1, 3, 16, 16)


def test_a_module_gets_the_weights_of_a_repaired_network(small):
    images = torch.rand(80, 3, 16, 16, generator=torch.Generator().manual_seed(3))
    network = secateur.torch.from_module(small, EXAMPLE)
    with torch.no_grad():
        before = small(images[40:])
    repaired, error = network.prune(0.5, images[:40]), lambda pruned: abs(pruned.logits(images[40:]) - before.numpy()).mean()
    assert error(repaired) < 0.5 * error(network.prune(0.5))
    cut = secateur.torch.to_module(repaired, small)
    assert cut is small and cut.first.out_channels == 4 and difference(repaired, cut, images) < 1e-4


def test_a_task_of_a_run_is_cut_into_the_users_module(small, tmp_path):
    torch.onnx.export(small, torch.randn(2, 3, 32, 32), str(tmp_path / "small.onnx"), dynamo=False, dynamic_axes={"input": {0: "batch"}}, input_names=["input"])
    scene = {
        "networks": [{"name": "small", "file": tmp_path / "small.onnx"}],
        "datasets": [{"name": "shapes", "source": secateur.Ron("Procedural(kind: Shapes, seed: 1, train: 200, test: 100)")}],
        "budgets": "[Macs(ratio: 0.6)]",
        "protocol": "Full",
        "agent": "Uniform",
        "controls": [],
        "reward": "Kl",
        "images": {"reward": 60, "calibration": 60, "walk": 20, "refit": 60},
    }
    task = secateur.run(scene, out=tmp_path / "run", progress=False).tasks[0]
    cut = secateur.torch.to_module(task, small)
    assert isinstance(cut, Small) and cut.first.out_channels < 8
    images = torch.randn(4, 3, 32, 32)
    assert difference(task.network(), cut, images) < 1e-4


def test_another_module_is_refused_by_its_first_layer_and_stays_what_it_was(small):
    network = secateur.torch.from_module(small, EXAMPLE)
    other = Small().eval()
    other.load_state_dict(small.state_dict())
    with torch.no_grad():
        other.second.bias += 1.0
    before = {name: tensor.clone() for name, tensor in other.state_dict().items()}
    # Weights are those of the network, whatever the module had; what it does otherwise is told by the layer.
    class Louder(Small):
        def forward(self, x):
            return self.head(torch.relu(self.second(2 * torch.relu(self.first(x)))).mean((2, 3)))

    louder = Louder().eval()
    louder.load_state_dict(small.state_dict())
    with pytest.raises(secateur.ModuleError, match="first layer that differs is 'second'"):
        secateur.torch.to_module(network.prune({next(iter(network.widths)): 4}), louder)
    assert all(torch.equal(tensor, small.state_dict()[name]) for name, tensor in louder.state_dict().items())
    assert all(torch.equal(tensor, before[name]) for name, tensor in other.state_dict().items())


def test_bad_modules_and_tensors_are_refused_by_what_is_wrong(small, tmp_path):
    def refused(error, pattern, module, example):
        with pytest.raises(error, match=pattern):
            secateur.torch.from_module(module, example)

    small.second.train()
    refused(secateur.ModuleError, "second is in training mode", small, EXAMPLE)
    small.eval()
    refused(secateur.ArgumentError, r"expected torch.float32, got torch.float64", small, EXAMPLE.double())
    refused(secateur.ArgumentError, r"expected shape \[N, C, H, W\], got \[3, 16, 16\]", small, EXAMPLE[0])
    refused(secateur.ArgumentError, "expected a torch.Tensor, got ndarray", small, EXAMPLE.numpy())
    refused(secateur.ArgumentError, "is on meta", small, EXAMPLE.to("meta"))
    refused(secateur.ModuleError, "expected a torch.nn.Module, got function", lambda x: x, EXAMPLE)
    refused(secateur.ModuleError, "'first.weight' is torch.float64", Small().double().eval(), EXAMPLE)
    refused(secateur.ModuleError, "'first.weight' is on meta", Small().to("meta").eval(), EXAMPLE)
    with pytest.raises(secateur.ModuleError, match="no plan.json"):
        secateur.torch.to_module(tmp_path, small)
    with pytest.raises(secateur.ModuleError, match="expected a torch.nn.Module"):
        secateur.torch.to_module(tmp_path, "small")

    class Pair(Small):
        def forward(self, x):
            return super().forward(x), x

    refused(secateur.ModuleError, "returns a tuple, expected one tensor", Pair().eval(), EXAMPLE)


def test_a_strided_example_is_made_contiguous(small):
    example = torch.randn(2, 16, 16, 3).permute(0, 3, 1, 2)
    network = secateur.torch.from_module(small, example)
    assert network.inspect()["input"] == [3, 16, 16] and difference(network, small, example.contiguous()) < 1e-4


def test_code_that_decides_by_values_is_refused_with_its_place():
    class Decides(Small):
        def forward(self, x):
            if x.sum() > 0:
                x = -x
            return super().forward(x)

    with pytest.raises(secateur.ModuleError, match=r"cannot be traced; its code decides by values at .*test_torch.py:\d+"):
        secateur.torch.from_module(Decides().eval(), EXAMPLE)


def test_data_takes_the_first_images_of_a_loader(small):
    images, labels = torch.randn(10, 3, 16, 16), torch.arange(10)
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(images, labels), batch_size=4)
    found, classes = secateur.torch.data(loader, 7)
    numpy.testing.assert_array_equal(found, images[:7].numpy())
    assert classes.tolist() == [*range(7)] and classes.dtype == numpy.int64
    same, _ = secateur.torch.data((images.numpy(), labels.numpy()), 10)
    numpy.testing.assert_array_equal(same, images.numpy())
    network = secateur.torch.from_module(small, EXAMPLE)
    with torch.no_grad():
        predicted = small(images).argmax(1)
    assert secateur.evaluate(network, images, predicted).top1 == 1.0
    with pytest.raises(secateur.ArgumentError, match="has 10 images, 11 were asked for"):
        secateur.torch.data(loader, 11)
    with pytest.raises(secateur.ArgumentError, match="batches of"):
        secateur.torch.data([images], 3)
