import json
import sys
from pathlib import Path

import pytest

from tests.benchmarks import harness
from tests.benchmarks.harness import Figure, absolute, compare, in_turn, record, timed


@pytest.fixture(autouse=True)
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(harness, "RESULTS", tmp_path)
    return tmp_path


def test_a_ratio_says_how_many_times_better_ours_is() -> None:
    seconds = compare("time", "s", [1, 2, 9], [10, 10, 13], "peer", ">= 5", "less")
    assert (seconds.ratio, seconds.holds) == (5, True)
    assert seconds.ours == Figure(median=2, least=1, most=9, runs=3)
    speed = compare("speed", "1/s", [10], [20], "peer", ">= 5", "more")
    assert (speed.ratio, speed.holds) == (0.5, False)


@pytest.mark.parametrize(
    ("target", "holding"),
    [("< 3", [2.9]), ("<= 3", [2.9, 3.0]), ("> 3", [3.1]), (">= 3", [3.0, 3.1])],
)
def test_targets(target: str, holding: list[float]) -> None:
    held = [value for value in (2.9, 3.0, 3.1) if absolute("what", "s", [value], target).holds]
    assert held == holding


@pytest.mark.parametrize("target", ["3", "= 3", "< three"])
def test_a_target_that_cannot_be_read_is_refused(target: str) -> None:
    with pytest.raises((KeyError, ValueError)):
        absolute("what", "s", [1], target)


def test_contenders_take_turns() -> None:
    order: list[str] = []

    def run(name: str) -> int:
        order.append(name)
        return len(order)

    assert in_turn({"a": lambda: run("a"), "b": lambda: run("b")}, 2) == {"a": [1, 3], "b": [2, 4]}
    assert order == ["a", "b", "a", "b"]


def test_a_process_is_timed_with_what_it_holds_and_says() -> None:
    script = "import os; x = bytearray(64 << 20); print(os.environ['WORD'])"
    run = timed([sys.executable, "-S", "-c", script], {"WORD": "said"})
    assert run.output == "said\n"
    assert run.cpu_seconds > 0
    assert run.peak_mib > 64


def test_a_process_that_fails_is_told_with_what_it_said() -> None:
    with pytest.raises(RuntimeError, match=r"exit 3\nbroken"):
        timed(
            [
                sys.executable,
                "-S",
                "-c",
                "import sys; print('broken', file=sys.stderr); sys.exit(3)",
            ]
        )


def test_a_record_has_the_command_the_entries_and_the_machine(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    entry = compare("time", "s", [1.0], [2.0], "peer", ">= 5", "less")
    path = record("training", "make bench BENCH=training", [entry], curves={"a": [1]})
    assert path == results / "training.json"
    written = json.loads(path.read_text())
    assert written["command"] == "make bench BENCH=training"
    assert written["entries"][0]["ratio"] == 2
    assert written["curves"] == {"a": [1]}
    assert written["machine"]["cores"] >= 1
    assert "MISSED  time: 2 (target >= 5)" in capsys.readouterr().out
