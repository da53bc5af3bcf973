"""Settings: what is refused and in which words, and that they survive their file."""

from __future__ import annotations

import pytest
from pydantic import BaseModel, ValidationError

from delineate import config
from delineate.config import (
    Duration,
    LossSettings,
    ModelSettings,
    Normalisation,
    Plan,
    Settings,
    TilingSettings,
    checked,
    dump_yaml,
    flattened,
    load_yaml,
    read_yaml,
    takes_class_weights,
    with_changes,
)
from delineate.errors import SettingsError

KINDS = [
    kind
    for kind in vars(config).values()
    if isinstance(kind, type) and issubclass(kind, Settings) and kind is not Settings
]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_unknown_fields_are_errors_and_values_never_change(kind):
    assert kind.model_config["extra"] == "forbid"
    assert kind.model_config["frozen"]


def test_a_plan_survives_its_file(tmp_path):
    plan = Plan(
        model=ModelSettings(encoder="resnet34", decoder_channels=(32, 16, 8, 8, 8)),
        loss=LossSettings(name="focal", class_weights=(0.5, 2.0)),
        tiling=TilingSettings(tile_px=64, overlap_px=32),
        patience=3,
    )
    path = tmp_path / "plan.yaml"
    path.write_text(dump_yaml(plan))
    assert load_yaml(path, Plan) == plan
    assert load_yaml(path, Plan) != Plan()


def test_an_empty_mapping_is_the_usual_plan(tmp_path):
    path = tmp_path / "plan.yaml"
    path.write_text("{}")
    assert load_yaml(path, Plan) == Plan()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds a NoneType, not a mapping of fields."),
        ("- 1\n- 2\n", "holds a list, not a mapping of fields."),
        ("hello", "holds a str, not a mapping of fields."),
    ],
)
def test_a_file_that_holds_something_else(tmp_path, text, message):
    path = tmp_path / "plan.yaml"
    path.write_text(text)
    with pytest.raises(SettingsError) as caught:
        read_yaml(path)
    assert str(caught.value) == f"{path}: {message}"


@pytest.mark.parametrize("content", [b"a: [1", b"\xff\xfe\xfa", b"a: !!python/name:os.system x"])
def test_a_file_that_is_no_yaml(tmp_path, content):
    path = tmp_path / "plan.yaml"
    path.write_bytes(content)
    with pytest.raises(SettingsError) as caught:
        read_yaml(path)
    assert str(caught.value).startswith(f"{path}: is no readable YAML (")


def test_no_file_and_a_folder(tmp_path):
    with pytest.raises(SettingsError) as caught:
        read_yaml(tmp_path / "none.yaml")
    assert str(caught.value) == f"{tmp_path / 'none.yaml'}: no such file."
    with pytest.raises(SettingsError, match=r"is no readable YAML \("):
        read_yaml(tmp_path)


REFUSED = {
    "unknown": (
        {"learning_rate": 0.1},
        "learning_rate: Extra inputs are not permitted (found 0.1).",
    ),
    "deep": (
        {"model": {"downscale": 3}},
        "model.downscale: Input should be 1, 2 or 4 (found 3).",
    ),
    "two": (
        {"crop_px": 8, "batch_size": 0},
        "crop_px: Input should be greater than or equal to 32 (found 8); batch_size: Input should "
        "be greater than or equal to 1 (found 0).",
    ),
    "overlap": (
        {"tiling": {"tile_px": 64, "overlap_px": 40}},
        "tiling: overlap_px is 40, more than half of tile_px 64; use 32 or less "
        "(found {'tile_px': 64, 'overlap_px': 40}).",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_wrong_plan(case):
    document, message = REFUSED[case]
    with pytest.raises(SettingsError) as caught:
        checked(Plan, document, "plan.yaml")
    assert str(caught.value) == f"plan.yaml: {message}"


@pytest.mark.parametrize("values", [{}, {"steps": 3, "budget_s": 5.0}])
def test_a_duration_is_steps_or_a_budget(values):
    with pytest.raises(ValidationError, match="give either steps or budget_s"):
        Duration(**values)
    assert Duration(steps=3).budget_s is None
    assert Duration(budget_s=1.5).steps is None


def test_normalisation_has_as_many_means_as_deviations():
    with pytest.raises(ValidationError, match="mean has 3 values and std 1"):
        Normalisation(mean=(1, 2, 3), std=(1,))
    with pytest.raises(ValidationError, match="greater than 0"):
        Normalisation(mean=(1,), std=(0,))


def test_changes_by_path():
    plan = Plan()
    changed = with_changes(plan, {"model.encoder": "resnet34", "crop_px": 64}, "options")
    assert (changed.model.encoder, changed.crop_px) == ("resnet34", 64)
    assert plan == Plan()
    assert with_changes(plan, {}, "options") == plan


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"crop_px": 1}, "crop_px: Input should be greater than or equal to 32 (found 1)"),
        ({"colour": 1}, "colour: Extra inputs are not permitted (found 1)"),
        ({"tiling.overlap_px": 600}, "tiling: overlap_px is 600, more than half of"),
    ],
)
def test_wrong_changes(changes, message):
    with pytest.raises(SettingsError) as caught:
        with_changes(Plan(), changes, "options")
    assert str(caught.value).startswith(f"options: {message}")


def test_long_values_are_cut():
    class Short(BaseModel):
        number: int

    with pytest.raises(SettingsError) as caught:
        checked(Short, {"number": "x" * 1000}, "here")
    assert len(str(caught.value)) < 250


@pytest.mark.parametrize(
    "path", ["foo.enc", "crop_px.x", "model.encoder.x", "loss.class_weights.0", "model.foo.bar"]
)
def test_changes_of_fields_that_are_not_there(path):
    with pytest.raises(SettingsError) as caught:
        with_changes(Plan(), {path: 1}, "the plan")
    assert str(caught.value) == (
        f"the plan: {path}: there is no such field. The first part is one of: "
        f"{', '.join(Plan.model_fields)}."
    )


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_numbers_are_finite(value):
    with pytest.raises(SettingsError) as caught:
        with_changes(Plan(), {"loss.focal_gamma": value}, "the plan")
    assert str(caught.value) == (
        f"the plan: loss.focal_gamma: Input should be a finite number (found {value})."
    )


def test_a_seed_has_31_bits():
    assert with_changes(Plan(), {"seed": 2**31 - 1}, "the plan").seed == 2**31 - 1
    with pytest.raises(SettingsError) as caught:
        with_changes(Plan(), {"seed": 99999999999999999999}, "the plan")
    assert "seed: Input should be less than or equal to 2147483647" in str(caught.value)


def test_nested_settings_get_dotted_names() -> None:
    nested = {"model": {"encoder": "resnet18", "channels": [16, 8]}, "empty": {}, "crop_px": 256}
    assert flattened(nested) == {
        "model.encoder": "resnet18",
        "model.channels": [16, 8],
        "empty": {},
        "crop_px": 256,
    }


@pytest.mark.parametrize("name", ["dice", "tversky", "lovasz", "boundary", "dice+0.5*lovasz"])
def test_class_weights_need_a_loss_that_takes_them(name: str) -> None:
    assert not takes_class_weights(name)
    with pytest.raises(SettingsError) as caught:
        checked(LossSettings, {"name": name, "class_weights": (1.0, 2.0)}, "plan.yaml")
    assert str(caught.value).startswith(
        "plan.yaml: the whole: class_weights have no meaning for the loss "
        f"{name}, which weighs each class the same; leave them out, or use the loss ce+{name}"
    )
    assert takes_class_weights(f"ce+{name}")
