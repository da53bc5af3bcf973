from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow
from rich.console import Console
from rich.table import Table

from delineate.data.dataset import Sample
from delineate.data.palette import default_colours
from delineate.errors import OutputError, SettingsError
from delineate.evaluation.comparison import compare_models
from delineate.evaluation.details import DetailSettings, Predicted
from delineate.evaluation.evaluate import Evaluation, evaluate
from delineate.evaluation.page import escape, facts, page, picture
from delineate.evaluation.report import write_report
from delineate.evaluation.table import format_instances, format_table

HOSTILE = "<script>alert('x')</script>"
VOID = {"meta", "img", "br", "link"}


class Page(HTMLParser):
    """Checks that every element is closed, and keeps what the tests look at."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.texts: list[str] = []
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {k: v or "" for k, v in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attrs for name, attrs in self.tags if name == tag]

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


def make_case(
    k: int,
    tmp_path: Path,
    *,
    names: list[str] | None = None,
    ignore_index: int | None = None,
    n: int = 5,
    dtype: type = np.uint8,
    channels: int = 3,
    provenance: dict[str, object] | None = None,
    sample_name: Callable[[int], str] = lambda i: f"im{i}",
) -> tuple[Evaluation, Page]:
    classes = names or [f"class {i}" for i in range(k)]
    samples = [Sample(sample_name(i), Path(f"im{i}.png"), None, None) for i in range(n)]

    def read(sample: Sample) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(samples.index(sample))
        truth = rng.integers(0, k, (24, 32)).astype(np.uint8 if k < 256 else np.uint16)
        image = np.repeat(truth[..., None], channels, axis=2).astype(dtype)
        if ignore_index is not None:
            truth[:3] = ignore_index
        return image, truth

    def predict(image: np.ndarray) -> np.ndarray:
        labels = image[..., 0].astype(np.uint8 if k < 256 else np.uint16)
        labels[5:9] = 0
        return labels

    result = evaluate(samples, read, predict, classes=classes, ignore_index=ignore_index)
    write_report(
        result,
        tmp_path / "report.html",
        title=f"Evaluation of {HOSTILE}" if names else "Evaluation of net on set/val",
        colours=default_colours(k, classes),
        read=read,
        predict=predict,
        provenance=provenance or {"Bundle": "net.bundle", "Software": {"numpy": "2.4", "x": 1}},
    )
    return result, Page(tmp_path / "report.html")


@pytest.mark.parametrize("k", [1, 2, 3, 11, 30, 60, 300])
def test_any_number_of_classes(k: int, tmp_path: Path) -> None:
    result, report = make_case(k, tmp_path)
    assert f"5 images, {k} classes" in report.text
    assert f"Mean IoU {result.scores.mean_iou:.3f}" in report.text
    for i in (0, k - 1):
        assert f"class {i} {result.scores.iou[i]:.3f}" in report.text.replace("–", "nan")
    cells = re.findall(r"<td[^>]*title=\"[\d,]+ px\"", report.source)
    shown = 0 if k == 1 else min(k, 48)
    truth_is_there = int((result.confusion.counts.sum(axis=1) > 0).sum())
    assert len(cells) == (0 if k == 1 else min(shown, truth_is_there) * shown)
    assert ("Shown are the 48 of" in report.text) == (k > 48)
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]


def test_nothing_is_fetched_or_run(tmp_path: Path) -> None:
    _, report = make_case(4, tmp_path)
    assert not {tag for tag, _ in report.tags} & {"script", "link", "iframe", "object", "embed"}
    assert not re.search(r"https?://|//\w+\.|@import|url\(", report.source)
    assert all(img["src"].startswith("data:image/jpeg;base64,") for img in report.all("img"))
    policy = next(
        m["content"] for m in report.all("meta") if "content" in m and "src" in m["content"]
    )
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def test_pictures_can_be_opened_and_are_described(tmp_path: Path) -> None:
    result, report = make_case(3, tmp_path)
    images = report.all("img")
    assert len(images) == 4 * len((*result.worst, *result.best)) == 20
    assert [img["alt"] for img in images[:4]] == [
        f"{what}: {result.worst[0].sample.name}"
        for what in ("Image", "Truth", "Prediction", "Errors")
    ]
    picture_bytes = base64.b64decode(images[0]["src"].split(",", 1)[1])
    with Pillow.open(io.BytesIO(picture_bytes)) as opened:
        assert opened.size == (int(images[0]["width"]), int(images[0]["height"])) == (32, 24)


def test_every_text_is_escaped(tmp_path: Path) -> None:
    names = [f"{HOSTILE}{i}" for i in range(3)]
    _, report = make_case(
        3,
        tmp_path,
        names=names,
        provenance={HOSTILE: HOSTILE, "Software": {HOSTILE: '"><img src=x onerror=alert(1)>'}},
        sample_name=lambda i: f'"><b onclick=alert({i})>{HOSTILE}',
    )
    assert "<script" not in report.source
    assert HOSTILE in report.text
    assert not any(name.startswith("on") for _, attrs in report.tags for name in attrs)
    assert not report.all("b")
    assert report.all("img")[0]["alt"].endswith(HOSTILE)


def test_two_classes_lead_with_the_foreground(tmp_path: Path) -> None:
    result, report = make_case(2, tmp_path, names=["background", "nucleus"])
    assert f"Dice of nucleus {result.scores.foreground_dice:.3f}" in report.text
    assert "error: missed" in report.text
    assert "error: falsely claimed" in report.text
    assert "Most frequent mistakes" not in report.text


def test_mistakes_are_ranked(tmp_path: Path) -> None:
    result, report = make_case(4, tmp_path)
    wrong = result.confusion.counts.copy()
    np.fill_diagonal(wrong, 0)
    i, j = np.unravel_index(wrong.argmax(), wrong.shape)
    assert (
        f"Most frequent mistakes Truth Predicted Pixels Of that truth class {i} class {j} "
        f"{wrong[i, j]:,}" in report.text
    )


def test_provenance(tmp_path: Path) -> None:
    _, report = make_case(3, tmp_path, ignore_index=255)
    assert "Bundle net.bundle Software numpy 2.4, x 1 Images 5 Pixels counted" in report.text
    assert "Ignore index 255" in report.text


@pytest.mark.parametrize(("dtype", "channels"), [(np.uint16, 8), (np.float32, 1), (np.uint8, 2)])
def test_images_of_any_kind(dtype: type, channels: int, tmp_path: Path) -> None:
    _, report = make_case(3, tmp_path, dtype=dtype, channels=channels)
    assert len(report.all("img")) == 20


def test_images_without_a_score(tmp_path: Path) -> None:
    samples = [Sample("void", Path("void.png"), None, None)]

    def read(_sample: Sample) -> tuple[np.ndarray, np.ndarray]:
        return np.zeros((4, 4, 3), np.uint8), np.full((4, 4), 255, np.uint8)

    def predict(_image: np.ndarray) -> np.ndarray:
        return np.zeros((4, 4), np.uint8)

    result = evaluate(samples, read, predict, classes=["a", "b"], ignore_index=255)
    write_report(
        result,
        tmp_path / "r.html",
        title="t",
        colours=default_colours(2),
        read=read,
        predict=predict,
        provenance={},
    )
    report = Page(tmp_path / "r.html")
    assert "1, 1 of them without a score (all pixels ignored)" in report.text
    assert "Mean IoU –" in report.text
    assert "Worst images" not in report.text
    assert not re.search(r"\bnan\b", report.source, re.IGNORECASE)


class TestErrors:
    def write(self, path: Path, colours: int, fail: bool = False) -> None:
        samples = [Sample("a", Path("a.png"), None, None)]
        truth = np.zeros((4, 4), np.uint8)

        def read(_sample: Sample) -> tuple[np.ndarray, np.ndarray]:
            return truth[..., None], truth

        def predict(_image: np.ndarray) -> np.ndarray:
            return truth

        def predict_again(_image: np.ndarray) -> np.ndarray:
            if fail:
                raise RuntimeError("engine fell over")
            return truth

        result = evaluate(samples, read, predict, classes=["a", "b"], ignore_index=None)
        write_report(
            result,
            path,
            title="t",
            colours=default_colours(colours),
            read=read,
            predict=predict_again,
            provenance={},
        )

    def test_colours_that_do_not_fit(self, tmp_path: Path) -> None:
        with pytest.raises(SettingsError) as caught:
            self.write(tmp_path / "r.html", 3)
        assert str(caught.value) == (
            "colours: 3 colours for 2 classes. Give one (red, green, blue) for each class."
        )

    def test_a_failure_leaves_the_old_report(self, tmp_path: Path) -> None:
        path = tmp_path / "r.html"
        path.write_text("old")
        with pytest.raises(RuntimeError):
            self.write(path, 2, fail=True)
        assert path.read_text() == "old"
        assert list(tmp_path.iterdir()) == [path]

    def test_a_path_that_cannot_be_written(self, tmp_path: Path) -> None:
        (tmp_path / "r.html").mkdir()
        with pytest.raises(OutputError) as caught:
            self.write(tmp_path / "r.html", 2)
        assert str(caught.value) == (f"{tmp_path / 'r.html'}: cannot be written (Is a directory).")
        assert [p.name for p in tmp_path.iterdir()] == ["r.html"]


def rendered(k: int, tmp_path: Path, names: list[str] | None = None) -> tuple[Evaluation, str]:
    result, _ = make_case(k, tmp_path, names=names)
    console = Console(width=100, file=io.StringIO(), color_system=None)
    console.print(format_table(result.scores))
    assert isinstance(console.file, io.StringIO)
    return result, console.file.getvalue()


def test_the_terminal_table(tmp_path: Path) -> None:
    result, text = rendered(3, tmp_path)
    scores = result.scores
    assert next(line for line in text.splitlines() if "class 2" in line).split() == [
        "class",
        "2",
        f"{scores.iou[2]:.3f}",
        f"{scores.dice[2]:.3f}",
        f"{scores.precision[2]:.3f}",
        f"{scores.recall[2]:.3f}",
        f"{scores.true_share[2] * 100:.2f}",
    ]
    assert f"{scores.mean_iou:.3f}" in text
    assert f"pixel accuracy {scores.pixel_accuracy:.3f}" in text


def detailed(hostile: str = "cell") -> Evaluation:
    """Ten images with objects, some of them missed, of a model that is always 80 % sure."""
    samples = [Sample(f"im{i}", Path(f"im{i}.png"), None, None) for i in range(10)]

    def read(sample: Sample) -> tuple[np.ndarray, np.ndarray]:
        truth = np.zeros((24, 32), np.uint8)
        truth[4:12, 4:12] = truth[4:12, 20:28] = 1
        return np.full((24, 32, 1), int(sample.name[2:]), np.uint8), truth

    def predict(image: np.ndarray) -> Predicted:
        labels = read(samples[0])[1]
        labels[:, : 3 * int(image[0, 0, 0])] = 0
        return Predicted(labels, np.full((24, 32), 204, np.uint8))

    def ids(sample: Sample, _hw: tuple[int, int]) -> np.ndarray:
        numbers = read(sample)[1].astype(np.uint16)
        numbers[:, 16:] *= 2
        return numbers

    return evaluate(
        samples,
        read,
        predict,
        classes=["background", hostile],
        ignore_index=None,
        details=DetailSettings(ids),
    )


def printed(table: Table) -> list[list[str]]:
    console = Console(width=80, file=io.StringIO(), color_system=None)
    console.print(table)
    assert isinstance(console.file, io.StringIO)
    return [line.split() for line in console.file.getvalue().splitlines()]


def test_the_terminal_table_with_details() -> None:
    result = detailed()
    intervals, boundary = result.details.intervals, result.details.boundary
    assert intervals is not None
    assert boundary is not None
    lines = printed(format_table(result.scores, result.details))
    low, high = intervals.iou[1]
    row = next(line for line in lines if line[:1] == ["cell"])
    assert row[:6] == [
        "cell",
        f"{result.scores.iou[1]:.3f}",
        f"({low:.2f}",
        "to",
        f"{high:.2f})",
        f"{result.scores.dice[1]:.3f}",
    ]
    assert row[6] == f"{boundary.iou[1]:.3f}"
    assert [
        "95",
        "%",
        "intervals:",
        "bootstrap",
        "over",
        "10",
        "images,",
        "2,000",
        "draws",
    ] in lines
    error = abs(result.scores.pixel_accuracy - 0.8)
    assert ["expected", "calibration", "error", f"{error:.3f}"] in lines


def test_the_terminal_table_of_objects() -> None:
    found = detailed().details.instances
    assert found is not None
    row = next(line for line in printed(format_instances(found)) if line[:1] == ["cell"])
    scores = [found.pq[1], found.sq[1], found.rq[1], found.ap50[1], found.ap[1]]
    assert row[1:] == [*(f"{value:.3f}" for value in scores), "20", str(found.predicted_objects[1])]


def test_every_detail_is_in_the_report(tmp_path: Path) -> None:
    result = detailed(HOSTILE)
    images = result.details.images
    assert images is not None
    names = (f"old {HOSTILE}", f"new {HOSTILE}")
    comparison = compare_models(names, (result.scores, result.scores), (images, images))
    write_report(
        replace(result, comparison=comparison, worst=(), best=()),
        tmp_path / "r.html",
        title="t",
        colours=default_colours(2),
        read=lambda _: (np.zeros((2, 2, 1), np.uint8), np.zeros((2, 2), np.uint8)),
        predict=lambda image: image[..., 0],
        provenance={},
    )
    report = Page(tmp_path / "r.html")
    assert "<script" not in report.source
    assert comparison.verdict() in report.text
    found = result.details
    assert found.instances is not None
    assert found.calibration is not None
    assert found.boundary is not None
    assert f"Panoptic quality {found.instances.pq[1]:.3f}" in report.text
    assert f"Calibration error {found.calibration.error:.3f}" in report.text
    assert f"Boundary IoU {found.boundary.mean_iou:.3f}" in report.text
    bars = [box for box in report.all("rect") if "fill-opacity" in box]
    assert len(bars) == 1  # one bin holds every pixel
    assert bars[0]["fill-opacity"] == "1.00"
    assert float(bars[0]["height"]) == pytest.approx(300 * result.scores.pixel_accuracy, abs=0.06)
    assert "to" in report.text.split("Below an IoU:")[1]


def test_a_class_name_is_no_markup_in_the_terminal(tmp_path: Path) -> None:
    _, text = rendered(2, tmp_path, ["[bold]x[/bold]", "[/nonsense]"])
    assert "[bold]x[/bold]" in text
    assert "[/nonsense]" in text


class TestBricks:
    def test_escape(self) -> None:
        assert escape("<a href=\"x\" title='y'>&") == (
            "&lt;a href=&quot;x&quot; title=&#x27;y&#x27;&gt;&amp;"
        )

    def test_facts(self) -> None:
        assert facts({"a<": {"b": 1, "c": "&"}}) == (
            '<dl class="facts"><div><dt>a&lt;</dt><dd>b 1, c &amp;</dd></div></dl>'
        )

    def test_noise_fits_into_a_picture(self) -> None:
        # Pillow's optimised writer runs out of its buffer on this
        rgb = np.random.default_rng(0).integers(0, 256, (420, 420, 3)).astype(np.uint8)
        assert picture(rgb, "n").startswith('<img src="data:image/jpeg;base64,')

    def test_page(self, tmp_path: Path) -> None:
        path = tmp_path / "p.html"
        path.write_text(page("T & t", escape("<body>"), "sub"), encoding="utf-8")
        parsed = Page(path)
        assert parsed.all("html") == [{"lang": "en"}]
        assert "T & t sub <body>" in parsed.text
