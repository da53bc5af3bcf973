"""``card.md``: the bundle in words, for people."""

from __future__ import annotations

from delineate.bundle.manifest import Manifest

_NOT_FOR_PEOPLE = {"licence", "plan", "import", "compression", "postprocessing_tried"}


def model_card(manifest: Manifest) -> str:
    """The model card in Markdown (after Mitchell et al. 2019), from what the manifest knows."""
    entry = manifest.input
    size = "any size" if entry.fixed_hw is None else f"{entry.fixed_hw[0]} x {entry.fixed_hw[1]} px"
    licence = manifest.provenance.get("licence", "unknown")
    lines = [
        f"# {manifest.name} {manifest.version}",
        "",
        f"A {manifest.task} segmentation model for images of {size}, {entry.channels} channels, "
        f"{entry.dtype}.",
        "",
        "## Classes",
        "",
        "| id | name |",
        "| --- | --- |",
        *[f"| {item.id} | {item.name} |" for item in manifest.classes],
        "",
        "## Use",
        "",
        "```",
        f"delineate predict {manifest.name}.bundle IMAGE -o OUT",
        f"delineate serve {manifest.name}.bundle",
        "```",
        "",
        f"{_what(manifest)} Images larger than "
        f"{manifest.tiling.tile_px} px are cut into tiles that overlap by "
        f"{manifest.tiling.overlap_px} px or more and are blended.{_cleaned(manifest)}",
        "",
        "## Scores",
        "",
    ]
    scores = manifest.variants["float32"].scores
    if scores:
        on = "held-out images" if "members" in manifest.provenance else "the validation split"
        lines += [f"| score on {on} | value |", "| --- | --- |"]
        lines += [
            f"| {name} | {'-' if value is None else format(value, '.4f')} |"
            for name, value in scores.items()
        ]
    else:
        lines.append("Not measured. `delineate evaluate BUNDLE DATASET` measures them.")
    lines += _variants(manifest)
    lines += ["", "## Provenance", "", f"Licence of the weights: {licence}.", ""]
    for name, value in manifest.provenance.items():
        if name not in _NOT_FOR_PEOPLE and value:
            lines.append(f"- {name.replace('_', ' ')}: {value}")
    lines += [
        "",
        "Scores hold for images like those they were measured on. Look at predictions on your own "
        "images before you rely on them.",
        "",
    ]
    return "\n".join(lines)


def _cleaned(manifest: Manifest) -> str:
    """What is done to a finished label map."""
    post, background = manifest.postprocessing, manifest.classes[0].name
    parts = []
    if post.smallest_object_px > 1:
        parts.append(f" Objects of fewer than {post.smallest_object_px} px become {background}.")
    if post.largest_hole_px > 0:
        parts.append(f" Holes of up to {post.largest_hole_px} px take the class around them.")
    return "".join(parts)


def _what(manifest: Manifest) -> str:
    if manifest.classical:
        return f"A classical method, no network: {manifest.provenance.get('method', 'unknown')}."
    if manifest.input.normalisation.by == "image":
        return (
            "The graph takes raw pixels, and scale and offset for each channel, by which an image "
            "is normalised by its own mean and deviation; delineate finds them by itself."
        )
    return "The graph takes raw pixels; normalisation is inside it."


def _variants(manifest: Manifest) -> list[str]:
    """A table of the variants where there are several."""
    if len(manifest.variants) == 1:
        return []
    lines = ["", "## Variants", "", "| variant | file | admitted on | mean IoU | ms |"]
    lines += ["| --- | --- | --- | --- | --- |"]
    for name, variant in manifest.variants.items():
        latency_ms = min(variant.latency_ms.values(), default=None)
        figures = [
            "-" if value is None else f"{value:.4g}"
            for value in (variant.scores.get("mean_iou"), latency_ms)
        ]
        engine = variant.engine or "any engine"
        lines.append(f"| {name} | {variant.file} | {engine} | {' | '.join(figures)} |")
    return lines
