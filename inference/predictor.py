"""Pixels to class probabilities with ONNX Runtime."""

from collections.abc import Sequence
from typing import Any, TypedDict

import numpy as np
import numpy.typing as npt
import onnxruntime

from inference.archive import ArchiveError, Model
from inference.cpus import available_cpus, lacks_vnni
from inference.preprocess import Pixels

INPUT = "image"
OUTPUT = "probabilities"

Probabilities = npt.NDArray[np.float32]


class Prediction(TypedDict):
    """One class of an answer."""

    label: str
    index: int
    probability: float


class Predictor:
    """A model ready to answer; from any thread.

    Any number of threads may call it. A call that is alone has the help of others; calls beside
    each other do best on a thread each, without waiting for helpers after every operator.

    Args:
        model: A verified model.
        threads: Threads that share the work of a call; by default the cores available.

    Raises:
        ArchiveError: ONNX Runtime cannot load the network, or its inputs or outputs are not those
            of the archive's contract.
    """

    def __init__(self, model: Model, threads: int | None = None) -> None:
        self.model = model
        self.threads = threads or available_cpus()
        self._shared = _session(model, self.threads)
        self._single = _session(model, 1) if self.threads > 1 else self._shared
        self._check_interface()

    def probabilities(self, images: Pixels, is_alone: bool = True) -> Probabilities:
        """Classify images.

        Args:
            images: RGB pixels [N, crop, crop, 3].
            is_alone: Whether no other call runs, so that all threads may help.

        Returns:
            Probabilities [N, classes]; each row sums to 1.
        """
        session = self._shared if is_alone else self._single
        (answer,) = session.run([OUTPUT], {INPUT: images})
        return np.asarray(answer)

    def _check_interface(self) -> None:
        crop, classes = self.model.preprocess.crop, len(self.model.labels)
        found = [_signature(node) for node in self._shared.get_inputs()]
        found += [_signature(node) for node in self._shared.get_outputs()]
        wanted = [
            (INPUT, "tensor(uint8)", [crop, crop, 3]),
            (OUTPUT, "tensor(float)", [classes]),
        ]
        if found != wanted:
            raise ArchiveError(f"{self.model.onnx.name}: interface {found}, expected {wanted}")


def top_k(probabilities: Probabilities, labels: Sequence[str], k: int = 5) -> list[Prediction]:
    """Give the `k` most probable classes (or all, if fewer), best first, ties by index.

    Args:
        probabilities: One image's probabilities [classes].
        labels: Class names in index order.
        k: How many classes to give.
    """
    best = np.argsort(-probabilities, kind="stable")[:k]
    return [
        Prediction(label=labels[i], index=int(i), probability=float(probabilities[i])) for i in best
    ]


def _session(model: Model, threads: int) -> onnxruntime.InferenceSession:
    try:
        return onnxruntime.InferenceSession(model.onnx, _options(threads), ["CPUExecutionProvider"])
    # ONNX Runtime raises a class of its own for every kind of fault, without a common base.
    except Exception as error:
        raise ArchiveError(f"{model.onnx.name}: not loadable: {error}") from error


def _options(threads: int) -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 3  # errors only
    # Batches differ in size, so a plan of memory made for one is of no use to the next.
    options.enable_mem_pattern = False
    # Threads that spin between operators take the cores that decoding needs.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if lacks_vnni():
        # Without those instructions, sums of 8-bit products saturate at 16 bits.
        options.add_session_config_entry("session.x64quantprecision", "1")
    return options


def _signature(node: Any) -> tuple[str, str, list[int | str]]:
    return node.name, node.type, node.shape[1:]
