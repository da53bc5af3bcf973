"""Energy that the machine itself counts: RAPL of a processor, NVML of an NVIDIA GPU."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

POWERCAP = Path("/sys/class/powercap")
_NVML = "libnvidia-ml.so.1"


@dataclass(frozen=True)
class Counter:
    """One counter that grows with the energy used.

    Attributes:
        read: its value, joules.
        wraps_at: the value after which it begins at 0 again; 0 for never.
    """

    read: Callable[[], float]
    wraps_at: float = 0.0


@dataclass(frozen=True)
class Meter:
    """All counters of a device.

    Attributes:
        counters: none where the machine tells nothing.
        reason: why there is none, in words.
    """

    counters: Sequence[Counter]
    reason: str = ""

    def now(self) -> tuple[float, ...]:
        """The value of every counter, joules."""
        return tuple(counter.read() for counter in self.counters)

    def since(self, before: Sequence[float]) -> float | None:
        """Joules that were used since ``before``, of all counters; None where there is none."""
        if not self.counters:
            return None
        total = 0.0
        for counter, earlier, later in zip(self.counters, before, self.now(), strict=True):
            total += later - earlier + (counter.wraps_at if later < earlier else 0.0)
        return total


def meter_of(device: str, powercap: Path = POWERCAP) -> Meter:
    """The energy counters of a device.

    Args:
        device: ``cpu``: every processor package by RAPL, without memory that is counted apart;
            ``cuda``: the first GPU by NVML. Others have none.
        powercap: where Linux shows the counters of RAPL.
    """
    match device:
        case "cpu":
            return _rapl(powercap)
        case "cuda":
            return _nvml()
    return Meter((), f"no counter of energy is known for {device}")


def _rapl(powercap: Path) -> Meter:
    """Linux shows microjoules of each package; since 2020 to root alone (CVE-2020-8694)."""
    zones = [
        zone
        for zone in sorted(powercap.glob("intel-rapl:*"))
        if zone.name.count(":") == 1 and (zone / "energy_uj").exists() and _is_package(zone)
    ]
    if not zones:
        return Meter((), "this machine shows no counter of energy")
    counters = []
    for zone in zones:
        try:
            _microjoules(zone / "energy_uj")
            wraps_at = _microjoules(zone / "max_energy_range_uj")
        except (OSError, ValueError) as error:
            return Meter((), f"the counter of energy cannot be read ({error})")
        counters.append(Counter(lambda file=zone / "energy_uj": _microjoules(file), wraps_at))  # type: ignore[misc]
    return Meter(tuple(counters))


def _is_package(zone: Path) -> bool:
    """The zone ``psys`` of laptops counts the packages once more, and what is around them."""
    try:
        return (zone / "name").read_text().startswith("package")
    except OSError:
        return True


def _microjoules(file: Path) -> float:
    return int(file.read_text()) / 1e6


def _nvml() -> Meter:
    try:
        library = ctypes.CDLL(_NVML)
    except OSError:
        return Meter((), f"{_NVML} is not there")
    handle = ctypes.c_void_p()
    total = ctypes.c_ulonglong()

    def read() -> float:
        status = library.nvmlDeviceGetTotalEnergyConsumption(handle, ctypes.byref(total))
        if status:
            raise OSError(f"NVML gives no energy (status {status})")
        return total.value / 1e3

    first = library.nvmlInit_v2() or library.nvmlDeviceGetHandleByIndex_v2(0, ctypes.byref(handle))
    if first:
        return Meter((), f"NVML refuses (status {first})")
    try:
        read()
    except OSError as error:
        return Meter((), str(error))
    return Meter((Counter(read),))
