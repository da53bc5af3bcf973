"""A bundle as a predictor, and its canary re-run."""

from __future__ import annotations

import importlib.util
import io
import shutil

import cv2
import numpy as np
import onnx
import pytest

from delineate.bundle.graph import Wrapping, finish
from delineate.bundle.load import golden_name, golden_outputs, load
from delineate.bundle.manifest import Tolerance, Variant, read_manifest
from delineate.bundle.store import write_bundle
from delineate.config import Normalisation, TilingSettings
from delineate.engines.onnxruntime import OnnxRuntimePredictor
from delineate.errors import BundleError, EngineError, SettingsError
from delineate.types import OUTPUTS, Predictor, PredictorSpec

SHAPES = {"one": (20, 24), "two": (17, 31)}


@pytest.fixture(scope="module")
def parts(tiny_bundle):
    """Manifest and files of a bundle with a canary of two images."""
    manifest = read_manifest((tiny_bundle / "manifest.json").read_bytes(), "")
    model = (tiny_bundle / "model.onnx").read_bytes()
    predictor = OnnxRuntimePredictor(onnx.load_from_string(model), manifest.spec())
    files = {"model.onnx": model, "reference.json": b'{"images": 2}'}
    for seed, (name, shape) in enumerate(SHAPES.items()):
        image = np.random.default_rng(seed).integers(0, 256, (*shape, 3), np.uint8)
        files[f"canary/images/{name}.png"] = cv2.imencode(".png", image[..., ::-1])[1].tobytes()
        files[golden_name("float32", name)] = _npz(golden_outputs(predictor, image, 1024))
    return manifest, files


def _npz(arrays):
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


@pytest.fixture
def write(parts, tmp_path):
    def write(name="net.bundle", tolerance=None, **changed):
        manifest, files = parts
        if tolerance is not None:
            variant = Variant(file="model.onnx", tolerance=tolerance)
            manifest = manifest.model_copy(update={"variants": {"float32": variant}})
        write_bundle(tmp_path / name, manifest, {**files, **changed})
        return tmp_path / name

    return write


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_a_bundle_is_a_predictor(tiny_bundle, engine):
    bundle = load(tiny_bundle, engine=engine, threads=1)
    assert isinstance(bundle, Predictor)
    assert (bundle.engine, bundle.variant, bundle.path) == (engine, "float32", tiny_bundle)
    assert bundle.spec == bundle.manifest.spec()
    found = bundle.predict(np.zeros((2, 9, 7, 3), np.uint8), OUTPUTS)
    assert found["labels"].shape == (2, 9, 7)
    assert bundle.reference() == {}
    assert list(bundle.canary()) == []
    assert bundle.verify() == 0


def test_the_path_may_be_text(tiny_bundle):
    assert load(str(tiny_bundle), engine="onnxruntime").path == tiny_bundle


def test_a_zip_predicts_as_its_folder(write):
    image = np.random.default_rng(0).integers(0, 256, (1, 30, 30, 3), np.uint8)
    folder, packed = write("net.bundle"), write("net.zip")
    first = load(folder, engine="onnxruntime").predict(image, OUTPUTS)
    second = load(packed, engine="onnxruntime").predict(image, OUTPUTS)
    for name in OUTPUTS:
        np.testing.assert_array_equal(first[name], second[name])
    assert load(packed, engine="onnxruntime").verify() == 2


@pytest.mark.parametrize(("installed", "device", "engine"), [
    (True, "cpu", "openvino"), (False, "cpu", "onnxruntime"),
])  # fmt: skip
def test_the_engine_is_chosen(tiny_bundle, monkeypatch, installed, device, engine):
    find = importlib.util.find_spec

    def find_spec(name, package=None):
        return find(name, package) if installed or name != "openvino" else None

    monkeypatch.setattr(importlib.util, "find_spec", find_spec)
    assert load(tiny_bundle, device=device).engine == engine


def test_unknown_engines_variants_and_devices(tiny_bundle):
    with pytest.raises(SettingsError) as caught:
        load(tiny_bundle, engine="warp")
    assert str(caught.value) == (
        "engine 'warp' is unknown. Choose from auto, onnxruntime, openvino, tensorrt."
    )
    with pytest.raises(SettingsError) as caught:
        load(tiny_bundle, variant="int8")
    assert str(caught.value) == (
        f"{tiny_bundle}: has no variant 'int8'. Choose from float32, auto."
    )
    for engine in ("onnxruntime", "openvino", "auto"):
        with pytest.raises(EngineError, match=r"^device 'tpu' is not offered by this "):
            load(tiny_bundle, engine=engine, device="tpu")


def variants_of(**more):
    return {"float32": Variant(file="model.onnx", latency_ms={"here": 20.0}), **more}


def int8(**changed):
    fields = {"file": "model.int8.onnx", "precision": "int8", "engine": "onnxruntime"}
    return Variant(**{**fields, "latency_ms": {"here": 10.0}, **changed})


@pytest.fixture
def with_variants(parts, tmp_path):
    """A bundle whose int8 is the same network again; ``golden``: of which bundle's outputs."""

    def write(variants, **changed):
        manifest, files = parts
        files = {**files, "model.int8.onnx": files["model.onnx"]}
        for name in SHAPES:
            files[golden_name("int8", name)] = files[golden_name("float32", name)]
        manifest = manifest.model_copy(update={"variants": variants})
        write_bundle(tmp_path / "several.bundle", manifest, {**files, **changed})
        return tmp_path / "several.bundle"

    return write


def test_the_fastest_variant_that_runs(with_variants):
    path = with_variants(variants_of(int8=int8()))
    bundle = load(path, variant="auto")
    assert (bundle.variant, bundle.engine, bundle.passed_over) == ("int8", "onnxruntime", {})
    assert load(path).variant == "float32"
    assert load(path, variant="int8", engine="openvino").engine == "openvino"


def test_a_variant_that_was_never_timed_is_not_the_fastest(with_variants):
    path = with_variants(variants_of(int8=int8(latency_ms={})))
    assert load(path, variant="auto").variant == "float32"


def test_a_variant_that_computes_something_else_is_passed_over(with_variants):
    changed = _npz({"labels": np.ones((20, 24), np.uint8), "summary": np.zeros(4, np.float32)})
    path = with_variants(variants_of(int8=int8()), **{golden_name("int8", "one"): changed})
    bundle = load(path, variant="auto")
    assert bundle.variant == "float32"
    assert "canary one: " in bundle.passed_over["int8"]


def test_a_precision_that_is_not_here_is_passed_over(with_variants):
    half = int8(file="model.onnx", precision="bfloat16", engine="onnxruntime")
    path = with_variants(variants_of(bfloat16=half))
    bundle = load(path, variant="auto")
    assert bundle.variant == "float32"
    assert bundle.passed_over == {
        "bfloat16": "ONNX Runtime runs no float32 file in bfloat16. Use --engine openvino, or "
        "another variant."
    }
    with pytest.raises(EngineError, match="ONNX Runtime runs no float32 file in bfloat16"):
        load(path, variant="bfloat16")


def test_a_damaged_float32_is_an_error(with_variants):
    path = with_variants(
        variants_of(int8=int8()), **{"model.onnx": b"none", "model.int8.onnx": b""}
    )
    with pytest.raises(BundleError, match=r"model\.onnx is no ONNX file"):
        load(path, variant="auto")


def test_a_variant_outside_the_bundle_is_not_read(parts, tmp_path, tiny_bundle):
    shutil.copy(tiny_bundle / "model.onnx", tmp_path / "other.onnx")
    manifest, files = parts
    variants = {"float32": Variant(file="../other.onnx")}
    write_bundle(tmp_path / "a.bundle", manifest.model_copy(update={"variants": variants}), files)
    with pytest.raises(BundleError) as caught:
        load(tmp_path / "a.bundle")
    assert str(caught.value) == (
        f"{tmp_path / 'a.bundle'}: ../other.onnx is not listed in manifest.json."
    )


def test_a_network_file_that_is_none(write):
    path = write(**{"model.onnx": b"\xff\xff no network"})
    with pytest.raises(BundleError) as caught:
        load(path)
    assert str(caught.value).startswith(f"{path}: model.onnx is no ONNX file (")


def test_the_canary_is_read_and_passes(write):
    for engine in ("onnxruntime", "openvino"):
        bundle = load(write(f"{engine}.bundle"), engine=engine)
        assert bundle.verify() == 2
    assert bundle.reference() == {"images": 2}
    images = dict(bundle.canary())
    assert list(images) == ["one", "two"]
    for seed, (name, shape) in enumerate(SHAPES.items()):
        expected = np.random.default_rng(seed).integers(0, 256, (*shape, 3), np.uint8)
        np.testing.assert_array_equal(images[name], expected)


def _golden(parts, name):
    with np.load(io.BytesIO(parts[1][golden_name("float32", name)])) as arrays:
        return {key: arrays[key].copy() for key in arrays}


@pytest.mark.parametrize("pixels", [1, 2])
def test_labels_beyond_the_tolerance_are_refused(parts, write, pixels):
    golden = _golden(parts, "two")
    golden["labels"].ravel()[:pixels] ^= 1
    tolerance = Tolerance(labels=1.5 / (17 * 31), summary=0.01)
    path = write(tolerance=tolerance, **{golden_name("float32", "two"): _npz(golden)})
    bundle = load(path, engine="onnxruntime")
    if pixels == 1:
        assert bundle.verify() == 2
        return
    with pytest.raises(BundleError) as caught:
        bundle.verify()
    assert str(caught.value) == (
        f"{path}: canary two: 0.3795% of pixels change class (allowed 0.2846%) and the summary "
        "moves by 0.0000 (allowed 0.0100) against the golden outputs of float32. This engine or "
        "processor computes something else; try another --engine."
    )


@pytest.mark.parametrize("moved", [0.009, 0.011])
def test_summaries_beyond_the_tolerance_are_refused(parts, write, moved):
    golden = _golden(parts, "one")
    golden["summary"][-1] -= np.float32(moved)
    bundle = load(write(**{golden_name("float32", "one"): _npz(golden)}), engine="onnxruntime")
    if moved < 0.01:
        assert bundle.verify() == 2
        return
    with pytest.raises(BundleError, match=r"canary one: 0\.0000% .* moves by 0\.0110 "):
        bundle.verify()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"PK no zip", "canary/golden/float32/one.npz holds no golden outputs ("),
        (
            _npz({"labels": np.zeros((20, 24), np.uint8)}),
            "canary/golden/float32/one.npz holds no golden outputs (",
        ),
        (
            _npz({"labels": np.array({"a": 1}, object), "summary": np.zeros(4, np.float32)}),
            "canary/golden/float32/one.npz holds no golden outputs (",
        ),
        (
            _npz({"labels": np.zeros((3, 4), np.uint8), "summary": np.zeros(4, np.float32)}),
            "canary one: its golden outputs are of another size.",
        ),
    ],
    ids=["no zip", "no summary", "pickled", "another size"],
)
def test_golden_outputs_that_are_none(write, content, message):
    path = write(**{golden_name("float32", "one"): content})
    with pytest.raises(BundleError) as caught:
        load(path, engine="onnxruntime").verify()
    assert str(caught.value).startswith(f"{path}: {message}")


def test_a_canary_without_golden_outputs(parts, tmp_path):
    manifest, files = parts
    without = {name: data for name, data in files.items() if "golden" not in name}
    write_bundle(tmp_path / "a.bundle", manifest, without)
    with pytest.raises(BundleError) as caught:
        load(tmp_path / "a.bundle", engine="onnxruntime").verify()
    assert str(caught.value) == (
        f"{tmp_path / 'a.bundle'}: canary/golden/float32/one.npz is not listed in manifest.json."
    )


@pytest.mark.parametrize("shape", [(40, 50), (10, 12), (40, 9), (16, 24)])
def test_a_network_of_one_size_sees_the_corner(forge, shape):
    made = forge.convolution(3, 2, size=(16, 24), batch=1)
    plain = Normalisation(mean=(0.0,) * 3, std=(255.0,) * 3)
    model = finish(made.model, Wrapping(3, "uint8", "multiclass", 2, plain))
    spec = PredictorSpec(("a", "b"), "multiclass", 3, "uint8", fixed_hw=(16, 24))
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    found = golden_outputs(OnnxRuntimePredictor(model, spec), image, 1024)
    rows, columns = np.minimum(np.arange(16), shape[0] - 1), np.minimum(np.arange(24), shape[1] - 1)
    seen = image[rows][:, columns]
    assert found["labels"].shape == (16, 24)
    np.testing.assert_array_equal(found["labels"], made.scores(seen[None] / 255)[0].argmax(-1))
    assert found["summary"].shape == (4,)


def test_a_large_canary_is_seen_up_to_a_tile(parts, tmp_path):
    manifest, files = parts
    tiling = TilingSettings(tile_px=32, overlap_px=8)
    predictor = OnnxRuntimePredictor(onnx.load_from_string(files["model.onnx"]), manifest.spec())
    image = np.random.default_rng(0).integers(0, 256, (90, 20, 3), np.uint8)
    golden = golden_outputs(predictor, image, 32)
    assert golden["labels"].shape == (32, 20)
    corner = predictor.predict(image[None, :32], ("labels", "summary"))
    np.testing.assert_array_equal(golden["labels"], corner["labels"][0])
    canary = {
        "model.onnx": files["model.onnx"],
        "canary/images/large.png": cv2.imencode(".png", image[..., ::-1])[1].tobytes(),
        golden_name("float32", "large"): _npz(golden),
    }
    small = manifest.model_copy(update={"tiling": tiling})
    write_bundle(tmp_path / "a.bundle", small, canary)
    assert load(tmp_path / "a.bundle", engine="onnxruntime").verify() == 1
