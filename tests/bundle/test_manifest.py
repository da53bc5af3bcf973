"""``manifest.json``: read back as it was written, and refused field by field."""

from __future__ import annotations

import json

import pytest

from delineate.bundle.manifest import read_manifest
from delineate.errors import BundleError
from delineate.types import PredictorSpec

WHERE = "net.bundle"


def _document(**changes):
    return {
        "schema_version": 1,
        "name": "net",
        "task": "multiclass",
        "classes": [
            {"id": 0, "name": "background", "colour": [0, 0, 0]},
            {"id": 1, "name": "disc", "colour": [230, 159, 0]},
        ],
        "input": {
            "channels": 3,
            "dtype": "uint8",
            "multiple_of": 8,
            "fixed_hw": [32, 48],
            "largest_batch": 4,
            "normalisation": {"mean": [1, 2, 3], "std": [4, 5, 6]},
        },
        "variants": {"float32": {"file": "model.onnx"}},
        "files": {"model.onnx": "0" * 64},
        **changes,
    }


def _read(document):
    return read_manifest(json.dumps(document).encode(), WHERE)


def test_a_manifest_comes_back_as_it_was_written():
    manifest = _read(_document(version="2.1", ignore_index=255, provenance={"licence": "MIT"}))
    again = read_manifest(manifest.model_dump_json().encode(), WHERE)
    assert again == manifest
    assert manifest.class_names == ("background", "disc")
    assert manifest.colours == ((0, 0, 0), (230, 159, 0))
    assert manifest.spec() == PredictorSpec(
        ("background", "disc"), "multiclass", 3, "uint8", 8, (32, 48), 4
    )
    assert manifest.spec().summary_names == (
        "share/background", "share/disc", "mean_confidence", "mean_entropy",
    )  # fmt: skip


def _refusal(text):
    with pytest.raises(BundleError) as caught:
        read_manifest(text, WHERE)
    assert str(caught.value).startswith(f"{WHERE}: ")
    return str(caught.value).removeprefix(f"{WHERE}: ")


@pytest.mark.parametrize("text", [b"", b"{", b"\xff\xfe\x00", b"[" * 100_000])
def test_what_is_no_json(text):
    assert _refusal(text).startswith("manifest.json is no JSON (")


@pytest.mark.parametrize(
    ("text", "version"),
    [(b"[]", None), (b"null", None), (b"{}", None), (b'{"schema_version": 2}', 2)],
)
def test_another_schema(text, version):
    assert _refusal(text) == (
        f"manifest.json has schema version {version}, this delineate reads 1. Install the "
        "delineate that wrote it, or export the bundle again."
    )


def test_multilabel_is_refused_by_name():
    assert _refusal(json.dumps(_document(task="multilabel")).encode()) == (
        "the task multilabel is reserved and not supported. Train one binary model for each label."
    )


def _classes(*items):
    return [{"id": i, "name": name, "colour": [0, 0, 0]} for i, name in items]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"classes": _classes((0, "a"), (2, "b"))},
            "classes: class ids must count up from 0 without gaps (found ",
        ),
        (
            {"classes": _classes((1, "a"), (0, "b"))},
            "classes: class ids must count up from 0 without gaps (found ",
        ),
        (
            {"classes": _classes((0, "a"), (1, "a"))},
            "classes: class names must differ (found ",
        ),
        (
            {"classes": _classes((0, "a"))},
            "classes: Tuple should have at least 2 items after validation, not 1 (found ",
        ),
        (
            {"classes": [*_classes((0, "a")), {"id": 1, "name": "b", "colour": [0, 0, 256]}]},
            "classes.1.colour.2: Input should be less than or equal to 255 (found 256)",
        ),
        (
            {"classes": _classes((0, "a"), (1, "b"), (2, "c")), "task": "binary"},
            "the whole: a binary task has 2 classes, not 3 (found ",
        ),
        (
            {"variants": {"int8": {"file": "model.int8.onnx"}}},
            "the whole: the variant float32 is missing (found ",
        ),
        (
            {"classes": _classes((0, "a"), (1, ""))},
            "classes.1.name: String should have at least 1 character (found '')",
        ),
        ({"name": "../net"}, "name: String should match pattern "),
        ({"task": "panoptic"}, "task: Input should be 'multiclass' or 'binary' (found 'panoptic')"),
        ({"pages": 3}, "pages: Extra inputs are not permitted (found 3)"),
        ({"ignore_index": -1}, "ignore_index: Input should be greater than or equal to 0"),
    ],
)
def test_a_wrong_field(changes, message):
    found = _refusal(json.dumps(_document(**changes)).encode())
    assert found.startswith(f"manifest.json is wrong: {message}")


@pytest.mark.parametrize("field", ["name", "task", "classes", "input", "variants"])
def test_a_missing_field(field):
    document = _document()
    del document[field]
    found = _refusal(json.dumps(document).encode())
    assert found.startswith(f"manifest.json is wrong: {field}: Field required (found ")
