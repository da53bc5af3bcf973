from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest

from delineate.data.statistics import Histogram, SizeCount, describe
from delineate.errors import OutputError
from delineate.workflows.dataset_page import dataset_page, write_page
from delineate.workflows.dataset_pictures import pictured
from delineate.workflows.dataset_plots import Axis, area_bars, share_dots, size_bubbles
from delineate.workflows.dataset_tables import percent


class Balance(HTMLParser):
    """Tags that are opened and not closed, addresses, and the text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.headings: list[str] = []
        self.words = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open, tag
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data
        if self.open and self.open[-1] == "h2":
            self.headings.append(data)


def dataset(folder: Path, *, classes: str, splits: tuple[str, ...] = ("train", "val")) -> Path:
    rng = np.random.default_rng(2)
    for split in splits:
        for index in range(3):
            mask = np.zeros((120 + 10 * index, 160), np.uint8)
            for class_id in (1, 2, 3):
                row, column = (int(v) for v in rng.integers(10, 90, 2))
                cv2.circle(mask, (column, row), 4 * class_id, class_id, -1)
            image = rng.integers(0, 100, (*mask.shape, 3), dtype=np.uint8)
            for kind, pixels in (("images", image), ("masks", mask)):
                (folder / split / kind).mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(folder / split / kind / f"{split}{index}.png"), pixels)
    (folder / "dataset.yaml").write_text(f"classes: {classes}\n")
    return folder


def parsed(html: str) -> Balance:
    balance = Balance()
    balance.feed(html)
    balance.close()
    assert balance.open == []
    return balance


def test_the_page_is_whole_and_needs_no_network(tmp_path: Path) -> None:
    folder = dataset(tmp_path / "<b>set", classes='[background, "<i>a&b", cell, "vessel\\"s"]')
    out = tmp_path / "page.html"
    write_page(describe(folder), out)
    html = out.read_text()
    page = parsed(html)
    assert page.headings == [
        "What it looks like",
        "Classes",
        "Sizes of objects",
        "Which classes touch",
        "The splits compared",
        "Image sizes",
        "Intensities",
        "Further facts",
    ]
    assert "6 images (train 3, val 3), 4 classes." in page.words
    assert page.addresses
    assert all(address.startswith("data:image/jpeg;base64,") for address in page.addresses)
    assert "<script" not in html
    assert "<b>set" not in html
    assert "<i>a" not in html
    assert "&lt;i&gt;a&amp;b" in html
    assert "nan" not in re.sub(r"base64,[^\"]*", "", html)
    for figure in re.findall(r"<svg.*?</svg>", html, re.DOTALL):
        assert ET.fromstring(figure).get("aria-label")


def test_a_page_without_masks_and_with_one_split(tmp_path: Path) -> None:
    folder = dataset(tmp_path / "set", classes="[a, b, c, d]", splits=("all",))
    found = describe(folder)
    assert "The splits compared" not in parsed(dataset_page(found)).headings
    for mask in (folder / "all" / "masks").iterdir():
        mask.unlink()
    page = parsed(dataset_page(describe(folder)))
    assert page.headings == ["Image sizes", "Intensities", "Further facts"]
    assert "3 images without a mask" in page.words


def test_the_rarest_class_chooses_its_picture_first(tmp_path: Path) -> None:
    folder = dataset(tmp_path, classes="[background, a, b, c]")
    found = describe(folder)
    shown = pictured(found)
    assert [example.class_id for example in shown] == [1, 1, 2, 2, 3, 3]
    assert len({(e.split, e.sample) for e in shown}) >= 4
    best = next(e for e in found.examples if e.class_id == 1)
    assert best in shown


def test_a_page_that_cannot_be_written(tmp_path: Path) -> None:
    found = describe(dataset(tmp_path / "set", classes="[a, b, c, d]"))
    (tmp_path / "file").touch()
    with pytest.raises(OutputError):
        write_page(found, tmp_path / "file" / "page.html")


@pytest.mark.parametrize(
    ("axis", "ticks"),
    [
        (Axis(0.0, 100.0, 0.0, 10.0), [0, 20, 40, 60, 80, 100]),
        (Axis(0.0, 255.0, 0.0, 10.0), [0, 50, 100, 150, 200, 250]),
        (Axis(1.0, 60.0, 0.0, 10.0, log=True), [1, 2, 5, 10, 20, 50]),
        (Axis(1e-4, 1.0, 0.0, 10.0, log=True), [1e-4, 1e-3, 1e-2, 0.1, 1]),
    ],
)
def test_ticks_are_round(axis: Axis, ticks: list[float]) -> None:
    assert axis.ticks() == pytest.approx(ticks)
    assert axis.at(axis.low) == axis.start
    assert axis.at(axis.high) == pytest.approx(axis.end)
    assert axis.at(axis.high * 2) == axis.end


def test_marks_lie_where_their_values_are() -> None:
    bars = area_bars(Histogram((1.0, 2.0, 3.0), (4, 2)), "t", 1.0, 3.0, (1, 2, 3))
    heights = [float(h) for h in re.findall(r'<rect[^>]* height="([\d.]+)"', bars)]
    assert heights[0] == pytest.approx(2 * heights[1], abs=0.2)
    assert "1 to 1 px: 4 objects" in bars
    dots = share_dots(["a", "b"], [("train", [0.1, 0.9]), ("val", [0.1, 0.0])])
    assert "b, val: 0 %" in dots
    bubbles = size_bubbles([SizeCount(10, 20, 4), SizeCount(30, 20, 1)])
    radii = [float(r) for r in re.findall(r' r="([\d.]+)"', bubbles)]
    assert radii == [22.0, 12.5]


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0.0, "0 %"),
        (1e-9, "<0.0001 %"),
        (0.00546, "0.546 %"),
        (0.9996, ">99.9 %"),
        (1.0, "100 %"),
    ],
)
def test_percentages(share: float, text: str) -> None:
    assert percent(share) == text
