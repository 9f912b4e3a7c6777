"""Evaluate a model on a split it was not selected on, as JSON and as a page.

    python -m trainer.evaluate --model MODEL --data DIR --output build/evaluation

A model folder is evaluated by PyTorch, an archive as it is served: by ONNX Runtime, quantized if it
is. Writes `evaluation.json` (trainer.metrics.Summary) and `evaluation.html`.
"""

import json
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from inference.archive import ArchiveError, open_model
from inference.predictor import Predictor, Probabilities
from inference.preprocess import Preprocess
from trainer import index
from trainer.dataset import FEW_PHOTOS, Dataset, load
from trainer.done import evaluated
from trainer.errors import ArgumentParser, KennelError, UsageError, run_command
from trainer.evaluation_page import render
from trainer.files import write_json_atomic, write_text_atomic
from trainer.layout import SPLITS
from trainer.metrics import Summary, summarize
from trainer.names import shown
from trainer.predictions import Answer, classify, require_same_classes
from trainer.progress import say_result, working
from trainer.shards import dataset_name

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Subject:
    """A model to evaluate, from weights or from an archive.

    Attributes:
        title: Its name, for people.
        form: "as trained" or "as served (int8)".
        runtime: What computes its answers, for people.
        classes: Names of the class folders, in index order.
        preprocess: Its input transform.
        answer: Gives the probabilities of pixels.
    """

    title: str
    form: str
    runtime: str
    classes: Sequence[str]
    preprocess: Preprocess
    answer: Answer


def evaluate(
    model: Path, data_dir: Path, output: Path, cache_dir: Path, split: str = "test"
) -> Summary:
    """Evaluate a model and write `evaluation.json` and `evaluation.html` to a folder.

    Args:
        model: A model folder of `trainer.train`, or an archive of `trainer.package`.
        data_dir: Data with the classes that the model was trained on.
        output: The folder to write to.
        cache_dir: Folder of the decode-once stores.
        split: Which split to evaluate on; of the others, only `train/`'s folder names are read.

    Returns:
        The content of `evaluation.json`.

    Raises:
        UsageError: Model or data is unfit, or they have different classes.
        KennelError: The archive is damaged, or the results cannot be written.
    """
    return evaluate_subject(open_subject(model), data_dir, output, cache_dir, split)


def evaluate_subject(
    subject: Subject, data_dir: Path, output: Path, cache_dir: Path, split: str
) -> Summary:
    """Do what `evaluate` does with a model that is open."""
    transform = subject.preprocess
    data = load(data_dir, cache_dir, transform.resize, transform.interpolation, splits=(split,))
    require_same_classes(subject.classes, data.classes)
    probabilities = classify(data.splits[split], transform, subject.answer, split)
    with working("computing the figures"):
        summary = summarize(split, probabilities, data.splits[split].targets, data.labels)
    about = " / ".join(filter(None, (dataset_name(data_dir), split)))
    page = index.with_way_back(_page(subject, data, about, probabilities, summary), output)
    try:
        write_json_atomic(output / "evaluation.json", summary)
        write_text_atomic(output / "evaluation.html", page)
    except OSError as error:
        raise KennelError(f"cannot write to {output}: {error.strerror}") from error
    return summary


def open_subject(model: Path) -> Subject:
    """Open a model folder (PyTorch computes) or an archive (ONNX Runtime computes).

    Raises:
        UsageError: There is nothing there, or it is no model folder.
        KennelError: The archive is damaged.
    """
    if model.is_dir():
        return _trained(model)
    if not model.exists():
        raise UsageError(f"--model {model}: no such model folder or archive")
    return _served(model)


def _trained(folder: Path) -> Subject:
    # An archive is evaluated without torch, which takes seconds to import.
    from trainer.backbones import load_model
    from trainer.torch_answer import with_torch

    model = load_model(folder)
    return Subject(
        title=model.config.backbone,
        form="as trained",
        runtime="PyTorch, float32",
        classes=model.classes,
        preprocess=model.preprocess,
        answer=with_torch(model),
    )


def _served(archive: Path) -> Subject:
    try:
        model = open_model(archive)
        predictor = Predictor(model)
    except ArchiveError as error:
        raise KennelError(str(error)) from error
    config = json.loads((model.folder / "config.json").read_text())
    precision = model.manifest["precision"]
    return Subject(
        title=model.name,
        form=f"as served ({precision})",
        runtime=f"ONNX Runtime, {precision}",
        classes=config["classes"],
        preprocess=model.preprocess,
        answer=predictor.probabilities,
    )


def line(form: str, summary: Summary) -> str:
    """Give the main figures as one line; five best answers say nothing of five classes or fewer."""
    low, high = summary["top1_interval"]
    top5 = f"top5={summary['top5']:.4f} " if len(summary["classes"]) > 5 else ""
    return (
        f"{form}: split={summary['split']} images={summary['images']} top1={summary['top1']:.4f} "
        f"top1_low={low:.4f} top1_high={high:.4f} {top5}"
        f"ece={summary['ece']:.4f} nll={summary['nll']:.4f}"
    )


def _page(
    subject: Subject, data: Dataset, about: str, probabilities: Probabilities, summary: Summary
) -> str:
    return render(
        subject.title,
        f"{about}, {subject.form}: {subject.runtime}",
        summary,
        data.splits[summary["split"]],
        probabilities,
        subject.preprocess.crop,
        data.labels,
    )


def main() -> None:
    """Evaluate a model and print its main figures."""
    parser = ArgumentParser(
        prog="python -m trainer.evaluate", description="Evaluate a model on a split."
    )
    parser.add_argument(
        "--model", type=Path, required=True, metavar="PATH", help="model folder, or model.tar.gz"
    )
    parser.add_argument("--data", type=Path, required=True, metavar="DIR")
    parser.add_argument("--split", choices=SPLITS, default="test")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR")
    cache = os.environ.get("KENNEL_CACHE", "build/cache")
    parser.add_argument("--cache-dir", type=Path, default=cache, metavar="DIR")
    options = parser.parse_args()
    subject = open_subject(options.model)
    summary = evaluate_subject(
        subject, options.data, options.output, options.cache_dir, options.split
    )
    say_result(
        map(shown, evaluated(subject.form, options.output)),
        f"{line(subject.form, summary)}\npage={options.output / 'evaluation.html'}",
    )
    if (count := summary["images"]) < FEW_PHOTOS:
        low, high = summary["top1_interval"]
        _log.warning(
            "%s/ has %d photo%s, so that the true top-1 may be anything from %.0f to %.0f %%: "
            "add some",
            *(summary["split"], count, "s" * (count > 1), 100 * low, 100 * high),
        )


if __name__ == "__main__":
    run_command(main)
