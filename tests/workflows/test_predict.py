from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from delineate.bundle.load import Bundle
from delineate.config import TilingSettings
from delineate.data.rle import rle_to_labels
from delineate.errors import ImageError, OutputError, SettingsError
from delineate.workflows.predict import Predictions, PredictSettings, find_images, predict

Fake = Callable[..., Bundle]
Picture = Callable[..., tuple[np.ndarray, np.ndarray]]
Save = Callable[[Path, np.ndarray], None]


@pytest.fixture
def photos(tmp_path: Path, make_picture: Picture, save_image: Save) -> Path:
    for number in range(4):
        save_image(tmp_path / f"photos/p{number}.png", make_picture(number)[0])
    return tmp_path / "photos"


def mask_of(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        assert image.mode == "P"
        return np.asarray(image)


def written(out: Path) -> list[str]:
    return sorted(path.name for path in out.iterdir())


def test_a_folder(fake_bundle: Fake, photos: Path, tmp_path: Path, make_picture: Picture) -> None:
    seen: list[tuple[int, int]] = []
    found = predict(
        fake_bundle(), [photos], tmp_path / "out", on_progress=lambda *done: seen.append(done)
    )
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert found.failures == []
    assert written(tmp_path / "out") == ["p0.png", "p1.png", "p2.png", "p3.png"]
    for number, result in enumerate(found.results):
        truth = make_picture(number)[1]
        assert result.mask == tmp_path / f"out/p{number}.png"
        assert np.array_equal(mask_of(result.mask), truth)
        assert (result.height, result.width, result.mean_confidence) == (48, 40, 1.0)
        shares = {name: float(np.mean(truth == i)) for i, name in enumerate(result.shares)}
        assert result.shares == pytest.approx(shares)


def test_the_palette_is_the_bundles(fake_bundle: Fake, photos: Path, tmp_path: Path) -> None:
    predict(fake_bundle(), [photos / "p0.png"], tmp_path / "out")
    with Image.open(tmp_path / "out/p0.png") as image:
        assert image.getpalette()[:9] == [0, 0, 0, 0, 50, 0, 0, 100, 0]  # type: ignore[index]


def test_files_folders_and_globs_each_once_in_order(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (photos / "notes.txt").write_text("no image")
    (photos / "p9.png").mkdir()
    (photos / "odd[1].png").write_bytes(b"")
    names = ["p2.png", "odd[1].png", "p0.png", "p1.png", "p3.png"]
    monkeypatch.chdir(tmp_path)
    inputs = [photos / "p2.png", "photos", str(photos / "*.png"), "./photos/p0.png"]
    found = find_images(inputs)
    assert [path.name for path in found] == names
    assert [p.name for p in find_images(["photos/odd[1].png"])] == ["odd[1].png"]
    assert len(find_images(["**/p*.png"])) == 4


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ("nothing.png", "nothing.png: no such file, and no glob that matches."),
        ("nothing*.png", "nothing*.png: no such file, and no glob that matches."),
        ("empty", "empty: holds no images."),
    ],
)
def test_an_input_that_names_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, item: str, message: str
) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ImageError) as caught:
        find_images([item])
    assert str(caught.value) == message


def test_one_bad_file_does_not_end_a_folder(
    fake_bundle: Fake, photos: Path, tmp_path: Path
) -> None:
    (photos / "p1.png").write_text("only text")
    (photos / "p3.png").write_bytes((photos / "p3.png").read_bytes()[:300])
    found = predict(fake_bundle(), [photos], tmp_path / "out")
    assert [result.image.name for result in found.results] == ["p0.png", "p2.png"]
    assert written(tmp_path / "out") == ["p0.png", "p2.png"]
    assert [path.name for path, _ in found.failures] == ["p1.png", "p3.png"]
    assert str(found.failures[0][1]) == (
        f"{photos / 'p1.png'}: is text (it starts with 'only text'), not an image that can be "
        "read. Convert it to PNG, TIFF, JPEG, WebP or BMP."
    )
    document = found.to_dict()
    assert [failure["image"] for failure in document["failures"]] == [
        str(photos / "p1.png"),
        str(photos / "p3.png"),
    ]


def test_nothing_is_overwritten(fake_bundle: Fake, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "p2.png").write_text("mine")
    message = f"{out / 'p2.png'}: exists already. Name another folder, or add --force."
    with pytest.raises(OutputError) as caught:
        predict(fake_bundle(), [photos], out)
    assert str(caught.value) == message
    assert written(out) == ["p2.png"]
    predict(fake_bundle(), [photos], out, settings=PredictSettings(force=True))
    assert mask_of(out / "p2.png").shape == (48, 40)


@pytest.mark.parametrize("extra", ["overlay.png", "probabilities.npz", "json"])
def test_nor_is_what_comes_beside_a_mask(
    fake_bundle: Fake, photos: Path, tmp_path: Path, extra: str
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / f"p0.{extra}").write_text("mine")
    with pytest.raises(OutputError, match=rf"p0\.{extra}: exists already"):
        predict(
            fake_bundle(),
            [photos],
            out,
            settings=PredictSettings(overlay=True, probabilities=True, rle=True),
        )
    assert written(out) == [f"p0.{extra}"]


def test_an_input_is_never_written_to(fake_bundle: Fake, photos: Path) -> None:
    before = (photos / "p0.png").read_bytes()
    for force in (False, True):
        with pytest.raises(OutputError) as caught:
            predict(fake_bundle(), [photos], photos, settings=PredictSettings(force=force))
        assert str(caught.value) == (
            f"{photos / 'p0.png'}: is an input. Name another folder with -o."
        )
    assert (photos / "p0.png").read_bytes() == before


def test_two_inputs_of_one_stem(
    fake_bundle: Fake, photos: Path, tmp_path: Path, make_picture: Picture, save_image: Save
) -> None:
    other = tmp_path / "more/p1.bmp"
    save_image(other, make_picture(1)[0])
    with pytest.raises(OutputError) as caught:
        predict(fake_bundle(), [photos, other], tmp_path / "out")
    assert str(caught.value) == (
        f"{tmp_path / 'out/p1.png'}: {photos / 'p1.png'} and {other} would both be written to it. "
        "Predict them into two folders."
    )
    assert not (tmp_path / "out").exists()


def test_an_overlay_of_one_is_not_the_mask_of_another(
    fake_bundle: Fake, photos: Path, tmp_path: Path, make_picture: Picture, save_image: Save
) -> None:
    save_image(photos / "p1.overlay.png", make_picture(1)[0])
    with pytest.raises(OutputError, match=r"p1\.overlay\.png: .* would both be written to it"):
        predict(fake_bundle(), [photos], tmp_path / "out", settings=PredictSettings(overlay=True))


def test_everything_beside_the_mask(
    fake_bundle: Fake, photos: Path, tmp_path: Path, make_picture: Picture
) -> None:
    settings = PredictSettings(overlay=True, probabilities=True, rle=True)
    bundle = fake_bundle()
    found = predict(bundle, [photos / "p1.png"], tmp_path / "out", settings=settings)
    assert written(tmp_path / "out") == [
        "p1.json",
        "p1.overlay.png",
        "p1.png",
        "p1.probabilities.npz",
    ]
    image, truth = make_picture(1)
    with np.load(tmp_path / "out/p1.probabilities.npz") as arrays:
        planes = arrays["probabilities"]
    assert (planes.shape, planes.dtype) == ((3, 48, 40), np.uint8)
    assert np.array_equal(planes.argmax(0), truth)
    drawn = cv2.imread(str(tmp_path / "out/p1.overlay.png"))
    assert drawn.shape == image.shape
    assert not np.array_equal(drawn[:, :, ::-1], image)
    document = json.loads((tmp_path / "out/p1.json").read_text())
    assert {key: document[key] for key in found.results[0].to_dict()} == found.results[0].to_dict()
    assert np.array_equal(rle_to_labels(document["regions"], (48, 40)), truth)


def test_a_large_image_goes_through_tiles(
    fake_bundle: Fake, tmp_path: Path, make_picture: Picture, save_image: Save
) -> None:
    image, mask = make_picture(0)
    image, mask = np.tile(image, (4, 5, 1)), np.tile(mask, (4, 5))
    save_image(tmp_path / "large.png", image)
    bundle = fake_bundle()
    predict(bundle, [tmp_path / "large.png"], tmp_path / "out")
    sizes = bundle._predictor.sizes  # type: ignore[attr-defined]
    assert set(sizes) == {(64, 64)}  # the tile of the bundle
    assert len(sizes) >= 16
    assert np.array_equal(mask_of(tmp_path / "out/large.png"), mask)

    whole = fake_bundle()
    settings = PredictSettings(tiling=TilingSettings(tile_px=512))
    predict(whole, [tmp_path / "large.png"], tmp_path / "whole", settings=settings)
    assert whole._predictor.sizes == [(192, 200)]  # type: ignore[attr-defined]
    assert np.array_equal(mask_of(tmp_path / "whole/large.png"), mask)


def test_a_grey_image_into_a_model_of_colour(
    fake_bundle: Fake, tmp_path: Path, make_picture: Picture, save_image: Save
) -> None:
    image, mask = make_picture(0, channels=1)
    save_image(tmp_path / "grey.png", image)
    predict(fake_bundle(), [tmp_path / "grey.png"], tmp_path / "out")
    assert np.array_equal(mask_of(tmp_path / "out/grey.png"), mask)


@pytest.mark.parametrize(
    ("channels", "dtype", "message"),
    [
        (3, "uint16", "pixels are uint16, the model takes uint8."),
        (4, "uint8", "has 4 channels and 3 are wanted. Give images of 3 channels."),
    ],
)
def test_an_image_of_another_kind(
    fake_bundle: Fake,
    tmp_path: Path,
    make_picture: Picture,
    save_image: Save,
    channels: int,
    dtype: str,
    message: str,
) -> None:
    path = tmp_path / "image.tif"
    save_image(path, make_picture(0, channels=channels, dtype=dtype)[0])
    found = predict(fake_bundle(), [path], tmp_path / "out")
    assert found.results == []
    assert f"{path}: {message}" in str(found.failures[0][1])


def test_a_model_of_4_channels_of_16_bits(
    fake_bundle: Fake, tmp_path: Path, make_picture: Picture, save_image: Save
) -> None:
    image, mask = make_picture(0, channels=4, dtype="uint16")
    save_image(tmp_path / "scene.tif", image)
    settings = PredictSettings(overlay=True)
    bundle = fake_bundle(channels=4, dtype="uint16")
    found = predict(bundle, [tmp_path / "scene.tif"], tmp_path / "out", settings=settings)
    assert found.failures == []
    assert np.array_equal(mask_of(tmp_path / "out/scene.png"), mask)
    assert (tmp_path / "out/scene.overlay.png").exists()


def test_post_processing_is_applied(fake_bundle: Fake, photos: Path, tmp_path: Path) -> None:
    bundle = fake_bundle(smallest_object_px=10**6)
    found = predict(bundle, [photos / "p1.png"], tmp_path / "out")
    assert not mask_of(tmp_path / "out/p1.png").any()
    assert found.results[0].shares == {"sky": 1.0, "ground": 0.0, "car": 0.0}


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (errno.ENOSPC, "the disk is full. Free some space and run the command again."),
        (errno.EROFS, "cannot be written (Read-only file system)."),
    ],
)
def test_a_disk_that_takes_no_more_ends_it(
    fake_bundle: Fake,
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    message: str,
) -> None:
    def fail(part: Path, data: bytes) -> int:
        part.touch()
        raise OSError(number, os.strerror(number), len(data))

    monkeypatch.setattr(Path, "write_bytes", fail)
    with pytest.raises(OutputError) as caught:
        predict(fake_bundle(), [photos], tmp_path / "out")
    assert str(caught.value) == f"{tmp_path / 'out/p0.png'}: {message}"
    assert written(tmp_path / "out") == []


def test_a_bundle_on_disk(trained: Any, tmp_path: Path) -> None:
    found = predict(
        trained.bundle, [trained.dataset / "val/images"], tmp_path / "out", engine="onnxruntime"
    )
    assert isinstance(found, Predictions)
    assert [result.image.stem for result in found.results] == ["val0", "val1"]
    assert mask_of(tmp_path / "out/val0.png").shape == (48, 40)


def test_views(fake_bundle: Fake, trained: Any, tmp_path: Path) -> None:
    bundle = fake_bundle()
    images = [trained.dataset / "val/images"]
    plain = predict(bundle, images, tmp_path / "plain")
    bundle._predictor.sizes.clear()  # type: ignore[attr-defined]
    found = predict(bundle, images, tmp_path / "turned", settings=PredictSettings(tta="dihedral"))
    assert bundle._predictor.sizes.count((40, 48)) == 8  # type: ignore[attr-defined]
    for one, other in zip(plain.results, found.results, strict=True):
        assert one.mask.read_bytes() == other.mask.read_bytes()
    with pytest.raises(SettingsError, match=r"Choose from flips, dihedral\.$"):
        predict(bundle, images, tmp_path / "none", settings=PredictSettings(tta="turns"))
