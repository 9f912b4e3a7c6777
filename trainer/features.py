"""Features of a frozen backbone, computed once for each image, transform and set of weights."""

import copy
import hashlib
import json
import logging
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from inference.preprocess import DECODER_VERSION, Preprocess
from trainer.backbones import normalize
from trainer.batches import PixelSource, evaluation_batches
from trainer.config import TrainConfig
from trainer.dataset import Split
from trainer.errors import KennelError
from trainer.files import replacing
from trainer.loop import autocast
from trainer.progress import progress
from trainer.ranks import Ranks

BATCH = 32
VERSION = 3
"""Raised whenever the same network may give other features, or a file of them looks different."""

_CRC_BYTES = 4
"""After the array, which NumPy does not mind."""
_READ_BYTES = 1024**2

_log = logging.getLogger(__name__)


def weights_digest(module: nn.Module) -> str:
    """Give the SHA-256 of a module's tensors, by name."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def frozen_features(
    backbone: nn.Module,
    digest: str,
    split: Split,
    preprocess: Preprocess,
    config: TrainConfig,
    ranks: Ranks,
    bf16: bool,
    folders: Sequence[Path],
    mirrored: bool,
) -> list[NDArray[np.float32]]:
    """Give a split's features [N, D], memory-mapped; if asked for, of the mirrored images too.

    Args:
        backbone: In evaluation mode, on the device of `ranks`.
        digest: What `weights_digest` gives of it.
        split: The images.
        preprocess: The transform.
        config: The run's configuration.
        ranks: The processes; one on each machine computes for the others there.
        bf16: Whether to compute in bf16.
        folders: Where features may lie; those computed here go to the first. A damaged file is as
            good as none.
        mirrored: Whether to give the mirrored view, too.

    Raises:
        KennelError: They cannot be written.
    """
    key = [
        VERSION,
        list(split.digests),
        digest,
        preprocess.to_json(),
        DECODER_VERSION,
        bf16,
    ]
    views = [False, True] if mirrored else [False]
    names = [
        hashlib.sha256(json.dumps([key, view]).encode()).hexdigest()[:32] + ".npy" for view in views
    ]
    network: nn.Module | None = None
    if ranks.local_rank == 0:
        for name, view in zip(names, views, strict=True):
            if not _whole(folders, name):
                source = PixelSource(split, preprocess, config)
                network = network or folded(backbone)
                with _written(folders[0] / name) as temporary:
                    _compute(temporary, network, source, preprocess, ranks, bf16, view)
    ranks.wait()
    # Private to this process, which torch takes for writable, but nobody writes.
    return [np.load(_required(folders, name), mmap_mode="c") for name in names]


def _whole(folders: Sequence[Path], name: str) -> Path | None:
    """Give the first file of this name that is what was written."""
    return next((path for folder in folders if _is_whole(path := folder / name)), None)


def _required(folders: Sequence[Path], name: str) -> Path:
    path = _whole(folders, name)
    if path is None:
        raise KennelError(
            f"{folders[0] / name} is damaged as soon as it is written: choose another cache folder"
        )
    return path


def _is_whole(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            size = path.stat().st_size - _CRC_BYTES
            return size > 0 and _crc32(file, size) == file.read()
    except OSError:
        return False


def _crc32(file: BinaryIO, size: int) -> bytes:
    """Read `size` bytes, and give their CRC-32 as it is written."""
    crc = 0
    for place in range(0, size, _READ_BYTES):
        crc = zlib.crc32(file.read(min(_READ_BYTES, size - place)), crc)
    return crc.to_bytes(_CRC_BYTES, "little")


@contextmanager
def _written(path: Path) -> Iterator[Path]:
    """Give a temporary path whose content goes to `path`, with its CRC-32 after it."""
    if path.is_dir():
        raise KennelError(f"{path} is a folder where features belong: remove it")
    if path.exists():
        _log.warning("the features in %s are damaged and are computed anew", path)
    try:
        with replacing(path) as temporary:
            yield temporary
            with temporary.open("r+b") as file:
                file.write(_crc32(file, temporary.stat().st_size))
    except OSError as error:
        raise KennelError(
            f"cannot write the features to {path.parent}: {error.strerror}; "
            "free some space or choose another cache folder"
        ) from error


def folded(backbone: nn.Module) -> nn.Module:
    """Copy a network in which each convolution does the work of the batch normalization after it.

    Where a module lists one right after the other, the networks of the registry also apply them so.
    """
    network = copy.deepcopy(backbone)
    for parent in list(network.modules()):
        for (name, conv), (next_name, norm) in pairwise(parent.named_children()):
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(parent, name, fuse_conv_bn_eval(conv, norm))
                setattr(parent, next_name, nn.Identity())
    return network


@torch.inference_mode()
def _compute(
    path: Path,
    network: nn.Module,
    source: PixelSource,
    preprocess: Preprocess,
    ranks: Ranks,
    bf16: bool,
    mirrored: bool,
) -> None:
    """Write features to a .npy file, a batch at a time: they need not fit into memory."""
    title = "mirrored features" if mirrored else "features"
    count = len(source.targets)
    with path.open("wb") as file, progress(title, count, "images") as advance:
        for batch in evaluation_batches(source, BATCH):
            pixels = batch.inputs.to(ranks.device)
            with autocast(ranks.device, bf16):
                features = network(normalize(pixels.flip(2) if mirrored else pixels, preprocess))
            if not file.tell():
                shape = (count, features.shape[1])
                header = {"descr": "<f4", "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(file, header)
            file.write(features.float().cpu().numpy().tobytes())
            advance(len(features))
