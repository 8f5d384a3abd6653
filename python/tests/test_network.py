"""A network by itself computes what the program says of it."""

import os
import pathlib
import re

import numpy
import pytest
import secateur
from conftest import ROOT

MODELS = sorted((ROOT / "scenes" / "quickstart").glob("*.safetensors"))


@pytest.fixture(scope="module")
def network():
    return secateur.Network.load(MODELS[0])


@pytest.fixture(scope="module")
def images(network):
    shape = network.inspect()["input"]
    return numpy.random.default_rng(3).integers(0, 256, (40, *shape), dtype=numpy.uint8)


def test_pixels_and_normalised_floats_give_the_same(network, images):
    report = network.inspect()
    mean, std = (numpy.array(report[key], dtype=numpy.float32).reshape(-1, 1, 1) for key in ("mean", "std"))
    floats = (images.astype(numpy.float32) / 255 - mean) / std
    found, expected = network.logits(images), network.logits(floats)
    assert found.shape == (40, report["classes"]) and found.dtype == numpy.float32
    numpy.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 * abs(expected).max())
    # Any view is read as what it shows.
    numpy.testing.assert_array_equal(network.logits(images[::2]), found[::2])
    numpy.testing.assert_array_equal(network.logits(images.transpose(0, 1, 3, 2).copy().transpose(0, 1, 3, 2)), found)


def test_evaluate_counts_as_the_program_does(binary, images, tmp_path):
    network = secateur.Network.load(MODELS[0])
    labels = network.logits(images).argmax(1)
    # A quarter of the labels is wrong.
    labels[::4] = (labels[::4] + 1) % network.inspect()["classes"]
    found = secateur.evaluate(network, images, labels)
    assert (found.n_correct, found.n, found.top1) == (30, 40, 0.75)
    numpy.savez(tmp_path / "all.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    printed = binary("eval", MODELS[0], "--dataset", f"arrays:{tmp_path / 'all.npz'}")
    assert printed.splitlines()[-1] == "top1 0.7500 (30 of 40)"


def test_resnet20_on_cifar10_as_published():
    data, models = os.environ.get("SECATEUR_DATA"), os.environ.get("SECATEUR_MODELS")
    if not data or not models:
        pytest.skip("set SECATEUR_DATA and SECATEUR_MODELS to the folders of data sets and networks")
    rows = numpy.fromfile(pathlib.Path(data) / "cifar-10-batches-bin" / "test_batch.bin", dtype=numpy.uint8).reshape(-1, 3073)
    network = secateur.Network.load("resnet20", model_root=models)
    assert secateur.evaluate(network, rows[:, 1:].reshape(-1, 3, 32, 32), rows[:, 0]).n_correct == 9173


def test_pruning_keeps_the_channels_of_largest_norm_and_costs_what_it_says(network, tmp_path):
    widths = network.widths
    assert len(widths) > 1 and not network._inner.is_pruned
    half = network.prune({name: n // 2 for name, n in widths.items()})
    assert half.widths == {name: n // 2 for name, n in widths.items()}
    assert half.macs < network.macs and half.params < network.params
    half.save(tmp_path / "half")
    again = secateur.Network.load(tmp_path / "half" / "model.safetensors")
    assert (again.macs, again.params) == (half.macs, half.params)
    as_onnx = secateur.Network.from_onnx((tmp_path / "half" / "model.onnx").read_bytes())
    images = numpy.random.default_rng(1).standard_normal((5, *network.inspect()["input"])).astype(numpy.float32)
    numpy.testing.assert_array_equal(again.logits(images), half.logits(images))
    numpy.testing.assert_allclose(as_onnx.logits(images), half.logits(images), rtol=1e-4, atol=1e-4)
    # Nothing removed is the network itself.
    numpy.testing.assert_array_equal(network.prune(1.0).logits(images), network.logits(images))


def test_repaired_on_images_a_network_stays_nearer_to_what_it_was(network, tmp_path):
    draw = numpy.random.default_rng(5)
    means = draw.uniform(40, 200, (120, 3, 1, 1))
    images = numpy.clip(means + draw.normal(0, 40, (120, *network.inspect()["input"])), 0, 255).astype(numpy.uint8)
    before, told = network.logits(images[60:]), []
    cut = network.prune(0.6)
    repaired = network.prune(0.6, images[:60], progress=lambda *stage: told.append(stage))
    assert repaired.widths == cut.widths and repaired.macs == cut.macs
    error = lambda pruned: float(((pruned.logits(images[60:]) - before) ** 2).mean())
    assert error(repaired) < 0.5 * error(cut), "on images that the refit did not see"
    assert told[0][0] == "refit" and "60 images" in told[0][1]
    # As the same floats, on any number of threads, and in its files: the same network.
    one = secateur.Network.load(MODELS[0], threads=1).prune(0.6, images[:60])
    numpy.testing.assert_array_equal(one.logits(images), repaired.logits(images))
    repaired.save(tmp_path / "repaired")
    again = secateur.Network.load(tmp_path / "repaired" / "model.safetensors")
    numpy.testing.assert_array_equal(again.logits(images), repaired.logits(images))
    as_onnx = secateur.Network.from_onnx((tmp_path / "repaired" / "model.onnx").read_bytes(), mean=[0.0] * 3, std=[1.0] * 3)
    floats = draw.standard_normal((4, *network.inspect()["input"])).astype(numpy.float32)
    numpy.testing.assert_allclose(as_onnx.logits(floats), repaired.logits(floats), rtol=1e-4, atol=1e-4)
    # Outputs that are any numbers are kept one by one.
    assert error(network.prune(0.6, images[:60], outputs="values")) < error(cut)
    with pytest.raises(secateur.ArgumentError, match="outputs: expected 'logits' or 'values', got 'classes'"):
        network.prune(0.6, images, outputs="classes")
    with pytest.raises(secateur.ArgumentError, match=r"expected shape \[N, 3, 32, 32\]"):
        network.prune(0.6, images[..., 1:])
    with pytest.raises(secateur.SecateurError, match="image"):
        network.prune(0.6, images[:0])


def test_bad_widths_and_images_are_refused_by_what_is_wrong(network, images):
    def refused(pattern, call):
        with pytest.raises(secateur.ArgumentError, match=pattern):
            call()

    name, n = next(iter(network.widths.items()))
    refused("no group 'none'; those that can be pruned are", lambda: network.prune({"none": 1}))
    refused(re.escape(f"expected a width from 1 to {n}, got 0"), lambda: network.prune({name: 0}))
    refused("share in", lambda: network.prune(1.5))
    refused("pruned before", lambda: network.prune({name: 1}).prune({name: 1}))
    refused("float64", lambda: network.logits(images.astype(numpy.float64)))
    refused(r"expected shape \[N, C, H, W\], got \[3, ", lambda: network.logits(images[0]))
    refused(r"expected shape \[N, 3, 32, 32\], got \[40, 3, 32, 31\]", lambda: network.logits(images[..., 1:]))
    refused("one for each of 40 images, got 39", lambda: secateur.evaluate(network, images, numpy.zeros(39, int)))
    refused("labels: expected integers", lambda: secateur.evaluate(network, images, numpy.zeros(40)))
    refused("labels: expected 0 to", lambda: secateur.evaluate(network, images, numpy.full(40, 1000)))
    refused("at least one", lambda: secateur.evaluate(network, images[:0], numpy.zeros(0, int)))
    refused("none.onnx", lambda: secateur.Network.load("none.onnx"))
    refused("'full' or 'inner'", lambda: secateur.Network.load(MODELS[0], protocol="some"))
    refused("mean and std", lambda: secateur.Network.load(MODELS[0], mean=[0.0, 0.0, 0.0]))

    class OnCard:
        """What there is of a tensor on a card without a card."""

        is_cuda, device = True, "cuda:0"

    refused(r"images: is on cuda:0, and scored on the processor: call .cpu\(\) first", lambda: network.logits(OnCard()))
    refused("labels: is on cuda:0", lambda: secateur.evaluate(network, images, OnCard()))
    nan = numpy.full((3, *network.inspect()["input"]), numpy.nan, dtype=numpy.float32)
    with pytest.raises(secateur.RunFailed, match="images 0 to 2"):
        secateur.evaluate(network, nan, numpy.zeros(3, int))
