"""The scores of a network before they become eight bits: what a student learns from."""

from __future__ import annotations

import cv2
import numpy as np
import onnx
import onnxruntime as ort
from jaxtyping import Float32

from delineate.engines.prune import prune
from delineate.engines.scaling import SCALING, batch_scalings
from delineate.errors import ModelError
from delineate.types import Images, PredictorSpec

_SCORES = "scores"
_LEAST = 1e-7  # of a probability, before its logarithm is taken


class ScoreModel:
    """Runs a finished graph up to its scores, in float32 with ONNX Runtime.

    Args:
        model: the finished graph (see ``bundle/graph.py``).
        spec: what it takes.
        device: ``cpu`` or ``cuda``.

    Raises:
        ModelError: the graph has no scores that can be found.
    """

    def __init__(self, model: onnx.ModelProto, spec: PredictorSpec, *, device: str = "cpu") -> None:
        self.spec = spec
        name, self._are_logits = _find_scores(model)
        self._session = ort.InferenceSession(
            _up_to(model, name).SerializeToString(),
            providers=[
                "CUDAExecutionProvider" if device == "cuda" else "CPUExecutionProvider",
            ],
        )

    def logits(
        self, images: Images, scalings: Float32[np.ndarray, "n 2 c"] | None = None
    ) -> Float32[np.ndarray, "n k h w"]:
        """Scores whose softmax over the classes are the probabilities.

        A network of one fixed size sees the images resized to it, and its scores are resized back.

        Args:
            images: (N, H, W, C), raw.
            scalings: (N, 2, C), of the image that each is a part of, for a network that is
                normalised by image; without them each is taken for a whole one.
        """
        inputs: dict[str, np.ndarray] = {}
        if self.spec.normalised_by_image:
            inputs[SCALING] = batch_scalings(images) if scalings is None else scalings
        height, width = images.shape[1:3]
        fixed = self.spec.fixed_hw
        if fixed is not None and fixed != (height, width):
            images = np.stack([_resized(image, fixed) for image in images])
        largest = self.spec.largest_batch or len(images)
        inputs["image"] = images
        parts = []
        for start in range(0, len(images), largest):
            part = {name: values[start : start + largest] for name, values in inputs.items()}
            parts.append(self._session.run([_SCORES], part)[0])
        scores = np.concatenate(parts)
        if not self._are_logits:
            scores = np.log(np.clip(scores, _LEAST, 1.0 - _LEAST))
            if scores.shape[1] == 1:
                scores -= np.log1p(-np.exp(scores))
        if scores.shape[1] == 1:  # the background's logit is 0
            scores = np.concatenate([np.zeros_like(scores), scores], axis=1)
        if scores.shape[2:] != (height, width):
            planes = [[cv2.resize(plane, (width, height)) for plane in one] for one in scores]
            scores = np.array(planes)
        return np.asarray(scores, np.float32)


def _resized(image: np.ndarray, hw: tuple[int, int]) -> np.ndarray:
    found = cv2.resize(image, (hw[1], hw[0]), interpolation=cv2.INTER_LINEAR)
    return np.asarray(found).reshape(*hw, image.shape[2])


def _find_scores(model: onnx.ModelProto) -> tuple[str, bool]:
    """The tensor that classes are chosen from, and whether it holds logits."""
    producer = {name: node for node in model.graph.node for name in node.output}
    node = producer.get("labels")
    while node is not None and node.op_type not in ("ArgMax", "Greater"):
        node = producer.get(node.input[0])
    if node is None:
        raise ModelError("its classes are chosen in a way that is not known here")
    scores = node.input[0]
    readers = [one.op_type for one in model.graph.node if scores in one.input]
    return scores, "Softmax" in readers or "Sigmoid" in readers


def _up_to(model: onnx.ModelProto, name: str) -> onnx.ModelProto:
    """The graph that ends in ``scores``, a copy of the tensor ``name``."""
    open_ended = onnx.ModelProto()
    open_ended.CopyFrom(model)
    open_ended.graph.node.append(
        onnx.helper.make_node("Identity", [name], [_SCORES], name="delineate/scores")
    )
    value = onnx.helper.make_tensor_value_info(
        _SCORES, onnx.TensorProto.FLOAT, ["n", "k", "h", "w"]
    )
    open_ended.graph.output.append(value)
    return prune(open_ended, [_SCORES])
