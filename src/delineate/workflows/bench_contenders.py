"""What a bench compares: variants of bundles on engines, and the calls that are timed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from delineate.bundle.classical import ARRAYS, FOREST, METHOD
from delineate.bundle.load import Bundle, engines_on, load
from delineate.bundle.manifest import CLASSICAL
from delineate.bundle.store import BundleStore, find_bundle
from delineate.data.dataset import Sample
from delineate.data.encode import encode_image
from delineate.data.images import decode_image, read_image
from delineate.data.masks import encode_mask
from delineate.data.piece import top_left
from delineate.errors import EngineError, MissingExtraError, SettingsError
from delineate.tiling.segment import segment
from delineate.types import Image
from delineate.workflows.evaluate import as_input

TIMED_SIDE_PX = 1024  # of the image that is timed, at most, unless a size is asked for


@dataclass(frozen=True)
class Picture:
    """An image of the dataset, on disk and decoded."""

    path: Path
    content: bytes
    image: Image

    @classmethod
    def of(cls, sample: Sample) -> Picture:
        return cls(sample.image, sample.image.read_bytes(), read_image(sample.image))


@dataclass(frozen=True)
class Contender:
    """A variant of a bundle on an engine.

    Attributes:
        label: for people; tells it apart from all others.
        path: of the bundle.
        bundle: loaded.
        image: what is timed, as it takes it.
    """

    label: str
    path: Path
    bundle: Bundle
    image: Image

    @property
    def classical(self) -> bool:
        return self.bundle.engine == CLASSICAL

    @property
    def file_bytes(self) -> int:
        """Of the files that this variant needs, without canary and card."""
        store = BundleStore(self.path)
        names = {store.manifest.variants[self.bundle.variant].file}
        if self.classical:
            names = {METHOD, ARRAYS, FOREST} & set(store.manifest.files)
        return sum(len(store.read(name)) for name in names)

    def network(self) -> object:
        """One call, from pixels to labels."""
        return self.bundle.predict(self.image[None])

    def whole(self, picture: Picture) -> Callable[[], object]:
        """A call from the bytes of a file to those of a mask, as ``predict`` does it."""
        bundle, content = self.bundle, picture.content
        if picture.image.shape[:2] != self.image.shape[:2]:
            content = encode_image(self.image, picture.path.suffix)

        def call() -> object:
            image = as_input(decode_image(content, "image"), bundle.spec, picture.path)
            found = segment(
                bundle,
                image,
                tiling=bundle.manifest.tiling,
                postprocessing=bundle.manifest.postprocessing,
            )
            return encode_mask(found["labels"][0], bundle.manifest.colours)

        return call


def contenders_of(
    bundles: Sequence[Path],
    picture: Picture,
    *,
    engine: str,
    device: str,
    threads: int | None,
    image_hw: tuple[int, int] | None,
    left_out: dict[str, str],
) -> Iterator[Contender]:
    """Every variant on every engine that it may run on.

    Args:
        bundles: bundles, or runs that hold one each.
        picture: of the dataset.
        engine, device, threads: as for :func:`delineate.bundle.load.load`; ``auto`` is all engines.
        image_hw: size that is timed, pixels; that of the picture when left out.
        left_out: told what does not run here, and why.

    Raises:
        SettingsError: there is no bundle.
        BundleError: a bundle is damaged.
    """
    if not bundles:
        raise SettingsError("there is nothing to compare", mend="Name one bundle or more.")
    paths = list({path.resolve(): path for path in map(find_bundle, bundles)}.values())
    names = Counter(path.stem for path in paths)
    for path in paths:
        name = path.stem if names[path.stem] == 1 else str(path)
        manifest = BundleStore(path).manifest
        for variant, item in manifest.variants.items():
            told = name if variant == "float32" else f"{name} {variant}"
            engines: tuple[str, ...] = engines_on(device, engine)
            if item.engine == CLASSICAL:
                engines = ("auto",)
            elif item.engine is not None and item.engine not in engines:
                why = f"was admitted on {item.engine}, which is not compared here"
                left_out[told] = why
                continue
            elif item.engine is not None:
                engines = (item.engine,)
            for chosen in engines:
                label = told if item.engine == CLASSICAL else f"{told} on {chosen}"
                try:
                    bundle = load(
                        path,
                        engine=chosen,
                        device="cpu" if item.engine == CLASSICAL else device,
                        variant=variant,
                        threads=threads,
                    )
                    image = _timed(bundle, picture, image_hw)
                    bundle.predict(image[None])
                except (EngineError, MissingExtraError) as error:
                    left_out[label] = str(error)
                    continue
                yield Contender(label, path, bundle, image)


def _timed(bundle: Bundle, picture: Picture, image_hw: tuple[int, int] | None) -> Image:
    """What is timed: of the size that is asked for, or that the network takes."""
    wanted = bundle.spec.fixed_hw or image_hw
    image = as_input(picture.image, bundle.spec, picture.path)
    return top_left(image, wanted or (TIMED_SIDE_PX, TIMED_SIDE_PX), wanted or (0, 0))
