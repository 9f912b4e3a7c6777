import argparse
import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.config import TrainConfig, add_arguments, from_arguments
from trainer.errors import UsageError


def parse(*arguments: str) -> TrainConfig:
    parser = argparse.ArgumentParser(exit_on_error=False)
    add_arguments(parser)
    return from_arguments(parser.parse_args(arguments))


def test_no_flags_give_the_defaults():
    assert parse() == TrainConfig()


@pytest.mark.parametrize("spelling", ["--head-learning-rate", "--head_learning_rate"])
def test_flags_take_dashes_and_sagemakers_underscores(spelling):
    assert parse(spelling, "0.02").head_learning_rate == 0.02


@pytest.mark.parametrize(("text", "value"), [("true", True), ("False", False), ("0", False)])
def test_booleans_come_as_words(text, value):
    assert parse("--compile", text).compile is value


def _values(option: "dataclasses.Field[Any]") -> st.SearchStrategy[Any]:
    rules = option.metadata
    if rules["choices"]:
        return st.sampled_from(rules["choices"])
    if option.type is bool:
        return st.booleans()
    if option.type is str:
        return st.just(option.default)
    numbers = st.integers if option.type is int else st.floats
    return numbers(rules["low"], rules["high"] if rules["high"] is not None else 10_000)


@given(st.fixed_dictionaries({o.name: _values(o) for o in dataclasses.fields(TrainConfig)}))
def test_any_valid_configuration_survives_flags_and_json(values):
    config = TrainConfig(**values)
    flags = [text for name, value in values.items() for text in (f"--{name}", str(value))]
    assert parse(*flags) == config
    assert TrainConfig.from_json(json.loads(json.dumps(config.to_json()))) == config


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("epochs", 0), ("batch_size", 0), ("dropout", 1.0), ("dropout", math.nan), ("seed", -1),
        ("head_learning_rate", 0.0), ("unfreeze", "some"), ("epochs", 1.5), ("compile", 1),
        ("precision", "fp16"), ("hflip", 1.1), ("label_smoothing", -0.1), ("weight_decay", "much"),
    ],
)  # fmt: skip
def test_wrong_values_are_refused_by_name(field, value):
    with pytest.raises(UsageError, match="--" + field.replace("_", "-")):
        TrainConfig(**{field: value})


def test_flags_win_over_the_file_of_hyperparameters(tmp_path: Path):
    (tmp_path / "best.json").write_text('{"batch_size": 16, "dropout": 0.4}')
    config = parse("--config", str(tmp_path / "best.json"), "--dropout", "0.1")
    assert (config.batch_size, config.dropout) == (16, 0.1)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{", "not JSON"),
        ("[]", "no JSON object"),
        ('{"epoch": 3}', "unknown hyperparameters epoch"),
    ],
)
def test_a_bad_file_of_hyperparameters_is_named(tmp_path: Path, content, reason):
    path = tmp_path / "best.json"
    path.write_text(content)
    with pytest.raises(UsageError, match=f"{path}.*{reason}"):
        parse("--config", str(path))


def test_a_missing_file_of_hyperparameters_is_named(tmp_path: Path):
    with pytest.raises(UsageError, match=r"absent\.json: No such file"):
        parse("--config", str(tmp_path / "absent.json"))


@pytest.mark.parametrize(
    ("fields", "on_cpu", "parts"),
    [
        ({}, True, 4),  # 64 images of 224 x 224
        ({}, False, 1),
        ({"weights": "none"}, True, 1),  # statistics are taken of the whole batch
        ({"freeze_norm": False}, True, 1),
        ({"grad_accumulation": 3}, True, 3),
    ],
)
def test_a_batch_is_computed_in_parts_that_a_cpu_can_hold(fields, on_cpu, parts):
    assert TrainConfig(**fields).parts(64 * 224 * 224, on_cpu=on_cpu) == parts
