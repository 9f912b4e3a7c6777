"""A trained classifier as an ONNX network from pixels to probabilities."""

import copy
import gc
from collections.abc import Iterator
from contextlib import contextmanager

import onnx
import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from inference.predictor import INPUT, OUTPUT
from inference.preprocess import Preprocess
from trainer.backbones import Classifier, LoadedModel

# What torch exports without conversion; every ONNX Runtime since 1.15 reads it.
OPSET = 18


class _Served(nn.Module):
    """A classifier from pixels to probabilities, in the form that ONNX Runtime computes fastest.

    Its 8-bit convolutions have no fast path for three channels, so the images have a fourth, which
    is zero. Means are subtracted a row at a time: to subtract three numbers from each of 50,000
    pixels takes it 20 times as long.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, classifier: Classifier, preprocess: Preprocess) -> None:
        super().__init__()
        self.classifier = copy.deepcopy(classifier)
        convolutions = (m for m in self.classifier.modules() if isinstance(m, nn.Conv2d))
        stem = next(conv for conv in convolutions if conv.in_channels == 3)
        stem.weight = nn.Parameter(pad(stem.weight, (0, 0, 0, 0, 0, 1)))
        mean, std = (torch.tensor(values) for values in (preprocess.mean, preprocess.std))
        self.register_buffer("mean", 255 * mean.tile(preprocess.crop))
        self.register_buffer("scale", torch.eye(3, 4) / (255 * std[:, None]))

    def forward(self, pixels: Tensor) -> Tensor:
        rows = pixels.flatten(2) - self.mean
        images = rows.view(pixels.shape) @ self.scale
        logits: Tensor = self.classifier(images.permute(0, 3, 1, 2))
        return logits.softmax(dim=1)


def export(model: LoadedModel) -> onnx.ModelProto:
    """Export a model; equal weights give equal bytes, wherever its folder lies.

    Returns:
        A network from `image`, uint8 [N, crop, crop, 3], to `probabilities`, float32 [N, classes].
        Normalization and softmax are part of it.
    """
    side = model.preprocess.crop
    # Two images, not one: torch.export would take a size of 1 for a constant.
    pixels = torch.zeros(2, side, side, 3, dtype=torch.uint8)
    with _uncollected():
        program = torch.onnx.export(
            _Served(model.classifier, model.preprocess).eval(),
            (pixels,),
            dynamo=True,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_shapes=({0: "N"},),
            opset_version=OPSET,
            verbose=False,
        )
    assert program is not None  # noqa: S101 - dynamo=True always gives a program
    return canonical(program.model_proto)


@contextmanager
def _uncollected() -> Iterator[None]:
    """Look for no garbage in what makes very many objects that stay: a sixth of an export."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def canonical(network: onnx.ModelProto) -> onnx.ModelProto:
    """Give a network with the same meaning whose bytes depend on that meaning alone.

    Exporters and quantizers number names by what ran before in the process, and note source lines
    and their own versions. Names become places in the graph; notes and inferred shapes are dropped.
    Subgraphs (control flow), which no classifier here has, are left as they are.
    """
    plain = onnx.ModelProto()
    plain.CopyFrom(network)
    for field in ("doc_string", "metadata_props", "producer_name", "producer_version"):
        plain.ClearField(field)
    graph = plain.graph
    for field in ("doc_string", "metadata_props", "value_info"):
        graph.ClearField(field)
    graph.name = "classifier"
    for value in (*graph.input, *graph.output):
        value.ClearField("doc_string")
        value.ClearField("metadata_props")

    names = {"": ""} | {value.name: value.name for value in (*graph.input, *graph.output)}
    for place, node in enumerate(graph.node):
        node.name = f"{node.op_type}_{place}"
        node.ClearField("doc_string")
        node.ClearField("metadata_props")
        for values in (node.input, node.output):
            values[:] = [names.setdefault(name, f"v{len(names)}") for name in values]
    used = sorted(
        (tensor for tensor in graph.initializer if tensor.name in names),
        key=lambda tensor: int(names[tensor.name][1:]),
    )
    for tensor in used:
        tensor.name = names[tensor.name]
        tensor.ClearField("doc_string")
        tensor.ClearField("metadata_props")
    tensors = [onnx.TensorProto.FromString(tensor.SerializeToString()) for tensor in used]
    graph.ClearField("initializer")
    graph.initializer.extend(tensors)
    return plain
