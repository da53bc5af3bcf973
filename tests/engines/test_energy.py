"""Counters of energy: read, wrapped, absent and forbidden."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import pytest

from delineate.engines import energy
from delineate.engines.energy import Counter, Meter, meter_of


def zone(folder: Path, name: str, microjoules: int, largest: int = 10_000_000) -> Path:
    made = folder / name
    made.mkdir(parents=True)
    (made / "energy_uj").write_text(f"{microjoules}\n")
    (made / "max_energy_range_uj").write_text(f"{largest}\n")
    return made


def test_packages_are_added_and_their_parts_are_not(tmp_path: Path) -> None:
    packages = [zone(tmp_path, f"intel-rapl:{i}", 1_000_000) for i in range(2)]
    zone(tmp_path, "intel-rapl:0:0", 5_000_000)  # the cores of a package, in it already
    (packages[0] / "name").write_text("package-0\n")
    (zone(tmp_path, "intel-rapl:2", 9_000_000) / "name").write_text("psys\n")  # the same again
    meter = meter_of("cpu", tmp_path)
    assert meter.reason == ""
    before = meter.now()
    assert before == (1.0, 1.0)
    (packages[0] / "energy_uj").write_text("3500000")
    (packages[1] / "energy_uj").write_text("1250000")
    assert meter.since(before) == pytest.approx(2.75)


def test_a_counter_that_began_again(tmp_path: Path) -> None:
    package = zone(tmp_path, "intel-rapl:0", 9_000_000)
    meter = meter_of("cpu", tmp_path)
    before = meter.now()
    (package / "energy_uj").write_text("500000")
    assert meter.since(before) == pytest.approx(1.5)


def test_no_counter(tmp_path: Path) -> None:
    meter = meter_of("cpu", tmp_path / "nowhere")
    assert meter.reason == "this machine shows no counter of energy"
    assert meter.now() == ()
    assert meter.since(()) is None
    assert "gpu" in meter_of("gpu", tmp_path).reason


def test_a_counter_that_may_not_be_read(tmp_path: Path) -> None:
    package = zone(tmp_path, "intel-rapl:0", 1)
    (package / "energy_uj").write_text("secret")
    assert meter_of("cpu", tmp_path).reason.startswith("the counter of energy cannot be read")
    (package / "energy_uj").unlink()
    (package / "energy_uj").mkdir()  # reading it fails, as it does for other users than root
    assert meter_of("cpu", tmp_path).reason.startswith("the counter of energy cannot be read")


class Library:
    """NVML with one GPU that has used so many millijoules, or refuses."""

    def __init__(self, begin: int = 0, energy: int = 0) -> None:
        self.begin, self.energy, self.millijoules = begin, energy, 4_000

    def nvmlInit_v2(self) -> int:  # noqa: N802
        return self.begin

    def nvmlDeviceGetHandleByIndex_v2(self, index: int, handle: Any) -> int:  # noqa: N802
        assert index == 0
        return 0 if handle is not None else 1

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: Any, total: Any) -> int:  # noqa: N802
        assert isinstance(handle, ctypes.c_void_p)
        total._obj.value = self.millijoules
        return self.energy


def test_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    library = Library()
    monkeypatch.setattr(energy.ctypes, "CDLL", lambda _: library)
    meter = meter_of("cuda")
    before = meter.now()
    library.millijoules += 2_500
    assert meter.since(before) == pytest.approx(2.5)


@pytest.mark.parametrize(
    ("library", "reason"),
    [(Library(begin=9), "NVML refuses (status 9)"), (Library(energy=3), "gives no energy")],
)
def test_a_gpu_that_refuses(library: Library, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(energy.ctypes, "CDLL", lambda _: library)
    meter = meter_of("cuda")
    assert reason in meter.reason
    assert not meter.counters


def test_no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(_: str) -> None:
        raise OSError

    monkeypatch.setattr(energy.ctypes, "CDLL", none)
    assert meter_of("cuda").reason == "libnvidia-ml.so.1 is not there"


def test_a_meter_adds_its_counters() -> None:
    values = iter([1.0, 2.0, 4.0, 8.0])
    meter = Meter([Counter(lambda: next(values)), Counter(lambda: next(values))])
    assert meter.since(meter.now()) == 9.0
