"""An epoch of training, an evaluation, early stopping: functions of network, batches, config."""

import math
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from trainer.backbones import Classifier
from trainer.batches import Batch
from trainer.config import TrainConfig
from trainer.optimizer import SGD, AdamW, Optimizer
from trainer.ranks import Ranks


def native_bf16(device: torch.device) -> bool:
    """Whether the device computes in bf16 itself; processors without it emulate it slowly."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return any(flag in flags.split() for flag in ("avx512_bf16", "amx_bf16", "bf16"))


def autocast(device: torch.device, bf16: bool) -> AbstractContextManager[Any]:
    """Give the context that computes in bf16 on `device`, or one that changes nothing."""
    return torch.autocast(device.type, torch.bfloat16) if bf16 else nullcontext()


def learning_rate_factor(step: int, steps: int, warmup_fraction: float) -> float:
    """Give the share of the peak learning rate at a step: a linear rise, then half a cosine to 0.

    Source: Loshchilov and Hutter, SGDR (2017), one cycle; the warm-up of Goyal et al. (2017).
    """
    warmup = round(warmup_fraction * steps)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def make_optimizer(classifier: Classifier, config: TrainConfig) -> Optimizer:
    """Make the optimizer: head and unfrozen backbone, each with its own peak learning rate."""
    groups = [{"params": list(classifier.head.parameters()), "peak": config.head_learning_rate}]
    if unfrozen := [p for p in classifier.backbone.parameters() if p.requires_grad]:
        groups.append({"params": unfrozen, "peak": config.backbone_learning_rate})
    if config.optimizer == "sgd":
        return SGD(groups, config.momentum, config.weight_decay)
    return AdamW(groups, config.weight_decay)


def seed_step(ranks: Ranks, *place: int) -> None:
    """Make dropout's numbers depend on the place in the run only: a resumed run draws the same."""
    sequence = np.random.SeedSequence((*place, ranks.rank))
    seed = int(sequence.generate_state(1, np.uint64)[0])
    # torch.manual_seed records a stack trace for every device that is not in use, at each call.
    torch.default_generator.manual_seed(seed)
    if ranks.device.type == "cuda":
        torch.cuda.manual_seed(seed)


def fewest_images(network: nn.Module) -> int:
    """Put a network into training mode, and give how few images it can compute at once there.

    Of a single image, batch normalization has no statistics.
    """
    network.train()
    norms = (module for module in network.modules() if isinstance(module, _BatchNorm))
    return 2 if any(norm.training for norm in norms) else 1


def train_steps(
    network: nn.Module,
    batches: Iterable[Batch],
    optimizer: Optimizer,
    config: TrainConfig,
    ranks: Ranks,
    bf16: bool,
    epoch: int,
    first_step: int,
    steps_per_epoch: int,
) -> Iterator[Tensor]:
    """Train on an epoch's batches from `first_step` on.

    Args:
        network: Gives logits [n, classes] of a batch's inputs.
        batches: This process's share of each batch; weights add up to 1 over all processes.
        optimizer: Its groups carry their `peak` learning rate.
        config: Loss, schedule and accumulation.
        ranks: The processes that train together.
        bf16: Whether to compute in bf16.
        epoch: Counted from 0.
        first_step: Step of the epoch that `batches` begins with.
        steps_per_epoch: Of the whole epoch.

    Yields:
        After each step, of this process's share: the summed loss in nats and the number of images,
        float64 [2], on the device, so that reading it is the caller's to time.
    """
    least = fewest_images(network)
    parallel = network if isinstance(network, DistributedDataParallel) else None
    for step, batch in enumerate(batches, first_step):
        seed_step(ranks, config.seed, epoch, step)
        factor = learning_rate_factor(
            epoch * steps_per_epoch + step, config.epochs * steps_per_epoch, config.warmup_fraction
        )
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * factor
        optimizer.zero_grad()
        pixels = batch.inputs.numel() // 3 if batch.inputs.dim() == 4 else 0
        count = config.parts(pixels, on_cpu=ranks.device.type == "cpu")
        parts = batch.to(ranks.device).split(count, least)
        totals = torch.zeros(2, dtype=torch.float64, device=ranks.device)
        for part in parts:
            with parallel.no_sync() if parallel and part is not parts[-1] else nullcontext():
                losses = training_losses(network, part, config, bf16)
                # DDP averages the gradients over the processes, but the weights already add up to 1
                # over them.
                ((losses * part.weights).sum() * ranks.world).backward()
            counted = part.weights > 0
            totals += torch.stack([(losses.detach() * counted).sum(), counted.sum()])
        optimizer.step()
        yield totals


def training_losses(network: nn.Module, batch: Batch, config: TrainConfig, bf16: bool) -> Tensor:
    """Give each image's smoothed cross-entropy [n] in nats, with mixup if configured.

    Source: Zhang et al., mixup (2018), with one blend for a batch and each image's neighbour as its
    partner.
    """

    def losses(targets: Tensor) -> Tensor:
        return F.cross_entropy(
            logits, targets, reduction="none", label_smoothing=config.label_smoothing
        )

    inputs, share = batch.inputs, 1.0
    if config.mixup > 0:
        share = float(torch.distributions.Beta(config.mixup, config.mixup).sample())
        inputs = inputs.float().lerp(inputs.float().roll(1, 0), 1 - share)
    with autocast(inputs.device, bf16):
        logits = network(inputs).float()
    if share == 1.0:
        return losses(batch.targets)
    return share * losses(batch.targets) + (1 - share) * losses(batch.targets.roll(1, 0))


@dataclass(frozen=True)
class Evaluation:
    """Mean cross-entropy in nats and top-1 accuracy of a split."""

    loss: float
    accuracy: float


@torch.inference_mode()
def evaluate(network: nn.Module, batches: Iterable[Batch], ranks: Ranks, bf16: bool) -> Evaluation:
    """Evaluate a network on a split; exact, however unevenly the processes share it."""
    network.eval()
    totals = torch.zeros(3, dtype=torch.float64)
    for batch in batches:
        moved = batch.to(ranks.device)
        with autocast(ranks.device, bf16):
            logits = network(moved.inputs).float()
        losses = F.cross_entropy(logits, moved.targets, reduction="sum")
        hits = (logits.argmax(1) == moved.targets).sum()
        totals += torch.tensor([float(losses), float(hits), len(logits)], dtype=torch.float64)
    loss, hits_of_all, images = ranks.sum(totals).tolist()
    return Evaluation(loss / images, hits_of_all / images)


def should_stop(valid_losses: list[float], patience: int) -> bool:
    """Tell whether the last `patience` epochs brought no better validation loss; 0 never stops."""
    best = min(range(len(valid_losses)), key=valid_losses.__getitem__, default=0)
    return patience > 0 and len(valid_losses) - 1 - best >= patience
