"""A model beside the one that serves."""

import json
from pathlib import Path
from typing import Any

import pytest

from inference.archive import Model
from inference.preprocess import Preprocess
from terraform.cli.compare import Comparison, compare

PREPROCESS = Preprocess(resize=8, crop=8, interpolation="bilinear", mean=(0, 0, 0), std=(1, 1, 1))


def model(
    folder: Path, name: str, labels: tuple[str, ...], metrics: Any, data: str = "same"
) -> Model:
    place = folder / name
    place.mkdir()
    (place / "metrics.json").write_text(json.dumps(metrics))
    return Model(place, {"dataset_fingerprint": data}, name * 64, name, labels, PREPROCESS)


def compared(folder: Path, new: Any, old: Any, **more: Any) -> Comparison:
    """Compare models that differ in their metrics."""
    labels = ("Beagle", "Boxer")
    served = model(folder, "b", labels, old)
    return compare(model(folder, "a", labels, new, **more), served, "which serves")


@pytest.mark.parametrize(
    ("new", "old", "said"),
    [
        (("a", "b"), ("b", "a"), "the same 2 in another order"),
        (("a", "b", "c"), ("a", "b"), "3 labels, not 2; new: c"),
        (("a",), ("a", "b"), "1 labels, not 2; gone: b"),
        (
            tuple("0123456789"),
            ("Beagle", "Boxer"),
            "10 labels, not 2; new: 0, 1, 2, 3, 4 and 5 more; gone: Beagle, Boxer",
        ),
    ],
)
def test_other_labels_are_told(
    tmp_path: Path, new: tuple[str, ...], old: tuple[str, ...], said: str
) -> None:
    found = compare(model(tmp_path, "a", new, {}), model(tmp_path, "b", old, {}), "which serves")
    assert found.other_labels == (
        f"the model aaaaaaaaaaaa has other labels than bbbbbbbbbbbb, which serves: {said}"
    )


def test_a_worse_model_is_told(tmp_path: Path) -> None:
    old = {"valid_accuracy": 0.95, "package": {"top1_valid_served": 0.94}}
    (remark,) = compared(tmp_path, {"valid_accuracy": 0.9}, old).remarks
    assert remark == (
        "the model aaaaaaaaaaaa is worse than bbbbbbbbbbbb, which serves: 90.0% of the validation "
        "photos right, not 94.0% (the same data)"
    )


def test_a_worse_model_of_other_photos_says_so(tmp_path: Path) -> None:
    (remark,) = compared(
        tmp_path, {"valid_accuracy": 0.9}, {"valid_accuracy": 0.95}, data="other"
    ).remarks
    assert remark.endswith("(each on data of its own)")


@pytest.mark.parametrize("old", [{"valid_accuracy": 0.9}, {"valid_accuracy": 0.8}, {}, [], None])
def test_a_model_that_is_no_worse_needs_no_word(tmp_path: Path, old: Any) -> None:
    assert compared(tmp_path, {"valid_accuracy": 0.9}, old) == Comparison()
