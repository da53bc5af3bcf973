"""One way of scoring for all: predicted label maps against the truth, pooled over the images."""

from __future__ import annotations

from pathlib import Path

from delineate.data.dataset import DatasetInfo, by_stem, list_files
from delineate.data.masks import read_mask
from delineate.evaluation.confusion import Confusion
from delineate.evaluation.scores import Scores, compute_scores


def score(predictions: Path, masks: Path, info: DatasetInfo) -> Scores:
    """The scores of a folder of label maps, each as large as its image.

    Args:
        predictions: PNGs of class ids.
        masks: the truth; every one of them must have a prediction of its name.
        info: classes and ignore index.

    Raises:
        MaskError: a prediction is missing or of another size.
        ModelError: a prediction holds an id that is no class.
    """
    confusion = Confusion(info.classes, info.ignore_index)
    for name, mask in by_stem(list_files(masks)).items():
        path = predictions / f"{name}.png"
        confusion.update(read_mask(mask), read_mask(path), path)
    return compute_scores(confusion)


def headline(scores: Scores) -> float:
    """Foreground Dice where there are two classes, else mIoU."""
    return scores.foreground_dice if len(scores.classes) == 2 else scores.mean_iou
