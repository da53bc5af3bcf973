"""Classes renamed, joined and left out: ``car=vehicle,truck=vehicle,*=background``."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt16

from delineate.data.formats.settings import DEFAULT_IGNORE, IGNORE_NAMES
from delineate.data.palette import Colour, is_background
from delineate.errors import SettingsError
from delineate.types import LabelMap

EVERYTHING_ELSE = "*"


@dataclass(frozen=True)
class Remapping:
    """What a class map does to one list of classes.

    Attributes:
        classes: names by new id; a background comes first, the others as they came.
        ignore_index: the new one, or None.
        table: new id of every old id up to 65535; ids of no class become 65535.
        first_old: for each new class the first old id that became it.
    """

    classes: tuple[str, ...]
    ignore_index: int | None
    table: UInt16[np.ndarray, " ids"]
    first_old: tuple[int, ...]

    @staticmethod
    def of_ignored(classes: tuple[str, ...], old: int | None, new: int) -> Remapping:
        """Another ignore index, and everything else as it is."""
        table = np.arange(65536, dtype=np.uint16)
        if old is not None:
            table[old] = new
        return Remapping(classes, new, table, tuple(range(len(classes))))

    def apply(self, labels: LabelMap) -> LabelMap:
        """(H, W) new ids; ``uint8`` where all of them fit."""
        largest = max(len(self.classes) - 1, self.ignore_index or 0)
        new: LabelMap = self.table[labels]
        if largest < 256 and (not new.size or int(new.max()) < 256):
            new = new.astype(np.uint8)
        return new

    def colours(self, old: Sequence[Colour] | None) -> tuple[Colour, ...] | None:
        """The colours of the new classes: those of the first old class each."""
        return None if old is None else tuple(old[index] for index in self.first_old)


@dataclass(frozen=True)
class ClassMap:
    """New names by old ones; ``*`` stands for every class that is not named.

    A new name that means ignored pixels (``ignore``, ``void``, ...) becomes the ignore index.
    """

    names: Mapping[str, str]

    @staticmethod
    def parse(text: str) -> ClassMap:
        """Read ``OLD=NEW,OLD=NEW,*=NEW``.

        Raises:
            SettingsError: a part is no pair, or an old name is there twice.
        """
        names: dict[str, str] = {}
        for part in text.split(","):
            old, equals, new = (word.strip() for word in part.partition("="))
            if not (old and equals and new):
                raise SettingsError(
                    f"{part.strip()!r} is no pair of names",
                    where="--map",
                    mend="Write OLD=NEW with commas between: car=vehicle,truck=vehicle,*=other.",
                )
            if old in names:
                raise SettingsError(f"{old!r} is mapped twice", where="--map")
            names[old] = new
        return ClassMap(names)

    def over(self, classes: Sequence[str], ignore_index: int | None) -> Remapping:
        """What the map does to ``classes``.

        Raises:
            SettingsError: an old name is no class, or fewer than two classes are left.
        """
        self._refuse_unknown(classes)
        return self._over(classes, ignore_index)

    def over_both(
        self, truth: Sequence[str], ignore_index: int | None, predicted: Sequence[str]
    ) -> tuple[Remapping, Remapping]:
        """What the map does to the classes of a dataset and to those of a model.

        Both remappings have the same classes in the same order: that of the dataset.

        Raises:
            SettingsError: an old name is in neither, a prediction would be ignored, or the two
                do not come to the same classes.
        """
        self._refuse_unknown(tuple(dict.fromkeys((*truth, *predicted))))
        target = self._over(truth, ignore_index)
        found = self._over(predicted, None)
        if found.ignore_index is not None:
            ignored = [
                name
                for name, new in zip(predicted, found.table, strict=False)
                if int(new) == found.ignore_index
            ]
            raise SettingsError(
                f"would ignore predictions of {', '.join(ignored)}; only true labels are ignored",
                where="--map",
                mend=f"Map it to a class: {ignored[0]}={target.classes[0]}.",
            )
        if set(target.classes) != set(found.classes):
            raise SettingsError(
                f"makes {', '.join(target.classes)} of the dataset's classes and "
                f"{', '.join(found.classes)} of the model's",
                where="--map",
                mend="Map both to the same names.",
            )
        place = np.arange(65536, dtype=np.uint16)
        place[: len(found.classes)] = [target.classes.index(name) for name in found.classes]
        old = [found.first_old[found.classes.index(name)] for name in target.classes]
        return target, Remapping(
            target.classes, target.ignore_index, place[found.table], tuple(old)
        )

    def _over(self, classes: Sequence[str], ignore_index: int | None) -> Remapping:
        rest = self.names.get(EVERYTHING_ELSE)
        targets = [self.names.get(name, name if rest is None else rest) for name in classes]
        ignored = [
            index == ignore_index or target.lower() in IGNORE_NAMES
            for index, target in enumerate(targets)
        ]
        new = list(dict.fromkeys(t for t, gone in zip(targets, ignored, strict=True) if not gone))
        new.sort(key=lambda name: not is_background(name))  # stable: only a background moves
        if len(new) < 2:
            raise SettingsError(
                f"leaves {'the one class ' + new[0] if new else 'no class'} of {len(classes)}",
                where="--map",
                mend="Keep at least two, background among them.",
            )
        table = np.full(65536, 65535, np.uint16)
        new_ignore = ignore_index
        if any(ignored) and (new_ignore is None or new_ignore < len(new)):
            new_ignore = DEFAULT_IGNORE if len(new) <= DEFAULT_IGNORE else 65535
        for old, target in enumerate(targets):
            if not ignored[old]:
                table[old] = new.index(target)
            elif new_ignore is not None:
                table[old] = new_ignore
        if ignore_index is not None and new_ignore is not None:
            table[ignore_index] = new_ignore
        return Remapping(tuple(new), new_ignore, table, tuple(targets.index(n) for n in new))

    def _refuse_unknown(self, classes: Sequence[str]) -> None:
        for name in self.names:
            if name != EVERYTHING_ELSE and name not in classes:
                near = difflib.get_close_matches(name, classes, n=1)
                raise SettingsError(
                    f"maps {name!r}, and there is no such class",
                    where="--map",
                    mend=f"Did you mean {near[0]}?" if near else f"There are {', '.join(classes)}.",
                )
