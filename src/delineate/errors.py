"""Every error that delineate raises on purpose.

DelineateError                 what was found, where, and what to do
├── InputError                 the input or the usage is wrong (exit status 2)
│   ├── ImageError             an image cannot be read or does not fit the model
│   │   └── PixelLimitError    an image has more pixels than the limit
│   ├── MaskError              a mask cannot be read or does not fit its image or classes
│   ├── DatasetError           a dataset folder or its dataset.yaml is wrong
│   ├── BundleError            a bundle is damaged, altered or of another schema
│   ├── CheckpointError        a checkpoint is damaged or belongs to another plan
│   ├── SettingsError          an option, a plan or a combination of options is wrong
│   ├── ModelError             an architecture, an encoder or a network file cannot be used
│   ├── EngineError            an engine or a device is absent or refuses the network
│   ├── MissingExtraError      a part of delineate needs packages that are not installed
│   └── OutputError            the output exists already, or cannot be written
└── RefusedError               everything worked and the answer is no (exit status 1)
"""

from __future__ import annotations

from pathlib import Path


class DelineateError(Exception):
    """An error a person can act on.

    Args:
        found: what was found, with the offending value.
        where: the file, option or class it was found in; left out when ``found`` names it.
        mend: what to do about it, with the number or the command that would work.
    """

    exit_status = 2

    def __init__(self, found: str, *, where: str | Path | None = None, mend: str = "") -> None:
        self.found = found
        self.where = None if where is None else str(where)
        self.mend = mend
        prefix = "" if self.where is None else f"{self.where}: "
        suffix = "" if not mend else f" {mend}"
        stop = "" if found.endswith((".", "!", "?")) else "."
        super().__init__(f"{prefix}{found}{stop}{suffix}")


class InputError(DelineateError):
    """The input or the usage is wrong."""


class ImageError(InputError):
    """An image cannot be read or does not fit the model."""


class PixelLimitError(ImageError):
    """An image has more pixels than the limit."""


class MaskError(InputError):
    """A mask cannot be read or does not fit its image or classes."""


class DatasetError(InputError):
    """A dataset folder or its ``dataset.yaml`` is wrong."""


class BundleError(InputError):
    """A bundle is damaged, altered or of another schema."""


class CheckpointError(InputError):
    """A checkpoint is damaged or belongs to another plan."""


class SettingsError(InputError):
    """An option, a plan or a combination of options is wrong."""


class ModelError(InputError):
    """An architecture, an encoder or a network file cannot be used."""


class EngineError(InputError):
    """An engine or a device is absent or refuses the network."""


class MissingExtraError(InputError):
    """A part of delineate needs packages that are not installed."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(
            f"this needs {package}, which is not installed",
            mend=f"Install it with: pip install 'delineate[{extra}]'",
        )


class OutputError(InputError):
    """The output exists already, or cannot be written."""


class RefusedError(DelineateError):
    """Everything worked and the answer is no: a gate refused."""

    exit_status = 1
