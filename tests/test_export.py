"""Checkpoint to bundle: what is in it, and what is refused."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import cv2
import numpy as np
import onnx
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from delineate import export
from delineate.bundle.graph import OPSET, finish
from delineate.bundle.load import golden_name, load
from delineate.bundle.manifest import ClassInfo, InputInfo, Manifest, Variant
from delineate.config import ModelSettings, Normalisation, PostprocessingSettings, TilingSettings
from delineate.data.dataset import Dataset
from delineate.engines.onnxruntime import OnnxRuntimePredictor
from delineate.errors import DatasetError, ModelError, OutputError, RefusedError
from delineate.export import (
    compare,
    export_bundle,
    export_network,
    fit_temperature,
)
from delineate.models.build import build
from delineate.models.temperature import Tempered
from delineate.release import HeldOut
from delineate.tiling.segment import segment
from delineate.types import OUTPUTS, Prediction, PredictorSpec

CLASSES = ("sky", "ground", "car")
NORMALISATION = Normalisation(mean=(90.0, 95.0, 100.0), std=(50.0, 55.0, 60.0))


class Small(nn.Module):
    """Two convolutions: the stripes are told by their brightness and a little context."""

    def __init__(self, classes=3):
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.last = nn.Conv2d(4, classes, 3, padding=1)

    def forward(self, x):
        return self.last(torch.relu(self.first(x)))


def _draft(**changes):
    fields = {
        "name": "small",
        "task": "multiclass",
        "classes": tuple(
            ClassInfo(id=i, name=name, colour=(i, 0, 0)) for i, name in enumerate(CLASSES)
        ),
        "ignore_index": 255,
        "input": InputInfo(channels=3, dtype="uint8", normalisation=NORMALISATION),
        "tiling": TilingSettings(tile_px=32, overlap_px=8),
        "postprocessing": PostprocessingSettings(smallest_object_px=3),
        "variants": {"float32": Variant(file="model.onnx")},
        "provenance": {"licence": "MIT"},
    }
    return Manifest(**{**fields, **changes})


def _read(sample):
    image = cv2.cvtColor(cv2.imread(str(sample.image)), cv2.COLOR_BGR2RGB)
    return image, cv2.imread(str(sample.mask), cv2.IMREAD_UNCHANGED)


@pytest.fixture(scope="module")
def val(make_dataset, tmp_path_factory):
    """Six images of 48 x 40, larger than a tile of the draft."""
    folder = tmp_path_factory.mktemp("export") / "data"
    return Dataset.open(make_dataset(folder, train=0, val=6, ignore_index=255)).split("val")


@pytest.fixture(scope="module")
def graph():
    """Of :class:`Small`, exported once: PyTorch takes seconds."""
    return export_network(Small(), 3)


def _scaled(graph):
    """Instead of an export: the graph of :class:`Small`, divided by the temperature."""

    def make(module, _channels):
        model = onnx.ModelProto()
        model.CopyFrom(graph)
        if isinstance(module, Tempered):
            factor = onnx.numpy_helper.from_array(np.array(module.factor, np.float32), "factor")
            model.graph.initializer.append(factor)
            last = next(node for node in model.graph.node if "logits" in node.output)
            last.output[0] = "cold"
            model.graph.node.append(onnx.helper.make_node("Mul", ["cold", "factor"], ["logits"]))
        return model

    return make


@pytest.fixture
def quick(graph, monkeypatch):
    monkeypatch.setattr(export, "export_network", _scaled(graph))


@pytest.fixture(scope="module")
def made(val, graph, tmp_path_factory):
    out = tmp_path_factory.mktemp("bundle") / "small.bundle"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export, "export_network", _scaled(graph))
        return out, export_bundle(Small(), _draft(), out, val=val, read=_read)


def _run(model, x):
    import onnxruntime as ort

    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


def test_the_network_is_free_in_batch_and_size(graph):
    assert [entry.version for entry in graph.opset_import if not entry.domain] == [OPSET]
    onnx.checker.check_model(graph)
    module = Small().eval()
    for shape in ((1, 3, 1, 1), (3, 3, 17, 40), (2, 3, 64, 33)):
        x = torch.randn(shape)
        with torch.inference_mode():
            expected = module(x).numpy()
        np.testing.assert_allclose(_run(graph, x.numpy()), expected, atol=1e-5)


def test_a_network_of_ours_is_exported_as_it_is():
    settings = ModelSettings(encoder="resnet18", decoder_channels=(16, 8, 8, 8, 8))
    module = build(settings, channels=3, classes=3, task="multiclass").eval()
    model = export_network(module, 3)
    for shape in ((1, 3, 48, 40), (2, 3, 31, 65)):
        x = torch.randn(shape)
        with torch.inference_mode():
            expected = module(x).numpy()
        np.testing.assert_allclose(_run(model, x.numpy()), expected, atol=1e-3)


def test_what_cannot_be_exported():
    class Choosy(nn.Module):
        def forward(self, x):
            if x.sum() > 0:  # depends on the pixels
                return x
            return -x

    with pytest.raises(ModelError, match=r"^PyTorch [\w.+]+ cannot export this network \("):
        export_network(Choosy(), 3)


def test_what_lies_in_the_bundle(made, val):
    out, exported = made
    found = {p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()}
    # four of six, spread over the split
    chosen = [val[i] for i in (0, 2, 3, 5)]
    expected = {"manifest.json", "model.onnx", "reference.json", "card.md"}
    for sample in chosen:
        expected |= {
            f"canary/images/{sample.name}.png",
            f"canary/masks/{sample.name}.png",
            golden_name("float32", sample.name),
        }
        for kind, path in (("images", sample.image), ("masks", sample.mask)):
            assert (out / "canary" / kind / path.name).read_bytes() == path.read_bytes()
    assert found == expected
    assert exported.agreement > 0.9995
    assert exported.difference <= 1


def test_golden_outputs_are_those_of_the_graph(made, val):
    out, _ = made
    for engine in ("onnxruntime", "openvino"):
        assert load(out, engine=engine).verify() == 4
    bundle = load(out, engine="onnxruntime")
    golden = np.load(io.BytesIO((out / golden_name("float32", val[2].name)).read_bytes()))
    corner = _read(val[2])[0][None, :32, :32]  # the images are larger than a tile
    found = bundle.predict(corner, ("labels", "summary"))
    np.testing.assert_array_equal(golden["labels"], found["labels"][0])
    np.testing.assert_allclose(golden["summary"], found["summary"][0], rtol=1e-6)


def test_scores_are_those_of_the_bundle(made, val):
    """Counted once more from what the bundle predicts, tiled and post-processed as it says."""
    out, exported = made
    bundle = load(out, engine="onnxruntime")
    manifest = bundle.manifest
    counts = np.zeros((3, 3), np.int64)
    summaries = []
    for sample in val:
        image, mask = _read(sample)
        found = segment(
            bundle, image, ("labels", "summary"),
            tiling=manifest.tiling, postprocessing=manifest.postprocessing,
        )  # fmt: skip
        summaries.append(found["summary"][0])
        counted = mask != 255
        np.add.at(counts, (mask[counted], found["labels"][0][counted]), 1)
    union = counts.sum(0) + counts.sum(1) - counts.diagonal()
    iou = counts.diagonal() / union
    scores = manifest.variants["float32"].scores
    assert scores["mean_iou"] == pytest.approx(iou.mean(), abs=1e-6)
    assert scores["pixel_accuracy"] == pytest.approx(counts.trace() / counts.sum(), abs=1e-6)
    assert [scores[f"iou/{name}"] for name in CLASSES] == pytest.approx(iou, abs=1e-6)
    assert exported.evaluation.n_images == 6
    assert exported.manifest.variants == manifest.variants

    reference = bundle.reference()
    assert (reference["images"], reference["split"]) == (6, "val")
    columns = reference["columns"]
    assert tuple(columns) == bundle.spec.summary_names
    for name, values in zip(columns, np.stack(summaries).T, strict=True):
        assert columns[name]["mean"] == pytest.approx(values.mean(), abs=1e-6)
        assert columns[name]["std"] == pytest.approx(values.std(), abs=1e-6)
        deciles = np.quantile(values, np.linspace(0, 1, 11))
        assert columns[name]["deciles"] == pytest.approx(deciles, abs=1e-6)


def test_the_temperature_is_in_the_graph(made, val, graph):
    """Sure as often as right, and no label changes."""
    out, exported = made
    calibration = exported.manifest.calibration
    assert json.loads((out / "manifest.json").read_text())["calibration"] == {
        "temperature": calibration.temperature,
        "ece_before": calibration.ece_before,
        "ece_after": calibration.ece_after,
    }
    assert calibration.temperature != 1
    assert calibration.ece_after < calibration.ece_before
    bundle = load(out, engine="onnxruntime")
    plain = OnnxRuntimePredictor(finish(graph, export._wrapping(_draft())), bundle.spec)
    module = Small().eval()
    for sample in val:
        image = _read(sample)[0]
        found = bundle.predict(image[None], ("labels", "probabilities"))
        np.testing.assert_array_equal(found["labels"], plain.predict(image[None])["labels"])
        scale = torch.tensor(NORMALISATION.std).reshape(1, 3, 1, 1)
        x = torch.from_numpy(image).permute(2, 0, 1)[None].float()
        x = (x - torch.tensor(NORMALISATION.mean).reshape(1, 3, 1, 1)) / scale
        with torch.inference_mode():
            expected = (module(x) / calibration.temperature).softmax(dim=1).numpy()
        np.testing.assert_allclose(found["probabilities"] / 255, expected, atol=0.005)


def test_the_temperature_is_the_most_likely_one(val):
    found = fit_temperature(
        Small().eval(), _draft(tiling=TilingSettings(tile_px=64, overlap_px=0)), val, _read
    )
    losses = {}
    logits, truth = export._validation_logits(
        Small().eval(), _draft(tiling=TilingSettings(tile_px=64, overlap_px=0)), val, _read
    )
    assert len(truth) == sum(int((_read(sample)[1] != 255).sum()) for sample in val)
    for factor in (0.98, 1.0, 1.02):
        temperature = found.temperature * factor
        losses[factor] = float(F.cross_entropy(logits / temperature, truth))
    assert min(losses, key=losses.get) == 1.0


class Overconfident(nn.Module):
    """One logit, right in nine of ten columns, and always sure."""

    def forward(self, x):
        wrong = torch.arange(x.shape[3]) % 10 == 0
        return torch.where(wrong, -1.0, 1.0) * (x[:, :1] * 40 - 20)


def test_the_temperature_of_a_network_that_is_too_sure(val):
    mask = (np.random.default_rng(0).random((40, 40)) < 0.5).astype(np.uint8)
    image = np.repeat(mask[..., None], 3, axis=2)
    draft = _draft(
        task="binary",
        classes=_draft().classes[:2],
        tiling=TilingSettings(tile_px=64, overlap_px=0),
        input=InputInfo(
            channels=3, dtype="uint8", normalisation=Normalisation(mean=(0.0,) * 3, std=(1.0,) * 3)
        ),
    )
    found = fit_temperature(Overconfident(), draft, val[:1], lambda _: (image, mask))
    assert found.ece_before == pytest.approx(0.1, abs=1e-3)
    assert found.ece_after == pytest.approx(0, abs=2e-3)  # confidence has 8 bits
    assert found.temperature == pytest.approx(20 / np.log(9), abs=1e-3)
    ignored = np.full_like(mask, 255)
    assert fit_temperature(Overconfident(), draft, val[:1], lambda _: (image, ignored)) is None


@pytest.mark.usefixtures("quick")
def test_a_network_that_has_seen_val_is_not_measured_on_it(made, val, tmp_path):
    _, exported = made
    held_out = HeldOut(exported.evaluation, exported.summaries[:3])
    out = tmp_path / "a.bundle"
    again = export_bundle(Small(), _draft(), out, val=val, read=_read, held_out=held_out)
    assert again.manifest.calibration is None
    assert again.evaluation is exported.evaluation
    assert load(out, engine="onnxruntime").reference()["images"] == 3


def test_the_card_and_the_provenance(made):
    out, exported = made
    card = (out / "card.md").read_text()
    assert card.startswith("# small 1\n")
    assert f"| mean_iou | {exported.evaluation.scores.mean_iou:.4f} |" in card
    provenance = json.loads((out / "manifest.json").read_text())["provenance"]
    assert provenance["licence"] == "MIT"
    assert provenance["software"]["torch"] == torch.__version__.split("+")[0]
    assert "onnx" in provenance["software"]


@pytest.mark.usefixtures("quick")
def test_images_that_must_not_travel(val, tmp_path):
    export_bundle(Small(), _draft(), tmp_path / "a.bundle", val=val, read=_read, canary=False)
    assert sorted(item.name for item in (tmp_path / "a.bundle").iterdir()) == [
        "card.md", "manifest.json", "model.onnx", "reference.json",
    ]  # fmt: skip
    assert load(tmp_path / "a.bundle", engine="onnxruntime").verify() == 0


@pytest.mark.usefixtures("quick")
def test_an_existing_bundle_is_kept_unless_forced(val, tmp_path):
    out = tmp_path / "a.bundle"
    export_bundle(Small(), _draft(version="1"), out, val=val[:1], read=_read)
    with pytest.raises(OutputError):
        export_bundle(Small(), _draft(version="2"), out, val=val[:1], read=_read)
    assert load(out, engine="onnxruntime").manifest.version == "1"
    export_bundle(Small(), _draft(version="2"), out, val=val[:1], read=_read, force=True)
    assert load(out, engine="onnxruntime").manifest.version == "2"


def _other_mean(model, wrapping):
    normalisation = Normalisation(mean=(60.0, 95.0, 100.0), std=wrapping.normalisation.std)
    return finish(model, replace(wrapping, normalisation=normalisation))


def _bgr(model, wrapping):
    return finish(model, replace(wrapping, channel_order=(2, 1, 0)))


def _other_weights(model, wrapping):
    broken = onnx.ModelProto()
    broken.CopyFrom(model)
    tensor = next(t for t in broken.graph.initializer if len(t.dims) == 4)
    values = onnx.numpy_helper.to_array(tensor) * np.float32(1.3)
    tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    return finish(broken, wrapping)


def _classes_turned(model, wrapping):
    return finish(model, replace(wrapping, output_planes=(1, 2, 0)))


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("broken", [_other_mean, _bgr, _other_weights, _classes_turned])
def test_a_graph_that_is_not_the_network_is_refused(val, tmp_path, monkeypatch, broken):
    monkeypatch.setattr(export, "finish", broken)
    with pytest.raises(RefusedError) as caught:
        export_bundle(Small(), _draft(), tmp_path / "a.bundle", val=val, read=_read)
    assert caught.value.exit_status == 1
    assert str(caught.value).startswith("the exported graph is not the network: ")
    assert str(caught.value).endswith(
        "Nothing was written. Report the architecture and the versions of torch and onnx."
    )
    assert list(tmp_path.iterdir()) == []


def test_nothing_to_score_on(tmp_path):
    with pytest.raises(DatasetError) as caught:
        export_bundle(Small(), _draft(), tmp_path / "a.bundle", val=(), read=_read)
    assert str(caught.value) == (
        f"{tmp_path / 'a.bundle'}: there is no labelled image to compare and score on. "
        "Nothing was written. Name a split that has images."
    )
    assert list(tmp_path.iterdir()) == []


class Fixed:
    """Says what it was told, on 100 x 100 pixels."""

    spec = PredictorSpec(("a", "b"), "binary", 1, "uint8")

    def __init__(self, changed=0, moved=0):
        self.labels = np.zeros((1, 100, 100), np.uint8)
        self.labels.ravel()[:changed] = 1
        self.probabilities = np.full((1, 2, 100, 100), 100, np.uint8)
        self.probabilities[0, 0, 0, 0] -= moved

    def predict(self, images, outputs=OUTPUTS):
        assert images.shape == (1, 100, 100, 1)
        assert outputs == ("labels", "probabilities")
        return Prediction(labels=self.labels, probabilities=self.probabilities)


@pytest.mark.parametrize(("changed", "moved"), [(0, 0), (5, 2)])
def test_what_rounding_explains_passes(changed, moved):
    image = np.zeros((150, 120, 1), np.uint8)  # only its corner is compared
    agreement, difference = compare(Fixed(), Fixed(changed, moved), [image], 100)
    assert agreement == 1 - changed / 10_000
    assert difference == moved


@pytest.mark.parametrize(("changed", "moved"), [(6, 0), (0, 3), (10_000, 100)])
def test_what_rounding_does_not_explain_is_refused(changed, moved):
    image = np.zeros((100, 100, 1), np.uint8)
    with pytest.raises(RefusedError) as caught:
        compare(Fixed(), Fixed(changed, moved), [image], 100)
    assert str(caught.value) == (
        f"the exported graph is not the network: {1 - changed / 10_000:.4%} of pixels agree (at "
        f"least 99.95% wanted), a probability is off by {moved}/255 (at most 2/255). Nothing was "
        "written. Report the architecture and the versions of torch and onnx."
    )
