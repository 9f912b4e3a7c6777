"""Whether a model may take the place of the one that serves: its labels, and how good it is."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from terraform.cli import model
from terraform.cli.model import Archive
from trainer.errors import KennelError
from trainer.names import some
from trainer.target import Target

if TYPE_CHECKING:
    from inference.archive import Model


@dataclass(frozen=True)
class Comparison:
    """A model beside the one that serves.

    Attributes:
        other_labels: How its labels differ, in a line; empty if they do not.
        remarks: What else is worth knowing before it serves, a line each.
    """

    other_labels: str = ""
    remarks: tuple[str, ...] = ()


def with_other(opened: "Model", other: Mapping[str, Any], told: str, target: Target) -> Comparison:
    """Compare a model with one in the bucket.

    Args:
        opened: The model.
        other: `archive_uri` and `digest` of the other one.
        told: What the other one is to the reader, such as "which serves".
        target: The environment.
    """
    if other["digest"] == opened.digest:
        return Comparison()
    place = Archive(other["archive_uri"].split("/")[2], other["digest"])
    try:
        return compare(opened, model.opened(model.fetch(place, target), place.uri), told)
    except (ClientError, KennelError) as error:
        reason = " ".join(str(error).split())
        return Comparison(remarks=(f"not compared with {place.digest[:12]}, {told}: {reason}",))


def compare(opened: "Model", other: "Model", told: str) -> Comparison:
    """Compare a model with another one; see `with_other`."""
    new, old = f"the model {opened.digest[:12]}", f"{other.digest[:12]}, {told}"
    if opened.labels != other.labels:
        differences = _differences(opened.labels, other.labels)
        return Comparison(f"{new} has other labels than {old}: {differences}")
    right, was_right = _valid_accuracy(opened), _valid_accuracy(other)
    if right is None or was_right is None or right >= was_right:
        return Comparison()
    key = "dataset_fingerprint"
    same = opened.manifest.get(key) == other.manifest.get(key)
    remark = (
        f"{new} is worse than {old}: {right:.1%} of the validation photos right, not "
        f"{was_right:.1%} ({'the same data' if same else 'each on data of its own'})"
    )
    return Comparison(remarks=(remark,))


def _differences(new: Sequence[str], old: Sequence[str]) -> str:
    added = [label for label in new if label not in set(old)]
    gone = [label for label in old if label not in set(new)]
    if not added and not gone:
        return f"the same {len(old)} in another order"
    parts = [f"{len(new)} labels, not {len(old)}"] if len(new) != len(old) else []
    parts += [f"new: {some(added)}"] if added else []
    parts += [f"gone: {some(gone)}"] if gone else []
    return "; ".join(parts)


def _valid_accuracy(opened: "Model") -> float | None:
    """Share of the validation photos that it gets right, as served if that is known."""
    try:
        metrics = json.loads((opened.folder / "metrics.json").read_text())
        served = metrics.get("package", {}).get("top1_valid_served")
        return float(metrics["valid_accuracy"] if served is None else served)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
