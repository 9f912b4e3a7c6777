"""The prices and their loader."""

import re
from datetime import date
from pathlib import Path

import pytest

from trainer.errors import KennelError
from trainer.prices import hourly_usd, prices


def test_every_price_has_a_positive_figure_a_unit_a_source_and_a_date() -> None:
    for key, price in prices().items():
        assert price.usd > 0, key
        assert price.unit, key
        assert re.fullmatch(r"https://aws\.amazon\.com/\S+/pricing/\S*", price.source), key
        assert "2026-01" <= price.checked <= f"{date.today():%Y-%m}", key


@pytest.mark.parametrize(
    ("instance_type", "kind", "usd"),
    [
        ("ml.g5.xlarge", "training", 1.408),
        ("g5.xlarge", "ec2", 1.006),
        ("ml.m5.large", "hosting", 0.115),
        ("ml.t3.medium", "notebook", 0.05),
        ("ml.t3.medium", "training", None),
        ("g5.xlarge", "training", None),
    ],
)
def test_hours_are_by_type_and_use(instance_type: str, kind: str, usd: float | None) -> None:
    assert hourly_usd(instance_type, kind) == usd  # type: ignore[arg-type]


def test_sagemaker_asks_more_than_ec2() -> None:
    for key, price in prices().items():
        if key.startswith("ec2_"):
            same = prices().get(f"training_ml_{key.removeprefix('ec2_')}")
            assert same is None or price.usd < same.usd < 1.5 * price.usd, key


def test_an_hour_is_named_by_its_type() -> None:
    price = prices()["training_ml_g5_xlarge"]
    assert price.name == "SageMaker training, ml.g5.xlarge, on demand"
    assert price.unit == "hour"


ENTRY = {
    "name": '"Hour"',
    "unit": '"hour"',
    "usd": "1.0",
    "source": '"https://aws.amazon.com/ec2/pricing/"',
    "checked": '"2026-11"',
}


@pytest.mark.parametrize(
    ("change", "culprit"),
    [
        ({"usd": "0.0"}, "usd of [hour]"),
        ({"usd": '"1"'}, "usd of [hour]"),
        ({"checked": '"2026"'}, "checked of [hour]"),
        ({"source": '"https://example.com/"'}, "source of [hour]"),
        ({"currency": '"USD"'}, "[hour] of"),
        ({"usd": "one"}, "is not TOML"),
    ],
)
def test_a_bad_price_is_named(tmp_path: Path, change: dict[str, str], culprit: str) -> None:
    path = tmp_path / "prices.toml"
    entry = "".join(f"{key} = {value}\n" for key, value in (ENTRY | change).items())
    path.write_text(f"[hour]\n{entry}")
    with pytest.raises(KennelError, match=re.escape(culprit)):
        prices(path)


@pytest.mark.parametrize(
    ("text", "culprit"),
    [
        ('[hourly.ec2]\nname = "x"', "[hourly.ec2]"),
        ('[hourly.ec2.usd]\n"c5.large" = 1.0', "[hourly.ec2]"),
        ("[hourly]\nec2 = 1", "[hourly.ec2]"),
        ('[hourly.ec2]\nname = "{}"\n[hourly.ec2.usd]\n"c5.large" = 1.0', "[ec2_c5_large]"),
    ],
)
def test_a_bad_table_of_hours_is_named(tmp_path: Path, text: str, culprit: str) -> None:
    path = tmp_path / "prices.toml"
    path.write_text(text)
    with pytest.raises(KennelError, match=re.escape(culprit)):
        prices(path)
