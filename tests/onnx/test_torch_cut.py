"""Checks what cut.py takes and what it refuses: python3 tests/onnx/test_torch_cut.py [DIR of the built example torch_cut]

A small module with a layer of every kind is exported, pruned by the example torch_cut, and cut; then with one thing wrong at a time, each of
which is refused in one sentence that names the layer or the file, and leaves the module as it was.
"""

import json
import pathlib
import shutil
import sys
import tempfile
import unittest
import warnings

sys.dont_write_bytecode = True
import environment

if __name__ == "__main__":
    environment.run_inside(None)

import safetensors.torch
import torch
import torch_cut
from torch import nn
from torch.nn import functional as F

SHAPE = (3, 12, 16)
TOOLS = None


class Every(nn.Module):
    """A layer of every kind. In-place functions stand where they could be taken for the layer in front of them."""

    def __init__(self, heads=10):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.slopes = nn.PReLU(8)
        self.depthwise = nn.Conv2d(8, 16, 3, padding=1, groups=8)
        self.norm_behind_relu = nn.BatchNorm2d(16)
        self.grouped, self.plain_norm = nn.Conv2d(16, 24, 1, groups=2), nn.BatchNorm2d(24, affine=False)
        self.groups = nn.GroupNorm(4, 24)
        self.slope = nn.PReLU()
        self.up, self.up_norm = nn.ConvTranspose2d(24, 12, 2, 2, groups=3, bias=False), nn.BatchNorm2d(12)
        self.alone = nn.BatchNorm2d(12)
        self.channels_last = nn.Sequential(nn.LayerNorm(12), nn.Linear(12, 20), nn.GELU(), nn.Linear(20, 12))
        self.scale = nn.Parameter(torch.rand(12, 1, 1))
        self.flat = nn.Sequential(nn.Linear(12 * 8, 14), nn.BatchNorm1d(14), nn.ReLU(inplace=True))
        self.head = nn.Linear(14, heads)

    def forward(self, x):
        x = self.slopes(self.norm(self.stem(x)))
        x = self.norm_behind_relu(F.relu(self.depthwise(x), inplace=True))
        x = self.slope(self.groups(F.relu(self.plain_norm(self.grouped(x)))))
        x = self.alone(F.relu(self.up_norm(self.up(x))))
        x = x + self.channels_last(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2) * self.scale
        return self.head(self.flat(F.avg_pool2d(x, (12, 8)).flatten(1)))


def made(module):
    """With random weights, statistics and affine parameters, some of the last tiny, and those of a pruned channel zero."""
    random = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for key, value in [*module.named_parameters(), *module.named_buffers()]:
            if key.endswith("running_var") or value.dim() < 2 and key.endswith("weight"):
                value.uniform_(0.5, 1.5, generator=random)
            elif value.is_floating_point():
                value.normal_(0, 0.3, generator=random)
        for m in module.modules():
            if isinstance(m, nn.BatchNorm2d) and m.weight is not None:
                m.weight[0], m.weight[1], m.weight[2] = 0.0, 1e-9, -1.0
    return module.eval()


def images(n=3):
    return torch.randn(n, *SHAPE, generator=torch.Generator().manual_seed(7))


class Cutting(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        warnings.filterwarnings("ignore")
        torch.set_num_threads(1)
        cls.root = tempfile.TemporaryDirectory(prefix="secateur-torch-cut-")
        cls.pruned = cls.prune("every", made(Every()))
        cls.cut_py = torch_cut.load_cut(cls.pruned)

    @classmethod
    def tearDownClass(cls):
        cls.root.cleanup()

    @classmethod
    def prune(cls, name, module, form="ts", shape=SHAPE, options=()):
        folder = pathlib.Path(cls.root.name) / f"{name}.{form}"
        folder.mkdir()
        example = torch.randn(2, *shape, generator=torch.Generator().manual_seed(1))
        torch_cut.export.export(module, example, folder / "given.onnx", form)
        return torch_cut.prune(TOOLS / "torch_cut", folder / "given.onnx", folder / "task", *options)

    def changed(self, change):
        """A copy of the task whose plan was changed."""
        folder = pathlib.Path(tempfile.mkdtemp(dir=self.root.name))
        for name in ("plan.json", "model.safetensors"):
            shutil.copy(self.pruned / name, folder)
        plan = json.loads((folder / "plan.json").read_text())
        change(plan, {layer["module"]: layer for layer in plan["layers"]})
        (folder / "plan.json").write_text(json.dumps(plan))
        return folder

    def assert_agrees(self, module, folder, x=None):
        self.cut_py.cut(module, folder)
        x = images() if x is None else x
        error = torch_cut.error(torch_cut.logits(module, x), torch_cut.logits_of_model(folder / "model.onnx", x))
        self.assertLess(error, 1e-5)

    def assert_refused(self, *parts, module=None, folder=None):
        """One sentence with these parts; the module is what it was."""
        module = made(Every()) if module is None else module
        before = {key: value.clone() for key, value in module.state_dict().items()}
        module.train()
        module.stem.eval() if hasattr(module, "stem") else None
        with self.assertRaises(self.cut_py.CutError) as caught:
            self.cut_py.cut(module, folder or self.pruned)
        sentence = str(caught.exception)
        for part in parts:
            self.assertIn(part, sentence)
        self.assertNotIn("\n", sentence)
        self.assertTrue(module.training and (not hasattr(module, "stem") or not module.stem.training))
        after = module.state_dict()
        self.assertEqual(before.keys(), after.keys())
        for key, value in before.items():
            self.assertTrue(torch.equal(value, after[key]) or value.isnan().any(), key)

    # What is taken.

    def test_every_kind_of_layer_is_cut_from_both_exporters(self):
        for form, folder in (("ts", self.pruned), ("dy", self.prune("every", made(Every()), "dy"))):
            with self.subTest(form):
                module = made(Every())
                self.assert_agrees(module, folder)
                n = module.depthwise.groups
                self.assertLess(n, 8)
                self.assertEqual((module.depthwise.in_channels, module.depthwise.out_channels, module.stem.out_channels), (n, 2 * n, n))
                self.assertEqual((module.grouped.groups, module.grouped.weight.shape[0]), (2, module.groups.num_channels))
                self.assertEqual(module.up.groups, 3)
                self.assertEqual(module.flat[1].num_features, module.flat[0].out_features)
                torch_cut.check_training(module, images())

    def test_weights_are_found_by_content_and_by_order_where_names_are_others(self):
        def without_names(plan, layers):
            for layer in plan["layers"]:
                layer["module"] = None if layer["kind"] != "Linear" else "no." + layer["module"]

        by_content = self.changed(without_names)
        module = made(Every())
        self.cut_py.cut(module, by_content)
        fresh = Every().eval()
        self.cut_py.cut(fresh, by_content)
        for one in (module, fresh):
            found = torch_cut.error(torch_cut.logits(one, images()), torch_cut.logits_of_model(self.pruned / "model.onnx", images()))
            self.assertLess(found, 1e-5)

    def test_wrappers_do_not_hide_names(self):
        class Wrapped(nn.Module):
            def __init__(self):
                super().__init__()
                self.module = made(Every())

            def forward(self, x):
                return {"logits": self.module(x), "none": None}

        module = Wrapped().eval()
        self.cut_py.cut(module, self.pruned)
        self.assertLess(module.module.depthwise.groups, 8)

    def test_what_follows_the_last_computed_layer_stays_and_the_layers_are_checked(self):
        class GoesOn(nn.Module):
            """A sine is not computed, and a layer lies behind it."""

            def __init__(self):
                super().__init__()
                self.stem, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 12, 3, padding=1)
                self.behind = nn.Conv2d(12, 2, 1)

            def forward(self, x):
                return self.behind(torch.sin(self.second(F.relu(self.stem(x)))))

        folder = self.prune("goes_on", made(GoesOn()))
        module, before = made(GoesOn()), made(GoesOn())
        self.assert_agrees(module, folder)
        self.assertLess(module.stem.out_channels, 8)
        self.assertTrue(torch.equal(module.behind.weight, before.behind.weight))
        weights = safetensors.torch.load_file(folder / "model.safetensors")
        name = next(key for key in weights if key.endswith("second.weight") or weights[key].shape[0] == 12)
        weights[name] += 0.5
        safetensors.torch.save_file(weights, folder / "model.safetensors")
        self.assert_refused("layers are not those of the plan", module=made(GoesOn()), folder=folder)

    def test_frozen_parameters_and_modes_stay(self):
        module = made(Every()).train()
        module.norm.eval()
        module.stem.weight.requires_grad = False
        self.cut_py.cut(module, self.pruned)
        self.assertTrue(module.training and not module.norm.training)
        self.assertFalse(module.stem.weight.requires_grad)
        self.assertTrue(module.up.weight.requires_grad)

    def test_batch_norms_keep_their_statistics(self):
        module, before = made(Every()), made(Every())
        self.cut_py.cut(module, self.pruned)
        layer = next(layer for layer in json.loads((self.pruned / "plan.json").read_text())["layers"] if layer["module"] == "stem")
        keep = [c for c in layer["keep_outputs"] if c > 1]
        at = [layer["keep_outputs"].index(c) for c in keep]
        self.assertTrue(keep)
        for key in ("running_mean", "running_var", "weight"):
            self.assertTrue(torch.equal(getattr(module.norm, key)[at], getattr(before.norm, key)[keep]), key)

    def test_halves_stay_equal_where_code_takes_chunks(self):
        class Shuffled(nn.Module):
            def __init__(self):
                super().__init__()
                self.stem, self.norm = nn.Conv2d(3, 24, 3, padding=1), nn.BatchNorm2d(24)
                self.branches = nn.ModuleList(nn.Sequential(nn.Conv2d(12, 12, 1), nn.BatchNorm2d(12), nn.ReLU()) for _ in range(2))
                self.head = nn.Linear(24, 10)

            def forward(self, x):
                x = self.norm(self.stem(x)).relu()
                for branch in self.branches:
                    kept, worked = x.chunk(2, 1)
                    x = torch.cat((kept, branch(worked)), 1)
                    n, c, h, w = x.shape
                    x = x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)
                return self.head(x.mean((2, 3)))

        for form in ("ts", "dy"):
            with self.subTest(form):
                folder = self.prune("shuffled", made(Shuffled()), form)
                module = made(Shuffled())
                self.assert_agrees(module, folder)
                self.assertLess(module.stem.out_channels, 24)

    # What is refused.

    def test_another_module_is_refused_with_the_first_layer_that_differs(self):
        self.assert_refused("'head'", "Linear", "14 inputs and 10 outputs", module=made(Every(heads=11)))
        wide = made(Every())
        wide.channels_last[1], wide.channels_last[3] = nn.Linear(12, 22), nn.Linear(22, 12)
        self.assert_refused("'channels_last.1'", "12 inputs and 20 outputs", module=wide)
        more = made(Every())
        more.flat = nn.Sequential(*more.flat, nn.Linear(14, 14))
        self.assert_refused("no layer for 'flat.3'", module=more)
        less = made(Every())
        less.channels_last = nn.Identity()
        self.assert_refused("lacks 'channels_last.0'", module=less)
        small = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())
        self.assert_refused("the module is not the one of the plan", module=small)
        self.assert_refused("does not run on images of shape [2, 3, 12, 16]", module=nn.Linear(5, 5))

    def test_a_layer_that_runs_twice_is_refused(self):
        class Twice(Every):
            def forward(self, x):
                self.stem(x)
                return super().forward(x)

        self.assert_refused("layer 'stem' runs twice", module=made(Twice()))

    def test_other_dtypes_are_refused(self):
        for dtype in (torch.float16, torch.bfloat16, torch.float64):
            self.assert_refused("'scale'", str(dtype), "module.float()", module=made(Every()).to(dtype))

    def test_weights_that_are_computed_are_refused(self):
        module = made(Every())
        nn.utils.parametrizations.weight_norm(module.grouped)
        self.assert_refused("'grouped'", "remove_parametrizations", module=module)

    def test_batch_norms_without_statistics_are_refused(self):
        module = made(Every())
        module.alone = nn.BatchNorm2d(12, track_running_stats=False).eval()
        self.assert_refused("'alone'", "keeps no running statistics", module=module)

    def test_code_with_numbers_of_channels_is_refused(self):
        class Written(Every):
            def forward(self, x):
                return super().forward(x) + 0 * self.norm(self.stem(x)).view(-1, 8, *x.shape[2:]).mean()

        class Split(Every):
            def forward(self, x):
                y = F.relu(self.norm.running_mean).view(8)
                return super().forward(x) + 0 * y.sum()

        for written in (Written, Split):
            # `stem` runs twice in the first: that comes before anything else.
            told = ["runs twice"] if written is Written else ["written in its code", "x.shape[1] // 2", "test_torch_cut.py', line", "`y = F.relu(self.norm.running_mean).view(8)`"]
            self.assert_refused(*told, module=made(written()))

    def test_missing_and_damaged_files_are_refused(self):
        empty = pathlib.Path(tempfile.mkdtemp(dir=self.root.name))
        self.assert_refused("plan.json", "No such file", folder=empty)
        no_weights = self.changed(lambda plan, layers: None)
        (no_weights / "model.safetensors").unlink()
        self.assert_refused("cannot find", "model.safetensors", folder=no_weights)
        cut_short = self.changed(lambda plan, layers: None)
        data = (self.pruned / "model.safetensors").read_bytes()
        for damaged in (data[: len(data) // 2], b"", b"{}"):
            (cut_short / "model.safetensors").write_bytes(damaged)
            self.assert_refused("cannot read", "model.safetensors", folder=cut_short)
        (cut_short / "plan.json").write_text((self.pruned / "plan.json").read_text()[:-200])
        self.assert_refused("plan.json' is no plan", folder=cut_short)
        (cut_short / "plan.json").write_bytes(b"\xff\xfe\x00")
        self.assert_refused("plan.json' is no plan", folder=cut_short)

    def test_weights_of_another_run_are_refused(self):
        folder = self.changed(lambda plan, layers: None)
        weights = safetensors.torch.load_file(folder / "model.safetensors")
        name = next(layer["name"] for layer in json.loads((folder / "plan.json").read_text())["layers"] if layer["module"] == "up")
        other = {**weights, f"{name}.weight": weights[f"{name}.weight"][:-1].contiguous()}
        safetensors.torch.save_file(other, folder / "model.safetensors")
        self.assert_refused(f"the weight of '{name}' has shape", folder=folder)
        other = {key: value for key, value in weights.items() if key != f"{name}.weight"}
        safetensors.torch.save_file(other, folder / "model.safetensors")
        self.assert_refused(f"the weight of '{name}' is missing", folder=folder)
        other = {**weights, f"{name}.weight": weights[f"{name}.weight"] * 1.01}
        safetensors.torch.save_file(other, folder / "model.safetensors")
        self.assert_refused("outputs differ", "the first layer that differs is 'up'", folder=folder)
        other = {**weights, f"{name}.bias": weights[f"{name}.bias"][:-1].contiguous()}
        safetensors.torch.save_file(other, folder / "model.safetensors")
        self.assert_refused(f"the bias of '{name}' has shape", folder=folder)

    def test_changed_plans_are_refused(self):
        def keep(numbers):
            return lambda plan, layers: layers["stem"].update(keep_outputs=numbers)

        cases = [
            ("format 2", lambda plan, layers: plan.update(format=2)),
            ("format None", lambda plan, layers: plan.pop("format")),
            ("was changed", lambda plan, layers: plan.pop("layers")),
            ("was changed", lambda plan, layers: plan.update(layers=3)),
            ("was changed", lambda plan, layers: plan.update(layers=[3])),
            ("was changed", lambda plan, layers: plan.update(splits=None)),
            ("kind Conv9d", lambda plan, layers: layers["stem"].update(kind="Conv9d")),
            ("keeps other channels", keep([0, 1, 2, 8])),
            ("keeps other channels", keep([-1, 1, 2, 3])),
            ("keeps other channels", keep([0, 2, 1, 3])),
            ("keeps other channels", keep([0, 1, 1, 3])),
            ("keeps other channels", keep([0, 1, 2])),
            ("keeps other channels", keep([0, 1, 2, 3.5])),
            ("was changed", keep("0123")),
            ("was changed", keep(None)),
            ("was changed", lambda plan, layers: layers["stem"].update(groups="1")),
            ("was changed", lambda plan, layers: layers["stem"].update(shape=[])),
            ("the weight of", lambda plan, layers: layers["head"].update(cut_shape=[5, *layers["head"]["cut_shape"][1:]], keep_outputs=[0, 1, 2, 3, 4])),
            ("was changed", lambda plan, layers: layers["stem"].update(original=[1, 2])),
            ("was changed", lambda plan, layers: plan.update(check=[])),
            ("was changed", lambda plan, layers: plan["check"].update(images=[2, 3, 12])),
            ("was changed", lambda plan, layers: plan["check"].update(images=[0, 3, 12, 16])),
            ("was changed", lambda plan, layers: plan["check"].update(images=[2, 3, 1 << 20, 1 << 20])),
            ("was changed", lambda plan, layers: plan["check"].update(logits=[[1.0], "two"])),
            ("was changed", lambda plan, layers: plan["check"].update(output=None)),
            ("outputs differ", lambda plan, layers: plan["check"]["logits"][0].__setitem__(0, 3.0)),
            ("was changed", lambda plan, layers: plan.update(weights=7)),
            ("beside the plan", lambda plan, layers: plan.update(weights="../../model.safetensors")),
        ]
        for sentence, change in cases:
            with self.subTest(sentence):
                folder = self.changed(change)
                self.assert_refused(sentence, folder=folder)
        for text in ("[]", "3", "null"):
            folder = self.changed(lambda plan, layers: None)
            (folder / "plan.json").write_text(text)
            self.assert_refused("format None", folder=folder)

    def test_a_module_that_was_cut_is_not_cut_again(self):
        module = made(Every())
        self.cut_py.cut(module, self.pruned)
        self.assert_refused("the module is not the one of the plan", module=module)


if __name__ == "__main__":
    TOOLS = torch_cut.find_tool(pathlib.Path(sys.argv.pop(1)) if sys.argv[1:] and pathlib.Path(sys.argv[1]).is_dir() else None).parent
    unittest.main()
