"""The state of a run on disk: saved whole or not at all, read back exactly."""

import hashlib
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trainer.errors import KennelError
from trainer.files import replacing


@dataclass
class RunState:
    """Where a run is; random numbers are functions of this place, so no generator is part of it.

    Attributes:
        epoch: Epochs done.
        step: Steps done in the epoch under way.
        loss_sum: Of the images of the epoch under way, over all processes, in nats.
        images: Seen in the epoch under way, over all processes.
        history: A row of metrics for each epoch done.
        best: The trained weights after the epoch with the lowest validation loss.
    """

    epoch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    images: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    best: dict[str, Tensor] = field(default_factory=dict)

    @property
    def valid_losses(self) -> list[float]:
        """Validation loss of each epoch done."""
        return [row["valid_loss"] for row in self.history]


def run_id(hyperparameters: Mapping[str, Any], fingerprint: str) -> str:
    """Name a run by what it learns and what from, so that other runs never read its state."""
    content = json.dumps([hyperparameters, fingerprint], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:12]


def save(
    path: Path, state: RunState, weights: dict[str, Tensor], optimizer: dict[str, Any]
) -> None:
    """Save a run atomically.

    Raises:
        KennelError: It cannot be written; the last checkpoint is still whole.
    """
    fields = {name: getattr(state, name) for name in RunState.__dataclass_fields__}
    try:
        with replacing(path) as temporary:
            torch.save({"state": fields, "weights": weights, "optimizer": optimizer}, temporary)
    except IsADirectoryError:
        raise _in_its_place(path) from None
    except (OSError, RuntimeError) as error:
        raise KennelError(
            f"cannot save the checkpoint {path}: {error}; "
            "the one before is whole: make room and start again"
        ) from error


def restore(path: Path) -> tuple[RunState, dict[str, Tensor], dict[str, Any]] | None:
    """Read a run back: its state, weights and optimizer state; None when there is no checkpoint.

    Raises:
        KennelError: The file is damaged, or cannot be read.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()  # torch does not look at the checksums that it writes
        if damaged is None:
            saved = torch.load(path, map_location="cpu", weights_only=True)
            return RunState(**saved["state"]), saved["weights"], saved["optimizer"]
        fault = "is damaged"
    except FileNotFoundError:
        return None
    except IsADirectoryError:
        raise _in_its_place(path) from None
    except OSError as error:
        fault = f"cannot be read ({error.strerror})"
    except MemoryError:
        raise
    # Bytes that are none of a checkpoint's raise errors of many kinds.
    except Exception:
        fault = "is damaged"
    remedy = "begin anew with FRESH=1 (--fresh), or remove the file"
    raise KennelError(f"the checkpoint {path} {fault}: {remedy}")


def _in_its_place(folder: Path) -> KennelError:
    return KennelError(f"{folder} is a folder where a checkpoint belongs: remove it")
