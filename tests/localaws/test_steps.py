"""Steps of a demonstration, whose `make` is a script of the test."""

import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from localaws.steps import DemoError, Steps, StoppedError
from tests.localaws.conftest import until
from tests.scripts import PYTHON

MAKE = """#!/bin/sh
case "$1" in
  fail) echo 'something before'; echo 'Error: the bucket is gone' >&2
        echo 'error: apply of serving stopped half way; see above' >&2; exit 2 ;;
  tell) echo "{\\"given\\": \\"$2 $TF_VAR_scaling\\"}"; echo 'to the log' >&2 ;;
  hang) exec sleep 1000 ;;
  flaky) test -e "$0.done" || { touch "$0.done"; echo 'error: AWS refuses it' >&2; exit 2; } ;;
esac
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    make = tmp_path / "bin/make"
    make.parent.mkdir()
    make.write_text(MAKE)
    make.chmod(0o755)
    monkeypatch.setenv("PATH", str(make.parent), prepend=os.pathsep)
    return tmp_path


@pytest.fixture
def steps(folder: Path) -> Iterator[Steps]:
    with made(folder) as steps:
        yield steps


def made(folder: Path, stall_seconds: float = 60) -> Steps:
    return Steps(folder, time.time(), {"ENV": "local"}, os.environ, stall_seconds)


def sleepers() -> list[psutil.Process]:
    children = psutil.Process().children(recursive=True)
    return [child for child in children if child.name() == "sleep"]


def test_a_step_has_its_time_its_log_and_its_output(steps: Steps) -> None:
    with steps.step("tell us (all)") as step:
        said = step.make("tell", terraform={"scaling": {"least": 1}})
    assert said == '{"given": "ENV=local {"least": 1}"}\n'
    log = step.log.read_text()
    assert step.log.name == "01-tell-us-all.log"
    assert "$ make tell ENV=local" in log
    assert "to the log" in log
    assert said in log
    told = step.described()
    assert (told["name"], told["state"], told["log"]) == ("tell us (all)", "done", str(step.log))
    assert told["seconds"] > 0


def test_in_a_storm_a_command_is_given_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCALAWS_WEATHER", "rough")
    with made(folder) as steps, pytest.raises(DemoError), steps.step("rough") as rough:
        rough.make("flaky")
    (folder / "bin/make.done").unlink()
    monkeypatch.setenv("LOCALAWS_WEATHER", "storm")
    with made(folder) as steps, steps.step("storm") as storm:
        storm.make("flaky")
    assert storm.described()["repeats"] == 1
    assert "repeats" not in rough.described()


def test_a_step_that_fails_is_the_failure_with_its_cause(steps: Steps) -> None:
    with pytest.raises(DemoError), steps.step("fail") as failing:
        failing.make("fail")
    assert failing.state == "failed"
    assert steps.failure == ("make fail: Error: the bucket is gone", failing)
    with pytest.raises(StoppedError), steps.step("go on"):
        pass
    assert [step.name for step in steps.timeline] == ["fail"]


def test_an_exit_status_that_is_expected_is_no_failure(steps: Steps) -> None:
    with steps.step("fail") as failing:
        assert failing.make("fail", codes=(2,)) == "something before\n"
    with pytest.raises(DemoError, match="make tell: exit status 0"), steps.step("tell") as step:
        step.make("tell", codes=(2,))


def test_an_error_in_a_measurement_is_a_failure_with_a_trace_in_the_log(steps: Steps) -> None:
    with pytest.raises(ZeroDivisionError), steps.step("measure") as step:
        1 / 0  # noqa: B018
    assert steps.failure == ("ZeroDivisionError: division by zero", step)
    assert "Traceback" in step.log.read_text()


def test_what_fails_aside_ends_what_goes_on_at_once(steps: Steps) -> None:
    def aside() -> None:
        with steps.step("aside") as step:
            until(sleepers)
            step.make("fail")

    with steps.step("first"):
        steps.aside(aside)
    with pytest.raises(StoppedError), steps.step("main") as main:
        main.make("hang")
    assert sleepers() == []
    states = {step.name: step.state for step in steps.timeline}
    assert states == {"first": "done", "main": "stopped", "aside": "failed"}
    assert steps.failure
    assert steps.failure[0] == "make fail: Error: the bucket is gone"


def test_what_fails_ends_what_goes_on_aside_and_others_may_clear_up(steps: Steps) -> None:
    def aside() -> None:
        with steps.step("aside") as step:
            step.make("hang")

    hanging = steps.aside(aside)
    until(sleepers)
    with pytest.raises(DemoError), steps.step("main") as main:
        main.make("fail")
    steps.recover()
    assert not hanging.goes_on
    assert sleepers() == []
    with steps.step("clear up") as step:
        step.make("tell")
    assert steps.failure
    assert steps.failure[1] is main


def test_what_comes_of_it_aside(steps: Steps) -> None:
    assert steps.aside(lambda: 42).result() == 42
    with pytest.raises(StoppedError):
        steps.aside(lambda: 1 // 0).result()
    assert steps.failure == ("ZeroDivisionError: integer division or modulo by zero", None)


def test_a_command_that_does_nothing_is_no_wait_for_ever(folder: Path) -> None:
    with (
        made(folder, stall_seconds=0.5) as steps,
        pytest.raises(DemoError, match="make hang: nothing has moved for"),
        steps.step("hang") as step,
    ):
        step.make("hang")
    assert sleepers() == []


def test_a_signal_ends_all_and_then_nobody_listens(folder: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with made(folder) as steps:

        def kill() -> None:
            until(sleepers)
            os.kill(os.getpid(), signal.SIGTERM)

        killer = threading.Thread(target=kill)
        killer.start()
        with pytest.raises(StoppedError), steps.step("hang") as step:
            step.make("hang")
        killer.join()
        assert steps.failure == ("stopped by SIGTERM", step)
    assert sleepers() == []
    assert signal.getsignal(signal.SIGTERM) is before


def test_how_long_a_step_took_is_known_the_next_time(folder: Path) -> None:
    with made(folder) as first:
        with first.step("tell") as step:
            step.make("tell")
        with pytest.raises(DemoError), first.step("fail") as step:
            step.make("fail")
    (folder / "logs/99-of-another-time.log").touch()
    with made(folder) as second:
        assert list((folder / "logs").iterdir()) == []
        with second.step("tell") as step:
            step.make("tell")
            step.note = "the end"
            (line,) = second._running_lines().renderables
            assert f"last time {first.timeline[0].seconds:.0f} s" in str(line)
            assert str(line).endswith("the end")
        with second.step("fail") as step:
            assert "last time" not in str(second._running_lines().renderables[0])


def test_a_damaged_file_of_durations_harms_nothing(folder: Path) -> None:
    for content in ("{", "[]", '{"tell": "x"}', '{"tell": null}'):
        (folder / "durations.json").write_text(content)
        with made(folder) as steps, steps.step("tell") as step:
            step.make("tell")


def test_a_log_gets_a_line_for_each_step(steps: Steps, capsys: pytest.CaptureFixture[str]) -> None:
    with steps.step("tell [us]") as step:
        step.python("platform")
    assert re.fullmatch(r" +\d+ s  tell \[us\]\n", capsys.readouterr().out)
    assert f"$ {PYTHON} -m platform" in step.log.read_text()
