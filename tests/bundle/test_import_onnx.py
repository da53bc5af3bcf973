"""Somebody else's network as a bundle: equal to the network itself, refused in clear words."""

from __future__ import annotations

import json
import math

import cv2
import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import helper
from pydantic import ValidationError

from delineate.bundle.import_onnx import ImportOnnxSettings, import_onnx
from delineate.bundle.load import load
from delineate.config import TilingSettings
from delineate.errors import ModelError, OutputError, SettingsError
from delineate.tiling.segment import segment
from delineate.types import OUTPUTS

ENGINES = ("onnxruntime", "openvino")
TWO = ("background", "disc")


@pytest.fixture
def bring(tmp_path):
    """Import a model under the name net.onnx; gives the bundle's path."""

    def bring(model, file="net.onnx", **settings):
        onnx.save(model, tmp_path / file)
        import_onnx(tmp_path / file, tmp_path / "net.bundle", ImportOnnxSettings(**settings))
        return tmp_path / "net.bundle"

    return bring


def _image(height=21, width=34, channels=3, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)


def _assert_near(found, expected):
    """Nearly all labels, and all probabilities up to rounding."""
    assert (found["labels"] == expected.argmax(-1)).mean() > 0.999
    planes = np.moveaxis(expected, -1, 1)
    np.testing.assert_allclose(found["probabilities"], planes * 255, atol=0.52)


def _softmax(scores):
    raised = np.exp(scores - scores.max(-1, keepdims=True))
    return raised / raised.sum(-1, keepdims=True)


@pytest.mark.parametrize("engine", ENGINES)
def test_scale_mean_std_and_order(forge, bring, engine):
    """The network sees (x * scale - mean) / std in its own order of channels."""
    made = forge.convolution(3, 2)
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.3, 0.25)
    path = bring(made.model, classes=TWO, channel_order="bgr", scale=1 / 255, mean=mean, std=std)
    image = _image()
    seen = (image[None, ..., ::-1] / 255 - np.array(mean)) / np.array(std)
    found = load(path, engine=engine).predict(image[None], OUTPUTS)
    _assert_near(found, _softmax(made.scores(seen)))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
def test_one_size_resized(forge, bring, engine, layout):
    made = forge.convolution(3, 2, size=(20, 24), batch=1, layout=layout)
    path = bring(made.model, classes=TWO, fit="resize", scale=1 / 255)
    bundle = load(path, engine=engine)
    assert bundle.spec.fixed_hw is None
    assert bundle.spec.largest_batch == 1
    image = _image(40, 30)
    small = cv2.resize(image.astype(np.float32), (24, 20), interpolation=cv2.INTER_LINEAR)
    scores = made.scores(small[None] / 255)[0]
    large = cv2.resize(scores, (30, 40), interpolation=cv2.INTER_LINEAR)
    _assert_near(bundle.predict(image[None], OUTPUTS), _softmax(large[None]))


@pytest.mark.parametrize("engine", ENGINES)
def test_one_size_tiled(forge, bring, engine):
    made = forge.convolution(3, 2, size=(16, 24), batch=1)
    path = bring(made.model, classes=TWO, fit="tile", scale=1 / 255)
    bundle = load(path, engine=engine)
    assert bundle.spec.fixed_hw == (16, 24)
    image = _image(16, 24)
    whole = segment(bundle, image, OUTPUTS)
    _assert_near(whole, _softmax(made.scores(image[None] / 255)))
    tiling = TilingSettings(tile_px=64, overlap_px=8, batch=4)
    large = segment(bundle, _image(50, 61), OUTPUTS, tiling=tiling)
    assert large["labels"].shape == (1, 50, 61)
    assert np.abs(large["probabilities"].sum(axis=1, dtype=int) - 255).max() <= 1


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("kind", "operator"), [("sigmoid", "Sigmoid"), ("logits", "Identity")])
def test_one_plane_is_a_binary_task(forge, bring, engine, kind, operator):
    made = forge.convolution(3, 1)
    made.model.graph.node[0].output[0] = "logit"
    made.model.graph.node.append(helper.make_node(operator, ["logit"], ["y"]))
    path = bring(made.model, classes=TWO, scale=1 / 255, output_kind=kind)
    bundle = load(path, engine=engine)
    assert bundle.spec.task == "binary"
    image = _image()
    foreground = 1 / (1 + np.exp(-made.scores(image[None] / 255)))
    found = bundle.predict(image[None], OUTPUTS)
    _assert_near(found, np.concatenate([1 - foreground, foreground], -1))
    assert (found["probabilities"].sum(axis=1, dtype=int) == 255).all()


@pytest.mark.parametrize("engine", ENGINES)
def test_softmax_inside_and_planes_chosen(forge, bring, engine):
    made = forge.convolution(3, 4)
    made.model.graph.node[0].output[0] = "logits"
    made.model.graph.node.append(helper.make_node("Softmax", ["logits"], ["y"], axis=1))
    path = bring(
        made.model,
        classes=("a", "b", "c"),
        scale=1 / 255,
        output_kind="softmax",
        output_planes=(3, 0, 1),
    )
    image = _image()
    expected = _softmax(made.scores(image[None] / 255))[..., [3, 0, 1]]
    _assert_near(load(path, engine=engine).predict(image[None], OUTPUTS), expected)


def test_what_the_bundle_says(forge, bring):
    colours = ((1, 2, 3), (4, 5, 6))
    path = bring(
        forge.convolution(4, 2, stride=2, opset=12).model,
        classes=TWO, colours=colours, ignore_index=7, dtype="uint16", mean=(100.0,), std=(50.0,),
        licence="MIT", source="a friend", multiple_of=4,
    )  # fmt: skip
    manifest = load(path, engine="onnxruntime").manifest
    assert (manifest.name, manifest.task, manifest.ignore_index) == ("net", "multiclass", 7)
    assert (manifest.class_names, manifest.colours) == (TWO, colours)
    assert (manifest.input.channels, manifest.input.dtype) == (4, "uint16")
    assert manifest.input.multiple_of == 4
    assert manifest.input.normalisation.mean == (100.0,) * 4
    assert manifest.input.normalisation.std == (50.0,) * 4
    assert manifest.provenance["opset_of_source"] == 12
    assert manifest.provenance["licence"] == "MIT"
    assert manifest.provenance["imported_from"] == "net.onnx"
    assert sorted(item.name for item in path.iterdir()) == ["card.md", "manifest.json",
                                                           "model.onnx"]  # fmt: skip


@pytest.mark.parametrize(
    ("file", "name"),
    [("my net (2).onnx", "my-net-2-"), ("_.onnx", "model"), ("réseau.v2.onnx", "r-seau.v2")],
)
def test_any_file_name_makes_a_name(forge, bring, file, name):
    path = bring(forge.convolution(3, 2).model, file, classes=TWO)
    assert json.loads((path / "manifest.json").read_text())["name"] == name


REFUSED = {
    "a fixed size without fit": (
        {"size": (16, 24)},
        {},
        "takes images of 16 x 24 pixels (height x width) only. Add --fit resize (every image is "
        "resized to it) or --fit tile (tiles of it).",
    ),
    "a free size with fit": (
        {},
        {"fit": "resize"},
        "takes images of any size, so --fit resize has no meaning.",
    ),
    "a fixed size with a multiple": (
        {"size": (16, 24)},
        {"fit": "tile", "multiple_of": 8},
        "takes images of one size, so multiple_of 8 has no meaning.",
    ),
    "too few classes": (
        {"planes": 5},
        {},
        "2 classes were named and the network gives 5 planes. Name one class for each plane, "
        "background included, or choose planes with --output-planes.",
    ),
    "too many classes": (
        {"planes": 1},
        {"classes": ("a", "b", "c")},
        "3 classes were named and the network gives 1 planes. Name one class for each plane, "
        "background included, or choose planes with --output-planes.",
    ),
    "planes out of range": (
        {"planes": 3},
        {"output_planes": (0, 3)},
        "output planes (0, 3) were asked for, the network gives 3 (0 to 2).",
    ),
    "negative planes": (
        {"planes": 3},
        {"output_planes": (-1, 1)},
        "output planes (-1, 1) were asked for, the network gives 3 (0 to 2).",
    ),
    "sigmoid planes": (
        {"planes": 12},
        {"classes": tuple("abcdefghijkl"), "output_kind": "sigmoid"},
        "a sigmoid over each of 12 planes makes a multilabel network, and the task multilabel is "
        "reserved and not supported. Choose the plane of one class with --output-planes, or "
        "--output-kind softmax if the planes of a pixel sum to 1.",
    ),
    "a scale that leaves no number": (
        {},
        {"mean": (1.0,), "scale": 1e-320},
        "mean and std divided by scale: mean.0: Input should be a finite number (found inf); ",
    ),
    "means": (
        {},
        {"mean": (1.0, 2.0)},
        "mean has 2 values, the network takes 3 channels. Give 1 or 3 values.",
    ),
    "deviations": (
        {"channels": 1},
        {"std": (1.0, 2.0, 3.0)},
        "std has 3 values, the network takes 1 channels. Give 1 or 1 values.",
    ),
    "order of channels": (
        {"channels": 4},
        {"channel_order": "bgr"},
        "channel order bgr was asked for, the network takes 4 channels.",
    ),
    "colours": (
        {},
        {"colours": ((1, 2, 3),)},
        "1 colours for 2 classes.",
    ),
    "a name": (
        {},
        {"name": "my net"},
        "name: String should match pattern '^[A-Za-z0-9][A-Za-z0-9._-]*$' (found 'my net').",
    ),
    "classes of one name": (
        {},
        {"classes": ("a", "a")},
        "classes: class names must differ (found ",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_settings_that_disagree_with_the_network(forge, bring, tmp_path, case):
    network, settings, message = REFUSED[case]
    made = forge.convolution(**{"planes": 2, **network})
    with pytest.raises(SettingsError) as caught:
        bring(made.model, **{"classes": TWO, **settings})
    prefix = f"{tmp_path / 'net.onnx'}: "
    assert str(caught.value).startswith(prefix + message)
    assert str(caught.value) == prefix + message or message.endswith(("(found ", "; "))
    assert [item.name for item in tmp_path.iterdir()] == ["net.onnx"]


@pytest.mark.parametrize(
    "settings",
    [
        {"classes": ("one",)},
        {"classes": ("one", "")},
        {"std": (0.0,)},
        {"mean": (math.nan,)},
        {"scale": 0.0},
        {"scale": math.inf},
        {"output_planes": (0, 0, 1)},
        {"fit": "crop"},
        {"size": 3},
    ],
)
def test_settings_that_are_never_right(settings):
    with pytest.raises(ValidationError):
        ImportOnnxSettings(**{"classes": TWO, **settings})


def test_a_network_that_is_refused_leaves_nothing(tmp_path):
    (tmp_path / "net.onnx").write_text("no network")
    with pytest.raises(ModelError):
        import_onnx(tmp_path / "net.onnx", tmp_path / "net.bundle", ImportOnnxSettings(classes=TWO))
    assert [item.name for item in tmp_path.iterdir()] == ["net.onnx"]


def test_an_existing_bundle_is_kept_unless_forced(forge, bring, tmp_path):
    path = bring(forge.convolution(3, 2).model, classes=TWO)
    before = (path / "manifest.json").read_bytes()
    settings = ImportOnnxSettings(classes=("other", "things"))
    with pytest.raises(OutputError) as caught:
        import_onnx(tmp_path / "net.onnx", path, settings)
    assert str(caught.value) == f"{path}: exists already. Name another, or add --force."
    assert (path / "manifest.json").read_bytes() == before
    import_onnx(tmp_path / "net.onnx", path, settings, force=True)
    assert load(path, engine="onnxruntime").spec.classes == ("other", "things")


def _real(shared, name):
    path = shared / "weights" / name
    if not path.exists():
        pytest.skip(f"no {name}")
    return path


def _photo(shared, height, width):
    path = next(iter(sorted((shared / "data" / "camvid" / "val" / "images").glob("*"))), None)
    if path is None:
        pytest.skip("no CamVid")
    image = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
    return np.ascontiguousarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA))


def _original(path, x):
    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: x.astype(np.float32)})[0]


def _assert_as_original(bundle, image, expected):
    """``expected`` (K, H, W): probabilities of the original network run by hand."""
    found = segment(bundle, image, ("labels", "probabilities"))
    assert (found["labels"][0] == expected.argmax(0)).mean() > 0.999
    # convolutions of a converted network may be fused in another order
    np.testing.assert_allclose(found["probabilities"][0], expected * 255, atol=1.5)


def test_espnet(shared, tmp_path):
    path = _real(shared, "espnet_camvid.onnx")
    about = json.loads(path.with_suffix(".json").read_text())
    settings = ImportOnnxSettings(
        classes=tuple(about["classes"]),
        channel_order="bgr",
        mean=tuple(about["mean_bgr"]),
        std=tuple(value * 255 for value in about["std_bgr"]),
        ignore_index=11,
    )
    manifest = import_onnx(path, tmp_path / "espnet.bundle", settings)
    assert manifest.input.multiple_of == 8
    assert manifest.ignore_index == 11
    image = _photo(shared, 180, 240)  # 180 is no multiple of 8: the graph pads
    padded = np.pad(image, ((0, 4), (0, 0), (0, 0)), mode="edge")[..., ::-1]
    x = (padded - np.array(settings.mean)) / np.array(settings.std)
    scores = _original(path, x.transpose(2, 0, 1)[None])[0, :, :180]
    expected = np.moveaxis(_softmax(np.moveaxis(scores, 0, -1).astype(float)), -1, 0)
    for engine in ENGINES:
        _assert_as_original(load(tmp_path / "espnet.bundle", engine=engine), image, expected)


def test_wnet(shared, tmp_path):
    path = _real(shared, "wnet_retina.onnx")
    about = json.loads(path.with_suffix(".json").read_text())
    settings = ImportOnnxSettings(classes=tuple(about["classes"]), scale=1 / 255)
    manifest = import_onnx(path, tmp_path / "wnet.bundle", settings)
    assert manifest.task == "binary"
    assert manifest.input.multiple_of == 4
    image = _photo(shared, 96, 128)
    logit = _original(path, image.transpose(2, 0, 1)[None] / 255)[0].astype(float)
    foreground = 1 / (1 + np.exp(-logit))
    expected = np.concatenate([1 - foreground, foreground])
    for engine in ENGINES:
        _assert_as_original(load(tmp_path / "wnet.bundle", engine=engine), image, expected)


@pytest.mark.parametrize(("name", "side"), [("sinet_portrait", 320), ("deeplab_portrait", 513)])
def test_portrait_networks(shared, tmp_path, name, side):
    """Old opsets, one size, one image at a time: resized, and as tiles."""
    path = _real(shared, f"{name}.onnx")
    image = _photo(shared, side, side)
    scores = _original(path, image.transpose(2, 0, 1)[None] / 255)
    in_order = np.moveaxis(scores[0].astype(float), 0, -1)
    expected = np.moveaxis(_softmax(in_order), -1, 0)
    other = _photo(shared, side - 100, side + 9)
    for fit, engine in (("resize", "openvino"), ("tile", "onnxruntime")):
        settings = ImportOnnxSettings(classes=("background", "person"), scale=1 / 255, fit=fit)
        manifest = import_onnx(path, tmp_path / f"{fit}.bundle", settings)
        assert manifest.input.fixed_hw == ((side, side) if fit == "tile" else None)
        assert manifest.input.largest_batch == 1
        bundle = load(tmp_path / f"{fit}.bundle", engine=engine)
        _assert_as_original(bundle, image, expected)
        assert segment(bundle, other)["labels"].shape == (1, *other.shape[:2])


def test_paths_may_be_text(forge, tmp_path):
    onnx.save(forge.convolution(3, 2).model, tmp_path / "net.onnx")
    settings = ImportOnnxSettings(classes=TWO)
    import_onnx(str(tmp_path / "net.onnx"), str(tmp_path / "x.bundle"), settings)
    assert load(tmp_path / "x.bundle").manifest.name == "net"
