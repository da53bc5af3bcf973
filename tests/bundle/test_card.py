"""The model card, as a person reads it."""

from __future__ import annotations

from delineate.bundle.card import model_card
from delineate.bundle.manifest import ClassInfo, InputInfo, Manifest, Variant
from delineate.config import Normalisation

CARD = """\
# discs 2

A binary segmentation model for images of any size, 3 channels, uint8.

## Classes

| id | name |
| --- | --- |
| 0 | background |
| 1 | disc |

## Use

```
delineate predict discs.bundle IMAGE -o OUT
delineate serve discs.bundle
```

The graph takes raw pixels; normalisation is inside it. Images larger than 1024 px are cut into \
tiles that overlap by 128 px or more and are blended.

## Scores

| score on the validation split | value |
| --- | --- |
| mean_iou | 0.8123 |
| iou/disc | - |

## Provenance

Licence of the weights: MIT.

- dataset hash: abc

Scores hold for images like those they were measured on. Look at predictions on your own images \
before you rely on them.
"""


def _manifest(**changes):
    fields = {
        "name": "discs",
        "version": "2",
        "task": "binary",
        "classes": tuple(
            ClassInfo(id=i, name=name, colour=(0, 0, i))
            for i, name in enumerate(("background", "disc"))
        ),
        "input": InputInfo(
            channels=3, dtype="uint8", normalisation=Normalisation(mean=(0.0,) * 3, std=(1.0,) * 3)
        ),
        "variants": {"float32": Variant(file="model.onnx")},
    }
    return Manifest(**{**fields, **changes})


def test_the_card():
    scores = {"mean_iou": 0.81234, "iou/disc": None}
    manifest = _manifest(
        variants={"float32": Variant(file="model.onnx", scores=scores)},
        provenance={"licence": "MIT", "dataset_hash": "abc", "plan": {"seed": 0}, "source": ""},
    )
    assert model_card(manifest) == CARD


def test_a_card_without_scores_or_licence():
    fixed = InputInfo(
        channels=1,
        dtype="uint16",
        fixed_hw=(320, 240),
        normalisation=Normalisation(mean=(0.0,), std=(1.0,)),
    )
    card = model_card(_manifest(input=fixed))
    assert "for images of 320 x 240 px, 1 channels, uint16.\n" in card
    assert "Not measured. `delineate evaluate BUNDLE DATASET` measures them.\n" in card
    assert "Licence of the weights: unknown.\n" in card
