"""The settings of every stage. Every field carries its unit in its name or its help."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from delineate.config.settings import Fraction, Positive, Settings

Architecture = Literal[
    "unet",
    "unet++",
    "attention-unet",
    "manet",
    "linknet",
    "fpn",
    "pspnet",
    "pan",
    "upernet",
    "deeplabv3",
    "deeplabv3+",
    "deeplabv3-resnet101",
    "segformer",
    "fast-scnn",
    "ddrnet-23-slim",
]
LossTerm = Literal["ce", "focal", "ohem", "dice", "tversky", "lovasz", "boundary"]
_LOSS_TERMS: tuple[LossTerm, ...] = (
    "ce",
    "focal",
    "ohem",
    "dice",
    "tversky",
    "lovasz",
    "boundary",
)
_CLASS_WEIGHTED: frozenset[LossTerm] = frozenset({"ce", "focal", "ohem"})


NormalisedBy = Literal["dataset", "image"]


class Normalisation(Settings):
    """Normalisation of raw pixel values, ``(x - mean) / std`` for each channel."""

    by: NormalisedBy = Field(
        "dataset",
        description="whose mean and deviation: those below, or the own ones of each image, which "
        "the graph takes as an input; those below are of the training images then",
    )
    mean: tuple[float, ...] = Field(description="for each channel, in raw pixel values")
    std: tuple[Positive, ...] = Field(description="for each channel, in raw pixel values")

    @model_validator(mode="after")
    def _same_length(self) -> Normalisation:
        if len(self.mean) != len(self.std):
            raise ValueError(f"mean has {len(self.mean)} values and std {len(self.std)}")
        return self


class TilingSettings(Settings):
    """How an image larger than one tile is cut and merged."""

    tile_px: int = Field(1024, ge=32, description="side of a square tile, pixels")
    overlap_px: int = Field(128, ge=0, description="how far neighbours overlap at least, pixels")
    batch: int = Field(1, ge=1, description="tiles given to the engine at once")

    @model_validator(mode="after")
    def _overlap_leaves_a_core(self) -> TilingSettings:
        if self.overlap_px > self.tile_px // 2:
            raise ValueError(
                f"overlap_px is {self.overlap_px}, more than half of tile_px {self.tile_px}; "
                f"use {self.tile_px // 2} or less"
            )
        return self


class PostprocessingSettings(Settings):
    """What is done to a finished label map, in this order. Zero means: not done."""

    smallest_object_px: int = Field(
        0, ge=0, description="objects of fewer pixels become background (class 0)"
    )
    largest_hole_px: int = Field(
        0, ge=0, description="holes of at most this many pixels take the class around them"
    )


class ModelSettings(Settings):
    """Which network is built."""

    architecture: Architecture = Field("unet", description="how encoder and decoder are joined")
    encoder: str = Field("resnet18", description="an encoder of segmentation-models-pytorch")
    encoder_weights: str | None = Field(
        None, description="none, 'imagenet' (downloads), or the path of a .safetensors file"
    )
    decoder_channels: tuple[int, ...] | None = Field(
        None, description="channels of the decoder, deepest first; the library's own when left out"
    )
    downscale: Literal[1, 2, 4] = Field(
        1, description="the network sees blocks of this many pixels squared as one"
    )
    deep_supervision: bool = Field(
        False, description="coarser outputs are trained too, where the architecture has them"
    )


class LossSettings(Settings):
    """What training minimises: a weighted sum of terms."""

    name: str = Field(
        "ce+dice",
        description="terms joined by +, each with a weight before * where it is not 1: ce+dice, "
        f"ce+0.5*lovasz; the terms are {', '.join(_LOSS_TERMS)}",
    )
    class_weights: tuple[Positive, ...] | None = Field(
        None, description="weight of each class in ce, focal and ohem; equal when left out"
    )
    focal_gamma: float = Field(2.0, ge=0.0, description="focusing exponent of the focal loss")
    ohem_share: Annotated[float, Field(gt=0.0, le=1.0)] = Field(
        0.25, description="share of the pixels, the hardest, that ohem counts"
    )
    tversky_false_negatives: Fraction = Field(
        0.7, description="weight of missed pixels in the Tversky loss; false alarms have the rest"
    )
    boundary_px: int = Field(
        3, ge=1, description="half width of the band in which boundaries are compared, pixels"
    )

    @field_validator("name")
    @classmethod
    def _is_a_sum_of_terms(cls, name: str) -> str:
        parse_loss(name)
        return name.replace(" ", "")

    @model_validator(mode="after")
    def _weights_have_a_term(self) -> LossSettings:
        if self.class_weights is not None and not takes_class_weights(self.name):
            raise ValueError(
                f"class_weights have no meaning for the loss {self.name}, which weighs each class "
                f"the same; leave them out, or use the loss ce+{self.name}"
            )
        return self

    @property
    def terms(self) -> dict[LossTerm, float]:
        """The weight of each term, in the order of the name."""
        return parse_loss(self.name)


def parse_loss(name: str) -> dict[LossTerm, float]:
    """The terms of a loss and their weights: ``ce+0.5*dice`` is ``{"ce": 1.0, "dice": 0.5}``.

    Raises:
        ValueError: a term is unknown or there twice, or a weight is no positive number.
    """
    terms: dict[LossTerm, float] = {}
    for part in name.replace(" ", "").split("+"):
        weight, star, word = part.rpartition("*")
        term = next((known for known in _LOSS_TERMS if known == word), None)
        if term is None:
            raise ValueError(
                f"{word!r} is no loss; the terms are {', '.join(_LOSS_TERMS)}, as in ce+0.5*lovasz"
            )
        if term in terms:
            raise ValueError(f"{term} is there twice")
        try:
            terms[term] = float(weight) if star else 1.0
        except ValueError:
            terms[term] = math.nan
        if not 0 < terms[term] < math.inf:
            raise ValueError(f"the weight of {term} is {weight!r}, not a positive number")
    return terms


def takes_class_weights(name: str) -> bool:
    """Whether a term of the loss ``name`` weighs pixels by their class.

    Raises:
        ValueError: ``name`` is no loss.
    """
    return not _CLASS_WEIGHTED.isdisjoint(parse_loss(name))


class AugmentationSettings(Settings):
    """The same change for image and mask. Each probability is per sample."""

    scale: tuple[Positive, Positive] = Field(
        (0.5, 1.5), description="range of the zoom before the crop; 1 keeps the pixel size"
    )
    horizontal_flip: Fraction = Field(0.5, description="probability")
    vertical_flip: Fraction = Field(0.0, description="probability")
    rotation_degrees: float = Field(10.0, ge=0.0, le=180.0, description="largest angle, degrees")
    rotation: Fraction = Field(0.3, description="probability")
    elastic: Fraction = Field(0.1, description="probability")
    elastic_displacement_px: float = Field(8.0, ge=0.0, description="largest shift, pixels")
    elastic_spacing_px: int = Field(64, ge=4, description="distance of control points, pixels")
    brightness: float = Field(
        0.2, ge=0.0, le=1.0, description="largest shift, share of the range in use"
    )
    contrast: float = Field(0.2, ge=0.0, le=1.0, description="largest change of the factor from 1")
    hue: float = Field(0.03, ge=0.0, le=0.5, description="largest turn, share of a full circle")
    colour: Fraction = Field(0.8, description="probability of brightness, contrast and hue")
    blur: Fraction = Field(0.1, description="probability")
    blur_sigma_px: float = Field(1.5, gt=0.0, description="largest sigma, pixels")
    noise: Fraction = Field(0.1, description="probability")
    noise_sigma: float = Field(0.05, ge=0.0, description="largest sigma, share of the range in use")


class SamplingSettings(Settings):
    """Which crops training sees."""

    balanced: Fraction = Field(
        0.0, description="share of the crops laid around a pixel of a class drawn evenly"
    )
    copy_paste: Fraction = Field(
        0.0, description="probability that objects are pasted in; needs object ids in the dataset"
    )
    copy_paste_objects: int = Field(3, ge=1, description="objects pasted into a crop at most")


class OptimiserSettings(Settings):
    """AdamW with a linear warm-up and a cosine to zero."""

    learning_rate: Positive = Field(1e-3, description="at the end of the warm-up")
    weight_decay: float = Field(1e-2, ge=0.0, description="decoupled, of all weights")
    warmup: Fraction = Field(0.05, description="share of the training spent warming up")
    gradient_clip: Positive = Field(1.0, description="largest norm of the gradient")
    ema: Annotated[float, Field(ge=0.0, lt=1.0)] = Field(
        0.0,
        description="decay for each step of the moving average of the weights, which is what is "
        "validated and shipped; 0 ships the weights themselves",
    )


class DistillationSettings(Settings):
    """How much a student listens to its teacher; without a teacher it means nothing."""

    pixels: float = Field(1.0, ge=0.0, description="weight of the soft classes of each pixel")
    temperature: Positive = Field(2.0, description="of both softmaxes over classes")
    channels: float = Field(0.0, ge=0.0, description="weight of where each class lies; 3 is usual")
    channel_temperature: Positive = Field(4.0, description="of both softmaxes over places")


class Plan(Settings):
    """The configuration of one training: everything but the dataset and how long it lasts."""

    model: ModelSettings = ModelSettings()
    loss: LossSettings = LossSettings()
    augmentation: AugmentationSettings = AugmentationSettings()
    sampling: SamplingSettings = SamplingSettings()
    optimiser: OptimiserSettings = OptimiserSettings()
    distillation: DistillationSettings = DistillationSettings()
    tiling: TilingSettings = TilingSettings()
    postprocessing: PostprocessingSettings = PostprocessingSettings()
    choose_postprocessing: bool = Field(
        True,
        description="where postprocessing does nothing, its sizes are chosen on val at the end, "
        "and kept where they help",
    )
    normalisation: NormalisedBy = Field(
        "dataset",
        description="each channel to mean 0 and deviation 1: over the training images, or over "
        "each image by itself",
    )
    crop_px: int = Field(256, ge=32, description="side of the square training crop, pixels")
    batch_size: int = Field(8, ge=1, description="crops in a step, over all devices")
    micro_batch: int | None = Field(
        None,
        ge=1,
        description="crops that go through the network at once, on one device; gradients are "
        "summed up over the rest. As many as memory holds when left out",
    )
    deterministic: bool = Field(
        False,
        description="the same bits in every run on one machine even where that is slower, as far "
        "as its operations allow; PyTorch names those that do not",
    )
    precision: Literal["auto", "32", "bf16", "fp16"] = Field(
        "auto", description="of the arithmetic; auto takes 16 bits where the hardware is fast in it"
    )
    validations: int = Field(8, ge=1, description="how often the run is scored on val")
    patience: int | None = Field(
        None, ge=1, description="stop after this many validations without a better score"
    )
    seed: int = Field(0, ge=0, le=2**31 - 1, description="of weights, order and augmentation")
    checkpoint_s: Positive = Field(60.0, description="seconds between checkpoints at most")

    @field_validator("precision", mode="before")
    @classmethod
    def _number_is_text(cls, value: Any) -> Any:
        return str(value) if value == 32 else value  # YAML reads 32 as a number


class Duration(Settings):
    """How long a training lasts: a number of steps, or a budget of time."""

    steps: int | None = Field(None, ge=1, description="optimiser steps")
    budget_s: Positive | None = Field(None, description="seconds from start to bundle")

    @model_validator(mode="after")
    def _exactly_one(self) -> Duration:
        if (self.steps is None) == (self.budget_s is None):
            raise ValueError("give either steps or budget_s")
        return self
