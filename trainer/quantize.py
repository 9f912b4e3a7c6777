"""Static int8 quantization of an exported network, by a short list of recipes.

All recipes: QDQ format, weights per channel and signed, activations unsigned, ranges averaged over
single training images (rare extremes would cost resolution; percentiles gained nothing more and
took ten times as long). Unsigned activations run twice as fast as signed ones on x86 with VNNI.

Without VNNI, x86 sums two 8-bit products in 16 bits, which saturates. The 7-bit weights of
`reduce_range` would avoid that for more accuracy than all the rest costs, on every machine; the
server avoids it where it happens, by ONNX Runtime's option `session.x64quantprecision`.
"""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process

from inference.predictor import INPUT
from inference.preprocess import Pixels
from trainer.onnx_export import canonical
from trainer.progress import progress, working


@dataclass(frozen=True)
class Recipe:
    """What of a network becomes int8.

    Attributes:
        name: For people.
        float_convolutions: How many convolutions at the input keep float32. They see large pictures
            of few channels, where int8 saves the least time and costs the most accuracy.
        operators: ONNX operators that become int8; the head, normalization and softmax never do.
    """

    name: str
    float_convolutions: int
    operators: tuple[str, ...]


_WEIGHTED = ("Conv", "Gemm", "MatMul")
_ALL = (*_WEIGHTED, "Add", "Clip", "MaxPool", "Relu")
RECIPES = (
    Recipe("all convolutions in int8", 0, _ALL),
    Recipe("first 3 convolutions in float32", 3, _ALL),
    Recipe("first 9 convolutions in float32", 9, _ALL),
    Recipe("weighted layers alone in int8, first 9 convolutions in float32", 9, _WEIGHTED),
)


def recipes_for(network: onnx.ModelProto) -> tuple[Recipe, ...]:
    """Give the recipes to try, the fastest first.

    With depthwise convolutions, all of it in int8 costs accuracy and saves little time: on
    EfficientNet-Lite0 0.2 points and a twentieth (docs/performance.md). ResNet-50 gains a tenth.
    """
    convolutions = (node for node in network.graph.node if node.op_type == "Conv")
    attributes = (attribute for node in convolutions for attribute in node.attribute)
    is_depthwise = any(a.name == "group" and a.i > 1 for a in attributes)
    return RECIPES[1:] if is_depthwise else RECIPES


def calibration_indices(targets: NDArray[np.int64], count: int, seed: int = 0) -> NDArray[np.int64]:
    """Choose images [at most `count`] for calibration, evenly over the classes and at random."""
    order = np.random.default_rng(seed).permutation(len(targets))
    turn = np.empty(len(targets), dtype=np.int64)
    for target in np.unique(targets):
        of_class = order[targets[order] == target]
        turn[of_class] = np.arange(len(of_class))
    chosen = order[np.argsort(turn[order], kind="stable")][:count]
    return np.sort(chosen)


def quantize(network: onnx.ModelProto, recipe: Recipe, images: Sequence[Pixels]) -> onnx.ModelProto:
    """Quantize a network by a recipe.

    Args:
        network: As `trainer.onnx_export.export` gives it.
        recipe: What becomes int8.
        images: Training images to calibrate with, each uint8 [crop, crop, 3].

    Returns:
        A network of the same inputs and outputs; the same arguments give the same bytes.
    """
    with tempfile.TemporaryDirectory(prefix="kennel-quantize-") as folder:
        exported, prepared, quantized = (
            Path(folder) / f"{name}.onnx" for name in ("exported", "prepared", "quantized")
        )
        onnx.save(network, exported)
        with working("preparing for int8"):
            quant_pre_process(str(exported), str(prepared))
        with progress(f"calibrating, {recipe.name}", len(images), "photos") as advance:
            quantize_static(
                str(prepared),
                str(quantized),
                _Images(images, advance),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=list(recipe.operators),
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                nodes_to_exclude=_float_nodes(onnx.load(prepared).graph, recipe),
                extra_options={"CalibMovingAverage": True, "MatMulConstBOnly": True},
            )
        return canonical(onnx.load(quantized))


def _float_nodes(graph: onnx.GraphProto, recipe: Recipe) -> list[str]:
    normalization = [n.name for n in takewhile(lambda n: n.op_type != "Conv", graph.node)]
    convolutions = [n.name for n in graph.node if n.op_type == "Conv"]
    head = [n.name for n in graph.node if n.op_type == "Gemm"][-1:]
    return normalization + convolutions[: recipe.float_convolutions] + head


class _Images(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, images: Sequence[Pixels], advance: Callable[[int], object]) -> None:
        self._images: Iterator[Pixels] = iter(images)
        self._advance = advance

    def get_next(self) -> dict[str, Pixels] | None:
        image = next(self._images, None)
        if image is None:
            return None
        self._advance(1)
        return {INPUT: image[np.newaxis]}
