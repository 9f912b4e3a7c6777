"""A search on a terminal and in a log."""

import multiprocessing
import re
import subprocess
import sys
from pathlib import Path

from tests.terminals import drawn
from trainer.search_display import Display, Ended, Running, pass_on

ROOT = Path(__file__).parents[2]
SEARCH = """\
from trainer import search_display as display
from trainer.search_display import Ended, Running
display.SECONDS_BETWEEN_LINES = display.SECONDS_BETWEEN_LOOKS = 0
with display.shown(8, 1, 0.5) as live:
    for epoch in range(1, 40):
        live.tell(Running(1, f"epoch {epoch} of 39"))
    live.tell(Ended(1, "trial=1 complete valid_loss=0.25 {}", True, 0.25))
    live.tell(Running(2, "epoch 1 of 39"))
    live.tell(Ended(2, "trial=2 fail {} (it diverged)", False, None))
"""


def test_a_terminal_has_one_live_line_and_keeps_a_line_a_trial():
    shown = drawn(SEARCH, 100)
    for live in (
        "trial 2 of 8: epoch 39 of 39, lowest loss 0.5",
        "2 of 8 trials done, lowest loss 0.25",
        "trial 3 of 8: epoch 1 of 39, lowest loss 0.25",
    ):
        assert live in shown
    # Time and bar stand before what a narrow terminal cuts.
    assert re.search(r"\r\[00:\d\d\] \|.{10}\| 2 of 8 trials done", shown)
    # What stands there in the end: of each line, what was written after the last return.
    kept = [re.split("\r+", line)[-1].strip() for line in shown.replace("\r\n", "\n").split("\n")]
    assert [line for line in kept if line] == [
        "trial=1 complete valid_loss=0.25 {}",
        "trial=2 fail {} (it diverged)",
    ]


def test_a_log_gets_plain_lines():
    done = subprocess.run(
        [sys.executable, "-c", SEARCH], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == [
        "trial=1 complete valid_loss=0.25 {}",
        "trial=2 fail {} (it diverged)",
    ]
    assert done.stderr.splitlines()[0] == "trial 2 of 8: epoch 1 of 39, lowest loss 0.5"
    assert "\r" not in done.stderr


def test_trials_at_a_time_share_the_line(capsys):
    display = Display(8, 2, None)
    display.tell(Running(5, "epoch 1 of 9"))
    display.tell(Running(6, "epoch 2 of 7"))
    assert display.text == "trials 3, 4 of 8: epoch 1 of 9; epoch 2 of 7"
    display.tell(Ended(5, "trial=5 pruned", True, None))
    assert display.text == "trial 4 of 8: epoch 2 of 7"
    display.tell(Ended(6, "trial=6 complete", True, 0.0))
    assert display.text == "4 of 8 trials done, lowest loss 0"
    assert capsys.readouterr().out == "trial=5 pruned\ntrial=6 complete\n"


def test_what_other_processes_tell_arrives_until_each_has_ended():
    pipes = [multiprocessing.Pipe(duplex=False) for _ in range(2)]
    for number, (_, sink) in enumerate(pipes):
        sink.send(Running(number, "epoch 1 of 1"))
        sink.close()
    told = []
    pass_on([source for source, _ in pipes], told.append)
    assert sorted(news.number for news in told) == [0, 1]
