"""Train a classifier: one file for SageMaker (script mode), EC2, torchrun and a laptop.

    python -m trainer.train --data DIR --backbone efficientnet_lite0 --unfreeze all --epochs 5
    torchrun --nproc-per-node 2 -m trainer.train --data DIR

A run saves its state after every epoch and on SIGTERM; the same command goes on where it was.
"""

import argparse
import inspect
import math
import os
import shutil
import signal
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from types import FrameType
from typing import Any

import torch
from safetensors.torch import save as safetensors_bytes
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from inference.archive import open_model
from inference.memory import keep_large_blocks
from inference.preprocess import Preprocess
from trainer import backbones, batches, checkpoint, loop
from trainer import config as configuration
from trainer.checkpoint import RunState
from trainer.config import TrainConfig
from trainer.dataset import Dataset, load
from trainer.errors import ArgumentParser, Interrupted, KennelError, run_command
from trainer.features import frozen_features, weights_digest
from trainer.files import write_bytes_atomic, write_json_atomic, write_text_atomic
from trainer.metric_lines import TOP1_SERVED, TOP1_TRAINED
from trainer.optimizer import Optimizer
from trainer.progress import progress
from trainer.ranks import Ranks, joined

EVALUATION_BATCH = 16


@dataclass(frozen=True)
class Folders:
    """Where a run reads and writes; on SageMaker the container's environment says so.

    Attributes:
        data: ImageFolder with train/ and valid/.
        model: For the model folder.
        output: For learning curves and timings.
        checkpoints: For the states of unfinished runs.
        cache: For decoded pixels and features.
        features: Features computed earlier, or None.
    """

    data: Path
    model: Path
    output: Path
    checkpoints: Path
    cache: Path
    features: Path | None


@dataclass(frozen=True)
class Task:
    """What an epoch needs: a network, the part of it that is trained, and both splits' inputs."""

    network: nn.Module
    trained: nn.Module
    train: batches.Source
    valid: batches.Source
    bf16: bool


def train(
    config: TrainConfig, folders: Folders, ranks: Ranks, *, fresh: bool = False
) -> dict[str, Any]:
    """Train a model and write its folder.

    Args:
        config: What is learned.
        folders: Where it reads and writes.
        ranks: The processes that train together.
        fresh: Whether to begin anew where an earlier run has left its state.

    Returns:
        The content of metrics.json.

    Raises:
        UsageError: The data or the configuration does not fit.
        KennelError: Stopped by SIGTERM, or a file cannot be written.
    """
    started = time.monotonic()
    preprocess = backbones.preprocess_for(config)
    data = load(
        folders.data,
        folders.cache,
        preprocess.resize,
        preprocess.interpolation,
        splits=("train", "valid"),
    )
    classifier = backbones.build_classifier(config, len(data.classes))
    classifier.to(ranks.device).to(memory_format=torch.channels_last)
    task = make_task(classifier, data, preprocess, config, folders, ranks)
    optimizer = loop.make_optimizer(classifier, config)

    path = folders.checkpoints / checkpoint.run_id(config.to_json(), data.fingerprint()) / "last.pt"
    state = RunState()
    if saved := None if fresh else checkpoint.restore(path):
        state, weights, optimizer_state = saved
        task.trained.load_state_dict(weights)
        optimizer.load_state_dict(optimizer_state)
        report(ranks, f"resumed from {path} at epoch={state.epoch} step={state.step}")

    speeds = []
    with stop_signal() as stop:
        while state.epoch < config.epochs and not loop.should_stop(
            state.valid_losses, config.patience
        ):
            epoch_started, images_before = time.monotonic(), state.images
            finished = train_epoch(task, optimizer, state, config, ranks, stop)
            if finished:
                speeds.append((state.images - images_before) / (time.monotonic() - epoch_started))
                finish_epoch(task, state, ranks)
                row = " ".join(f"{name}={value:.6g}" for name, value in state.history[-1].items())
                report(ranks, f"{row} images_per_second={speeds[-1]:.1f}")
            if ranks.leads:
                checkpoint.save(path, state, task.trained.state_dict(), optimizer.state_dict())
            # An epoch of a single step can be left at its end only.
            if not finished or (state.epoch < config.epochs and ranks.any(stop.is_set())):
                raise stop.error(
                    f"at epoch {state.epoch}, step {state.step}; "
                    "the same command goes on from there"
                )

    task.trained.load_state_dict(state.best)
    metrics = summary(state, data)
    if state.epoch < config.epochs:
        report(
            ranks,
            f"stopped early: no lower loss since epoch {metrics['best_epoch']:.0f}, whose weights "
            "are kept",
        )
    if ranks.leads:
        write_model(folders.model, classifier, config, data, preprocess, metrics)
        seconds = time.monotonic() - started
        write_reports(folders.output, state, task, ranks, seconds, speeds)
        report(ranks, f"model={folders.model} seconds={seconds:.1f}")
    return metrics


def train_epoch(
    task: Task,
    optimizer: Optimizer,
    state: RunState,
    config: TrainConfig,
    ranks: Ranks,
    stop: Event,
) -> bool:
    """Train from `state.step` to the epoch's end; false if a signal cut it short."""
    weights = batches.image_weights(task.train.targets, config)
    least = loop.fewest_images(task.network)
    steps = len(batches.global_batches(len(weights), config, state.epoch, least))
    mine = batches.training_batches(
        task.train, weights, config, state.epoch, state.step, ranks.rank, ranks.world, least
    )
    # Sums go on where an interrupted epoch left them, in the same order, so that they come out the
    # same.
    before = [state.loss_sum, state.images] if ranks.leads else [0.0, 0.0]
    totals = torch.tensor(before, dtype=torch.float64, device=ranks.device)
    with progress(
        f"epoch {state.epoch}", steps, "steps", state.step, leave=False, shown=ranks.leads
    ) as advance:
        for step_totals in loop.train_steps(
            task.network, mine, optimizer, config, ranks, task.bf16, state.epoch, state.step, steps
        ):
            totals += step_totals
            state.step += 1
            advance(1)
            if ranks.any(stop.is_set()) and state.step < steps:
                break
    loss_sum, images = ranks.sum(totals).tolist()
    state.loss_sum, state.images = loss_sum, int(images)
    return state.step == steps


def finish_epoch(task: Task, state: RunState, ranks: Ranks) -> None:
    """Evaluate on `valid`, add a row to the history, keep the weights if they are the best."""
    ranks.share_buffers(task.network)
    mine = batches.evaluation_batches(task.valid, EVALUATION_BATCH, ranks.rank, ranks.world)
    share = -(-len(task.valid.targets) // ranks.world)
    with progress("validation", share, "images", leave=False, shown=ranks.leads) as advance:
        valid = loop.evaluate(task.network, _counted(mine, advance), ranks, task.bf16)
    if not math.isfinite(valid.loss):
        raise KennelError(
            f"epoch {state.epoch}: the validation loss is {valid.loss}; "
            "lower --head-learning-rate or --backbone-learning-rate"
        )
    if valid.loss < min(state.valid_losses, default=math.inf):
        state.best = {
            name: value.detach().cpu().clone() for name, value in task.trained.state_dict().items()
        }
    state.history.append(
        {
            "epoch": state.epoch,
            "train_loss": state.loss_sum / state.images,
            "valid_loss": valid.loss,
            "valid_accuracy": valid.accuracy,
        }
    )
    state.epoch, state.step, state.loss_sum, state.images = state.epoch + 1, 0, 0.0, 0


def _counted(
    given: Iterable[batches.Batch], advance: Callable[[int], object]
) -> Iterator[batches.Batch]:
    for batch in given:
        yield batch
        advance(len(batch.targets))


def summary(state: RunState, data: Dataset) -> dict[str, Any]:
    """Give the content of metrics.json; nothing in it depends on time or machine speed."""
    best = min(state.history, key=lambda row: row["valid_loss"])
    return {
        "best_epoch": best["epoch"],
        "valid_loss": best["valid_loss"],
        "valid_accuracy": best["valid_accuracy"],
        "history": state.history,
        "images": {name: len(split.targets) for name, split in data.splits.items()},
        "dataset_fingerprint": data.fingerprint(),
    }


def write_model(
    folder: Path,
    classifier: backbones.Classifier,
    config: TrainConfig,
    data: Dataset,
    preprocess: Preprocess,
    metrics: dict[str, Any],
) -> None:
    """Write the model folder; its weights come last, so that a folder with weights is whole."""
    saved = config.to_json() | {"classes": data.classes, "feature_dim": classifier.head.in_features}
    try:
        write_json_atomic(folder / "config.json", saved)
        write_json_atomic(folder / "labels.json", data.labels)
        write_json_atomic(folder / "preprocess.json", preprocess.to_json())
        write_json_atomic(folder / "metrics.json", metrics)
        tensors = {
            name: value.contiguous().cpu() for name, value in classifier.state_dict().items()
        }
        write_bytes_atomic(folder / "weights.safetensors", safetensors_bytes(tensors))
    except OSError as error:
        raise KennelError(f"cannot write the model to {folder}: {error.strerror}") from error


def write_reports(
    folder: Path, state: RunState, task: Task, ranks: Ranks, seconds: float, speeds: list[float]
) -> None:
    """Write the learning curves and what depends on this machine's speed."""
    from trainer.curves import learning_curves_svg  # matplotlib takes a second to import

    write_text_atomic(folder / "learning_curves.svg", learning_curves_svg(state.history))
    write_json_atomic(
        folder / "training_report.json",
        {
            "epochs": len(state.history),
            "seconds": seconds,
            "images_per_second": statistics.median(speeds) if speeds else None,
            "processes": ranks.world,
            "device": ranks.device.type,
            "precision": "bf16" if task.bf16 else "fp32",
            "torch": torch.__version__,
        },
    )


def report(ranks: Ranks, line: str) -> None:
    """Print a line once for all processes; SageMaker reads metrics from such lines."""
    if ranks.leads:
        print(line, flush=True)


class Stop(Event):
    """Set when the run is to save its state and end; `by_user` after Ctrl-C, not after SIGTERM."""

    by_user = False

    def error(self, text: str) -> KennelError:
        """Give the error that ends the run."""
        kind, name = (Interrupted, "Ctrl-C") if self.by_user else (KennelError, "SIGTERM")
        return kind(f"stopped by {name} {text}")


@contextmanager
def stop_signal() -> Iterator[Stop]:
    """Give an event that SIGTERM and Ctrl-C set; a second Ctrl-C ends the run at once.

    SageMaker sends SIGTERM before it takes a spot instance away.
    """
    event = Stop()

    def on_signal(number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT:
            event.by_user = True
            signal.signal(signal.SIGINT, signal.default_int_handler)
        event.set()

    former = {
        number: signal.signal(number, on_signal) for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        yield event
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def make_task(
    classifier: backbones.Classifier,
    data: Dataset,
    preprocess: Preprocess,
    config: TrainConfig,
    folders: Folders,
    ranks: Ranks,
) -> Task:
    """Choose what is trained: the head on cached features, or the network on cached pixels."""
    parts = backbones.trainable(classifier, config)
    if not parts:
        sources = feature_sources(classifier, data, preprocess, config, folders, ranks)
        return head_task(classifier, sources, config, ranks)
    train, valid = (
        batches.PixelSource(data.splits[name], preprocess, config) for name in ("train", "valid")
    )
    network = PixelNetwork(classifier, parts, preprocess, config)
    bf16 = uses_bf16(config, ranks.device, training=True)
    return Task(prepared(network, config, ranks), classifier, train, valid, bf16)


def feature_sources(
    classifier: backbones.Classifier,
    data: Dataset,
    preprocess: Preprocess,
    config: TrainConfig,
    folders: Folders,
    ranks: Ranks,
) -> tuple[batches.FeatureSource, batches.FeatureSource]:
    """Give the frozen backbone's features of `train`, mirrored too if images flip, and `valid`."""
    classifier.backbone.eval()
    digest = weights_digest(classifier.backbone)
    bf16 = uses_bf16(config, ranks.device, training=False)
    places = [folders.cache / "features", *filter(None, [folders.features])]

    def source(name: str, mirrored: bool) -> batches.FeatureSource:
        split = data.splits[name]
        views = frozen_features(
            classifier.backbone, digest, split, preprocess, config, ranks, bf16, places, mirrored
        )
        return batches.FeatureSource(views, split.targets, config)

    return source("train", mirrored=config.hflip > 0), source("valid", mirrored=False)


def head_task(
    classifier: backbones.Classifier,
    sources: tuple[batches.FeatureSource, batches.FeatureSource],
    config: TrainConfig,
    ranks: Ranks,
) -> Task:
    """Give the task of training the head alone; it costs so little that it is computed in fp32."""
    network = nn.Sequential(classifier.dropout, classifier.head)
    return Task(prepared(network, config, ranks), classifier.head, *sources, bf16=False)


def prepared(network: nn.Module, config: TrainConfig, ranks: Ranks) -> nn.Module:
    """Let all processes train a network together, and compile it if the configuration says so."""
    if ranks.world > 1:
        devices = [ranks.device.index] if ranks.device.type == "cuda" else None
        # Processes may compute their shares in unequal numbers of parts, at each of which buffers
        # would be broadcast; `Ranks.share_buffers` does it once an epoch. Torch 2.15 renamed this.
        known = inspect.signature(DistributedDataParallel).parameters
        flag = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
        without: dict[str, Any] = {flag: False}
        network = DistributedDataParallel(network, device_ids=devices, **without)
    if config.compile:
        network.compile()
    return network


class PixelNetwork(nn.Module):
    """From pixels [N, S, S, 3] to logits; only the unfrozen parts ever leave evaluation mode."""

    def __init__(
        self,
        classifier: backbones.Classifier,
        parts: list[nn.Module],
        preprocess: Preprocess,
        config: TrainConfig,
    ) -> None:
        super().__init__()
        self.classifier, self.preprocess = classifier, preprocess
        self.parts = [classifier.dropout, *parts]
        # Statistics of a small batch are worse than those of ImageNet, and would differ on every
        # process.
        self.fixed_norm = config.fixes_norm

    def train(self, mode: bool = True) -> "PixelNetwork":
        """Set the unfrozen parts' mode."""
        super().train(False)
        for part in self.parts:
            for module in part.modules():
                module.training = mode and not (
                    self.fixed_norm and isinstance(module, nn.BatchNorm2d)
                )
        return self

    def forward(self, pixels: Tensor) -> Tensor:
        """Give logits [N, classes]."""
        logits: Tensor = self.classifier(backbones.normalize(pixels, self.preprocess))
        return logits


def uses_bf16(config: TrainConfig, device: torch.device, *, training: bool) -> bool:
    """Decide the precision: `auto` takes bf16 where it is the faster one."""
    if config.precision != "auto":
        return config.precision == "bf16"
    slower = (
        training
        and device.type == "cpu"
        and not backbones.registered(config.backbone).bf16_trains_on_cpu
    )
    return loop.native_bf16(device) and not slower


def add_folder_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `Folders`; defaults are what SageMaker's environment says, else build/."""
    environment = os.environ.get
    # Beside the model's folder, SageMaker keeps in step with the bucket what a stop must not lose.
    on_sagemaker = environment("SM_MODEL_DIR")
    checkpoints = Path(on_sagemaker).parent / "checkpoints" if on_sagemaker else "build/checkpoints"
    for flag, default, text in (
        (
            "data",
            environment("SM_CHANNEL_TRAINING"),
            "folder with train/ and valid/, each with a folder a class",
        ),
        ("model-dir", environment("SM_MODEL_DIR", "build/model"), "where the model goes"),
        ("output-dir", environment("SM_OUTPUT_DATA_DIR", "build/output"), "where reports go"),
        ("checkpoint-dir", checkpoints, "where unfinished runs are kept"),
        (
            "cache-dir",
            environment("KENNEL_CACHE", "build/cache"),
            "where pixels and features are kept",
        ),
        ("features-dir", environment("SM_CHANNEL_FEATURES"), "features computed earlier"),
    ):
        needed = flag == "data" and not default
        parser.add_argument(
            f"--{flag}", type=Path, metavar="DIR", help=text, default=default, required=needed
        )


def folders_from(arguments: argparse.Namespace) -> Folders:
    """Read the flags of `add_folder_arguments`."""
    given = arguments
    # matplotlib keeps a list of the fonts, else in the user's home.
    os.environ.setdefault("MPLCONFIGDIR", str(given.cache_dir / "matplotlib"))
    return Folders(
        given.data,
        given.model_dir,
        given.output_dir,
        given.checkpoint_dir,
        given.cache_dir,
        given.features_dir,
    )


def make_servable(folders: Folders) -> None:
    """Turn the model folder into the content of an archive, and evaluate that on `test/`.

    SageMaker packs the folder itself, so that the job's `model.tar.gz` is what is served.

    Raises:
        KennelError: See `trainer.packaging.package` and `trainer.evaluate.evaluate`.
    """
    from trainer.evaluate import evaluate
    from trainer.package import CALIBRATION_IMAGES
    from trainer.packaging import package

    archive = folders.output / "model.tar.gz"
    print("packing the model, and evaluating it on test/ as trained and as served", flush=True)
    package(folders.model, folders.data, archive, folders.cache, "auto", CALIBRATION_IMAGES)
    trained, served = (
        evaluate(model, folders.data, folders.output / name, folders.cache)["top1"]
        for model, name in ((folders.model, "trained"), (archive, "evaluation"))
    )
    print(f"{TOP1_TRAINED}={trained:.6g} {TOP1_SERVED}={served:.6g}", flush=True)
    for file in open_model(archive).folder.iterdir():
        shutil.move(file, folders.model / file.name)
    archive.unlink()  # it would go into the job's other output, a second time


def main() -> None:
    """Run the command line."""
    keep_large_blocks()
    parser = ArgumentParser(prog="trainer.train", description="Train an image classifier.")
    parser.add_argument(
        "--package",
        type=str.lower,  # SageMaker's training toolkit passes a boolean as Python writes it
        choices=("true", "false"),
        default="false",
        help="leave in the model folder what an archive holds, and evaluate it (default: false)",
    )
    parser.add_argument("--fresh", action="store_true", help="begin anew, not at a checkpoint")
    add_folder_arguments(parser)
    configuration.add_arguments(parser)
    arguments = parser.parse_args()
    folders = folders_from(arguments)
    with joined() as ranks:
        train(configuration.from_arguments(arguments), folders, ranks, fresh=arguments.fresh)
    # Alone: the others need not wait, which they would do only for minutes.
    if ranks.leads and arguments.package == "true":
        make_servable(folders)


if __name__ == "__main__":
    run_command(main)
