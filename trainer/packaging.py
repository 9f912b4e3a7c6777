"""Build the archive that is served from a model folder: export, compare, quantize, pack."""

import hashlib
import importlib.metadata
import json
import platform
import shutil
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch

from inference.archive import (
    FORMAT,
    MANIFEST,
    Model,
    describe_files,
    open_model,
    write_archive,
)
from inference.predictor import Predictor, Probabilities
from inference.preprocess import center_crop
from trainer.backbones import LoadedModel, load_model
from trainer.dataset import Dataset, Split, load
from trainer.done import report_on
from trainer.errors import KennelError, UsageError
from trainer.files import write_json_atomic
from trainer.onnx_export import export
from trainer.predictions import Targets, accuracy, classify, require_same_classes
from trainer.progress import working
from trainer.quantize import calibration_indices, quantize, recipes_for
from trainer.source import git_commit
from trainer.torch_answer import with_torch

MAX_TOP1_DROP = 0.005
MIN_AGREEMENT = 0.98
MAX_EXPORT_DIFFERENCE = 1e-3

_COPIED = ("config.json", "labels.json", "preprocess.json", "weights.safetensors")


@dataclass(frozen=True)
class Trial:
    """What a recipe for int8 did on `valid/`.

    Attributes:
        recipe: Its name.
        top1_valid: Accuracy of the quantized network.
        agreement: Share of the images with the same top-1 as in float32.
        holds: Whether both are good enough to serve it.
    """

    recipe: str
    top1_valid: float
    agreement: float
    holds: bool


@dataclass(frozen=True)
class Served:
    """The network that goes into the archive, why, and its figures on `valid/`."""

    network: onnx.ModelProto
    precision: str
    reason: str
    agreement: float
    top1_valid_fp32: float
    top1_valid_served: float
    recipes: tuple[Trial, ...]

    def figures(self) -> dict[str, Any]:
        """Give all but the network, as JSON types."""
        return {
            "precision": self.precision,
            "reason": self.reason,
            "agreement": self.agreement,
            "top1_valid_fp32": self.top1_valid_fp32,
            "top1_valid_served": self.top1_valid_served,
            "recipes": [asdict(trial) for trial in self.recipes],
        }


def package(
    folder: Path,
    data_dir: Path,
    output: Path,
    cache_dir: Path,
    precision: str,
    calibration_images: int,
) -> dict[str, Any]:
    """Write the archive of a model folder, and the report on it beside it (`done.report_on`).

    Args:
        folder: As `trainer.train` writes it.
        data_dir: The data that the model was trained on; `train/` calibrates, `valid/` judges.
        output: The archive, replaced only by a whole one.
        cache_dir: Folder of the decode-once stores.
        precision: "auto" (int8 if it holds, else float32), "fp32" or "int8".
        calibration_images: How many training images to calibrate int8 with.

    Returns:
        The content of the report.

    Raises:
        UsageError: Model or data is unfit, or they have different classes.
        KennelError: The export differs from PyTorch, no recipe holds (`int8`), or a disk is full.
    """
    model = load_model(folder)
    metrics = _metrics(folder)
    transform = model.preprocess
    data = load(
        data_dir, cache_dir, transform.resize, transform.interpolation, splits=("train", "valid")
    )
    require_same_classes(model.classes, data.classes)
    try:
        with tempfile.TemporaryDirectory(prefix="kennel-package-") as name:
            scratch = Path(name)
            with working("exporting to ONNX"):
                exported = export(model)
            floats = _probabilities(exported, model, data.splits["valid"], scratch, "float32")
            difference = _difference_from_torch(floats, model, data.splits["valid"])
            served = _choose(exported, floats, model, data, precision, calibration_images, scratch)
            packed = _pack(folder, model, metrics, served, scratch, output)
        report = served.figures() | {
            "name": packed.name,
            "git_commit": packed.manifest["git_commit"],
            "digest": packed.digest,
            "bytes": output.stat().st_size,
            "sha256": _sha256(output),
            "largest_difference_from_torch": difference,
        }
        write_json_atomic(report_on(output), report)
    except OSError as error:
        raise KennelError(
            f"cannot write {output}: {error.strerror}; a former archive is left as it was, "
            "so free some space or choose another folder and run it again"
        ) from error
    return report


def judge(recipe: str, floats: Probabilities, answers: Probabilities, targets: Targets) -> Trial:
    """Compare a quantized network's probabilities [N, classes] with those in float32."""
    top1 = accuracy(answers, targets)
    agreement = accuracy(answers, floats.argmax(axis=1))
    # Without rounding, 0.980 - 0.975 is more than 0.005.
    drop = round(accuracy(floats, targets) - top1, 9)
    return Trial(recipe, top1, agreement, drop <= MAX_TOP1_DROP and agreement >= MIN_AGREEMENT)


def _choose(
    exported: onnx.ModelProto,
    floats: Probabilities,
    model: LoadedModel,
    data: Dataset,
    precision: str,
    calibration_images: int,
    scratch: Path,
) -> Served:
    train, valid = data.splits["train"], data.splits["valid"]
    top1 = accuracy(floats, valid.targets)
    if precision == "fp32":
        return Served(exported, "fp32", "asked for", 1.0, top1, top1, ())
    images = [
        center_crop(train.images[place], model.preprocess.crop)
        for place in calibration_indices(train.targets, calibration_images)
    ]
    trials: list[Trial] = []
    for recipe in recipes_for(exported):
        quantized = quantize(exported, recipe, images)
        answers = _probabilities(quantized, model, valid, scratch, "int8")
        trial = judge(recipe.name, floats, answers, valid.targets)
        trials.append(trial)
        if trial.holds:
            return Served(
                quantized,
                "int8",
                f"int8 keeps the answers on valid/ ({recipe.name})",
                trial.agreement,
                top1,
                trial.top1_valid,
                tuple(trials),
            )
    figures = "; ".join(
        f"{t.recipe}: top-1 {t.top1_valid:.4f}, agreement {t.agreement:.4f}" for t in trials
    )
    reason = f"int8 changes the answers on valid/ (float32: top-1 {top1:.4f}): {figures}"
    if precision == "int8":
        raise KennelError(f"{reason}; use --precision auto or fp32")
    return Served(exported, "fp32", reason, 1.0, top1, top1, tuple(trials))


def _difference_from_torch(floats: Probabilities, model: LoadedModel, valid: Split) -> float:
    expected = classify(valid, model.preprocess, with_torch(model), "PyTorch")
    difference = float(np.abs(expected - floats).max())
    if not difference <= MAX_EXPORT_DIFFERENCE:  # written so that NaN fails too
        raise KennelError(
            f"the exported network's probabilities on valid/ are up to {difference:.2g} off "
            f"PyTorch's: torch {torch.__version__} exports {model.config.backbone} wrongly"
        )
    return difference


def _probabilities(
    network: onnx.ModelProto, model: LoadedModel, split: Split, scratch: Path, title: str
) -> Probabilities:
    """Give a split's probabilities as the server would compute them."""
    unpacked = Model(scratch, {}, "", "", model.labels, model.preprocess)
    onnx.save(network, unpacked.onnx)
    return classify(split, model.preprocess, Predictor(unpacked).probabilities, title)


def _metrics(folder: Path) -> dict[str, Any]:
    path = folder / "metrics.json"
    try:
        metrics: dict[str, Any] = json.loads(path.read_text())
    except OSError as error:
        raise UsageError(
            f"cannot read {path}: {error.strerror}; give the folder that trainer.train has written"
        ) from error
    except ValueError as error:
        raise UsageError(f"{path} is not what trainer.train writes: {error}") from error
    if "dataset_fingerprint" not in metrics:
        raise UsageError(f"{path} lacks dataset_fingerprint: train the model again")
    return metrics


def _pack(
    folder: Path,
    model: LoadedModel,
    metrics: dict[str, Any],
    served: Served,
    scratch: Path,
    output: Path,
) -> Model:
    """Put the archive's files together, verify them as a server would, and write the archive."""
    stage = scratch / "archive"
    stage.mkdir()
    for name in _COPIED:
        shutil.copyfile(folder / name, stage / name)
    onnx.save(served.network, stage / "model.onnx")
    write_json_atomic(stage / "metrics.json", metrics | {"package": served.figures()})
    manifest = {
        "format": FORMAT,
        "files": describe_files(stage),
        "backbone": model.config.backbone,
        "precision": served.precision,
        "versions": _versions(),
        "git_commit": git_commit(),
        "dataset_fingerprint": metrics["dataset_fingerprint"],
    }
    write_json_atomic(stage / MANIFEST, manifest)
    packed = open_model(stage)
    with working("packing"):
        write_archive(stage, output)
    return packed


def _versions() -> dict[str, str]:
    return {
        "kennel": importlib.metadata.version("kennel"),
        "onnx": onnx.__version__,
        "onnxruntime": onnxruntime.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
