"""Batches for training and evaluation, from cached pixels or from cached features.

Every random choice is a function of (seed, epoch, image), never of a generator's history: a run
gives the same batches on one process or many, with any number of threads, and after a restart in
the middle.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from inference.preprocess import Preprocess, center_crop
from trainer.config import TrainConfig
from trainer.dataset import Split
from trainer.errors import UsageError

Indices = NDArray[np.int64]
Inputs = NDArray[np.uint8] | NDArray[np.float32]
T = TypeVar("T")


@dataclass(frozen=True)
class Batch:
    """One process's part of a batch.

    Attributes:
        inputs: uint8 pixels [n, S, S, 3] or float32 features [n, D].
        targets: Class indices [n], int64.
        weights: What each image counts for [n], float32.
    """

    inputs: Tensor
    targets: Tensor
    weights: Tensor

    def to(self, device: torch.device) -> "Batch":
        """Copy to a device."""
        return Batch(*(part.to(device) for part in (self.inputs, self.targets, self.weights)))

    def split(self, parts: int, least: int = 1) -> "list[Batch]":
        """Cut into at most `parts` smaller batches, none of fewer than `least` images."""
        images = len(self.targets)
        cuts = _cuts(images, max(least, -(-images // parts)), least)
        cut = (part.tensor_split(cuts) for part in (self.inputs, self.targets, self.weights))
        return [Batch(*part) for part in zip(*cut, strict=True)]


class Source(Protocol):
    """Where a split's inputs come from.

    They are NumPy's, since batches are prepared in threads. There, torch's operators would start
    threads of their own, and while there are more threads than cores, those that compute the
    network no longer wait for each other awake, which takes a third more time.
    """

    targets: Indices

    def augmented(self, indices: Indices, epoch: int) -> Inputs:
        """Give the inputs of these images as training sees them in this epoch."""

    def plain(self, indices: Indices) -> Inputs:
        """Give the inputs of these images as serving sees them."""


@lru_cache(maxsize=4)
def random_table(seed: int, epoch: int, images: int) -> NDArray[np.float64]:
    """Give uniform numbers [images, 6]: crop area, ratio, top, left; flip; place in the order."""
    table = np.random.Generator(np.random.Philox(key=[seed, epoch])).random((images, 6))
    table.flags.writeable = False
    return table


class FeatureSource:
    """Frozen features of a split; the second view, if any, is of the mirrored images."""

    def __init__(
        self, features: Sequence[NDArray[np.float32]], targets: Indices, config: TrainConfig
    ) -> None:
        self.views = features
        self.targets = targets
        self.config = config

    def augmented(self, indices: Indices, epoch: int) -> NDArray[np.float32]:
        """Give features [n, D], of the mirrored image with the probability of `config.hflip`."""
        features = self.plain(indices)
        if len(self.views) > 1:
            numbers = random_table(self.config.seed, epoch, len(self.targets))
            mirrored = numbers[indices, 4] < self.config.hflip
            features[mirrored] = self.views[1][indices[mirrored]]
        return features

    def plain(self, indices: Indices) -> NDArray[np.float32]:
        """Give features [n, D] of the images as they are."""
        return self.views[0][indices]


class PixelSource:
    """Pixels of a split from the decode-once cache."""

    def __init__(self, split: Split, preprocess: Preprocess, config: TrainConfig) -> None:
        self.images, self.targets = split.images, split.targets
        self.preprocess, self.config = preprocess, config

    def augmented(self, indices: Indices, epoch: int) -> NDArray[np.uint8]:
        """Give randomly cropped, scaled and mirrored pixels [n, S, S, 3]."""
        numbers = random_table(self.config.seed, epoch, len(self.targets))
        side = self.preprocess.crop
        views = np.empty((len(indices), side, side, 3), np.uint8)
        for view, index in zip(views, indices, strict=True):
            scaled = self._cropped(self.images[index], numbers[index])
            view[:] = scaled[:, ::-1] if numbers[index, 4] < self.config.hflip else scaled
        return views

    def plain(self, indices: Indices) -> NDArray[np.uint8]:
        """Give centre-cropped pixels [n, S, S, 3]."""
        return np.stack([center_crop(self.images[i], self.preprocess.crop) for i in indices])

    def _cropped(self, image: NDArray[np.uint8], numbers: NDArray[np.float64]) -> NDArray[np.uint8]:
        top, left, height, width = random_box(
            image.shape[0], image.shape[1], self.config.min_scale, numbers
        )
        crop = np.array(image[top : top + height, left : left + width])
        # torch's filter of uint8 pixels runs in this thread alone, several times as fast as
        # Pillow's, and differs by rounding only.
        scaled = F.interpolate(
            torch.from_numpy(crop).permute(2, 0, 1)[None],
            size=(self.preprocess.crop, self.preprocess.crop),
            mode=self.preprocess.interpolation,
            antialias=True,
        )
        return scaled[0].permute(1, 2, 0).numpy()


def random_box(
    height: int, width: int, min_scale: float, numbers: NDArray[np.float64]
) -> tuple[int, int, int, int]:
    """Choose a crop: `min_scale` to 1 of the area, aspect ratio of 3/4 to 4/3 where it fits.

    Args:
        height: Of the image, in pixels.
        width: Of the image, in pixels.
        min_scale: Smallest share of the area.
        numbers: Uniform numbers for area, aspect ratio, top, left; more are left alone.

    Returns:
        top, left, height, width in pixels.

    Source: Szegedy et al., Going deeper with convolutions (2014), as
    torchvision.transforms.RandomResizedCrop, but a box that sticks out is cut to the image and not
    drawn again.
    """
    area = height * width * (min_scale + (1 - min_scale) * numbers[0])
    ratio = (3 / 4) ** (1 - 2 * numbers[1])
    box_width = min(width, max(1, round((area * ratio) ** 0.5)))
    box_height = min(height, max(1, round((area / ratio) ** 0.5)))
    top = int(numbers[2] * (height - box_height + 1))
    left = int(numbers[3] * (width - box_width + 1))
    return top, left, box_height, box_width


def image_weights(targets: Indices, config: TrainConfig) -> NDArray[np.float32]:
    """Give what each image counts for [N]: 1, or the inverse of its class's share, on average 1."""
    if config.class_weights == "none":
        return np.ones(len(targets), np.float32)
    counts = np.bincount(targets)
    return (len(targets) / (np.count_nonzero(counts) * counts[targets])).astype(np.float32)


def global_batches(images: int, config: TrainConfig, epoch: int, least: int = 1) -> list[Indices]:
    """Give an epoch's batches over all processes: a permutation, cut every `batch_size` images.

    Args:
        images: Of the split.
        config: The run's configuration.
        epoch: Counted from 0.
        least: The fewest images in a batch; if fewer are left, the last batch takes them.

    Raises:
        UsageError: `batch_size` is smaller than that.
    """
    if config.batch_size < least:
        remedy = "; a pretrained network can do without it (--freeze-norm true)"
        raise UsageError(
            f"--batch-size {config.batch_size}: batch normalization compares the images of a "
            f"batch, so that it takes {least} or more{remedy * (config.weights != 'none')}"
        )
    order = np.argsort(random_table(config.seed, epoch, images)[:, 5], kind="stable")
    return np.split(order, _cuts(images, config.batch_size, least))


def _cuts(images: int, size: int, least: int) -> list[int]:
    """Give where to cut images every `size`, so that the rest is not smaller than `least`."""
    cuts = list(range(size, images, size))
    return cuts[:-1] if cuts and images - cuts[-1] < least else cuts


def training_batches(
    source: Source,
    weights: NDArray[np.float32],
    config: TrainConfig,
    epoch: int,
    first_step: int,
    rank: int,
    world: int,
    least: int = 1,
) -> Iterator[Batch]:
    """Give one process's share of every batch of an epoch, from `first_step` on.

    No process computes fewer than `least` images at once. The weights of a batch add up to 1 over
    all processes, so that the sum of the processes' losses is the loss of the whole batch, however
    unevenly it is shared.
    """

    def prepare(batch: Indices) -> Batch:
        # A process without a share still takes part in the step, with images that count for
        # nothing.
        shares = max(1, min(world, len(batch) // least))
        share, counts = (batch[rank::shares], 1.0) if rank < shares else (batch[:least], 0.0)
        return Batch(
            torch.from_numpy(source.augmented(share, epoch)),
            torch.from_numpy(source.targets[share]),
            torch.from_numpy(weights[share]) * float(counts / weights[batch].sum()),
        )

    all_batches = global_batches(len(source.targets), config, epoch, least)
    return prefetched(prepare, all_batches[first_step:])


def evaluation_batches(source: Source, size: int, rank: int = 0, world: int = 1) -> Iterator[Batch]:
    """Give one process's share of a split in batches of at most `size`, each image once."""

    def prepare(indices: Indices) -> Batch:
        return Batch(
            torch.from_numpy(source.plain(indices)),
            torch.from_numpy(source.targets[indices]),
            torch.ones(len(indices)),
        )

    share = np.arange(rank, len(source.targets), world)
    return prefetched(
        prepare, [share[start : start + size] for start in range(0, len(share), size)]
    )


def prefetched(prepare: Callable[[Indices], T], batches: Sequence[Indices]) -> Iterator[T]:
    """Prepare batches in threads, at most four ahead; cropping and scaling free the GIL."""
    with ThreadPoolExecutor(max_workers=2) as pool:
        waiting: deque[Future[T]] = deque()
        for batch in batches:
            waiting.append(pool.submit(prepare, batch))
            if len(waiting) > 4:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
