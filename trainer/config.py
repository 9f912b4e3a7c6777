"""One dataclass: command-line flags, SageMaker hyperparameters, what is saved with the model."""

import argparse
import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from trainer.errors import UsageError

CPU_PIXELS = 2**20  # 20 images of 224 x 224: training EfficientNet-Lite0 takes under 3 GiB


def _option(
    default: Any,
    help: str,
    *,
    choices: tuple[str, ...] = (),
    low: float | None = None,
    high: float | None = None,
) -> Any:
    return field(
        default=default,
        metadata={"help": help, "choices": choices, "low": low, "high": high},
    )


@dataclass(frozen=True)
class TrainConfig:
    """All that decides what a training run learns; where it reads and writes is no part of it.

    Raises:
        UsageError: A value is outside its range; the message names the field and the range.
    """

    backbone: str = _option("resnet50", "network from trainer.backbones")
    weights: str = _option("pretrained", "pretrained, none (from scratch) or a file of weights")
    unfreeze: str = _option(
        "none", "what is trained beside the head", choices=("none", "last", "all")
    )
    image_size: int = _option(0, "input side in pixels; 0: the backbone's own", low=0, high=1024)
    crop_pct: float = _option(
        0.0, "input side over shorter side; 0: the backbone's own", low=0.0, high=1.0
    )
    epochs: int = _option(20, "passes over the training images", low=1)
    batch_size: int = _option(64, "images an optimizer step, over all processes together", low=1)
    grad_accumulation: int = _option(
        0, "parts that a batch is computed in; 0: what memory on a CPU asks for", low=0
    )
    optimizer: str = _option("adamw", "optimizer", choices=("adamw", "sgd"))
    head_learning_rate: float = _option(3e-3, "peak learning rate of the head", low=1e-8, high=10.0)
    backbone_learning_rate: float = _option(
        3e-4, "peak learning rate of the unfrozen backbone", low=1e-8, high=10.0
    )
    weight_decay: float = _option(0.01, "weight decay (decoupled with adamw)", low=0.0, high=1.0)
    momentum: float = _option(0.9, "momentum of sgd", low=0.0, high=0.9999)
    warmup_fraction: float = _option(
        0.1, "share of all steps in which the learning rate rises", low=0.0, high=0.9
    )
    label_smoothing: float = _option(0.0, "label smoothing", low=0.0, high=0.9)
    class_weights: str = _option(
        "none", "balanced: weigh each class by its rarity", choices=("none", "balanced")
    )
    dropout: float = _option(0.2, "dropout before the head", low=0.0, high=0.95)
    mixup: float = _option(0.0, "mixup's alpha; 0: off", low=0.0, high=10.0)
    hflip: float = _option(0.5, "probability of a horizontal flip in training", low=0.0, high=1.0)
    min_scale: float = _option(
        0.5,
        "smallest share of an image that a random crop keeps (unfreeze last, all)",
        low=0.01,
        high=1.0,
    )
    freeze_norm: bool = _option(
        True, "keep a pretrained backbone's batch-normalization statistics fixed"
    )
    patience: int = _option(10, "epochs without a better valid loss before stopping; 0: off", low=0)
    precision: str = _option(
        "auto", "auto: bf16 where it is faster on this device", choices=("auto", "fp32", "bf16")
    )
    compile: bool = _option(False, "compile the network with torch.compile")
    seed: int = _option(0, "seed of every random choice", low=0, high=2**31 - 1)

    def __post_init__(self) -> None:
        """Check every field's type, choices and range."""
        for option in dataclasses.fields(self):
            _check(option, getattr(self, option.name))

    @property
    def fixes_norm(self) -> bool:
        """Whether batch-normalization statistics stay fixed: none are there to fix from scratch."""
        return self.freeze_norm and self.weights != "none"

    def parts(self, pixels: int, *, on_cpu: bool) -> int:
        """Give the number of parts to compute a batch in whose images have `pixels` in all."""
        if self.grad_accumulation:
            return self.grad_accumulation
        # On a CPU, the activations of a large batch cost gigabytes and, out of its caches, time.
        # Where statistics are taken of the images computed together, they must stay together.
        return max(1, -(-pixels // CPU_PIXELS)) if on_cpu and self.fixes_norm else 1

    def to_json(self) -> dict[str, Any]:
        """Give the fields by name, as JSON types."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """Read what `to_json` gave; keys that are not fields are left out."""
        names = {option.name for option in dataclasses.fields(cls)}
        return cls(**{name: value for name, value in content.items() if name in names})


def _check(option: "dataclasses.Field[Any]", value: Any) -> None:
    rules, flag = option.metadata, "--" + option.name.replace("_", "-")
    accepted = (int, float) if option.type is float else (option.type,)
    if type(value) not in accepted:
        raise UsageError(f"{flag} takes a value of type {option.type.__name__}, not {value!r}")  # type: ignore[union-attr]
    if rules["choices"] and value not in rules["choices"]:
        raise UsageError(f"{flag} is one of {', '.join(rules['choices'])}, not {value!r}")
    low, high = rules["low"], rules["high"]
    # Written so that NaN fails too.
    if not (low is None or value >= low) or not (high is None or value <= high):
        bounds = f"from {low:g} to {high:g}" if high is not None else f"{low:g} or more"
        raise UsageError(f"{flag} takes a number {bounds}, not {value!r}")


def _boolean(text: str) -> bool:
    words = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    try:
        return words[text.lower()]
    except KeyError:
        raise argparse.ArgumentTypeError(f"true or false, not {text!r}") from None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add a flag for every field: `--batch-size 8`, or `--batch_size 8` as SageMaker writes it."""
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="JSON file of hyperparameters, such as trainer.tune's best.json; flags go before it",
    )
    for option in dataclasses.fields(TrainConfig):
        dashed = "--" + option.name.replace("_", "-")
        parser.add_argument(
            *dict.fromkeys((dashed, f"--{option.name}")),
            dest=option.name,
            type=_boolean if option.type is bool else option.type,
            choices=option.metadata["choices"] or None,
            default=argparse.SUPPRESS,
            metavar=None if option.metadata["choices"] else option.type.__name__.upper(),  # type: ignore[union-attr]
            help=f"{option.metadata['help']} (default: {option.default})",
        )


def from_arguments(arguments: argparse.Namespace) -> TrainConfig:
    """Build the configuration from parsed flags over `--config`'s file over the defaults.

    Raises:
        UsageError: The file is missing, no JSON object, or names an unknown hyperparameter.
    """
    flags = {name: getattr(arguments, name) for name in given(arguments)}
    saved = _read_hyperparameters(arguments.config) if arguments.config else {}
    return TrainConfig(**saved | flags)


def given(arguments: argparse.Namespace) -> frozenset[str]:
    """Name the hyperparameters that flags have set."""
    return frozenset(vars(arguments)) & _names()


def _names() -> frozenset[str]:
    return frozenset(option.name for option in dataclasses.fields(TrainConfig))


def _read_hyperparameters(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except OSError as error:
        raise UsageError(f"--config {path}: {error.strerror}") from error
    except ValueError as error:
        raise UsageError(f"--config {path} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise UsageError(f"--config {path} holds no JSON object")
    if unknown := sorted(content.keys() - _names()):
        raise UsageError(f"--config {path}: unknown hyperparameters {', '.join(unknown)}")
    return content
