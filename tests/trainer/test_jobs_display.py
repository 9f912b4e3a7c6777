"""The progress line of a job that is followed on a terminal: what moves is never cut."""

import re
from pathlib import Path

import pytest

from tests.terminals import drawn
from trainer.jobs import State, progress_line

ROOT = Path(__file__).parents[2]
NAME = "kennel-local-photos-20261201035559"
FOLLOWED = f"""\
from trainer import jobs
from trainer.jobs import Outcome, State

jobs._POLL_SECONDS = 0
TEXT = "Training: Training image download completed. Training in progress."
STATES = [State(TEXT, False, "Training")] * 3 + [State("Completed", True, "Completed")]
LOGGED = [
    ["epoch=119 train_loss=0.412 valid_loss=0.0001234 valid_accuracy=0.90123 "
     "images_per_second=812"],
    ["test_top1_trained=0.9 test_top1_served=0.9"],
]

class Job(jobs.Job):
    name, usd_per_hour, machines = "{NAME}", 1_000_000.0, "1 x ml.g5.xlarge"
    def state(self): return STATES.pop(0)
    def lines(self): return LOGGED.pop(0) if LOGGED else []
    def stop(self): pass
    def outcome(self): return Outcome(self.name, "training", "s3://x", 1.0, 1.0, None)

jobs.follow(Job(), "local")
"""


def on_terminal(columns: int) -> list[str]:
    """What the terminal was told to draw, each time."""
    return re.split(r"[\r\n]+", drawn(FOLLOWED, columns))


@pytest.mark.parametrize("columns", [80, 100])
def test_time_cost_and_figures_stand_before_what_a_terminal_cuts(columns: int) -> None:
    drawn = [line for line in on_terminal(columns) if re.match(r"\w+ \[\d\d:\d\d\], ", line)]
    assert all(len(line) <= columns for line in drawn)
    moving = r"Training \[00:\d\d\], \d+\.\d\d USD"
    figures = r", epoch 119, loss 0\.0001234, accuracy 0\.9012, "
    assert any(re.match(moving + figures, line) for line in drawn)
    assert re.match(rf"{moving}, {NAME}, Training image", drawn[0])


@pytest.mark.parametrize(
    ("state", "told"),
    [
        (
            State("InProgress: 3 of 8 trials ended, 1 run", ended=False),
            ("InProgress: 3 of 8 trials ended, 1 run", "0.50 USD, kennel-1"),
        ),
        (
            State("i-0123456789abcdef0 is running", ended=False, word="running"),
            ("running", "0.50 USD, kennel-1, i-0123456789abcdef0 is running"),
        ),
        (State("Starting", ended=False, word="Starting"), ("Starting", "0.50 USD, kennel-1")),
    ],
)
def test_a_state_is_told_once_and_its_sentence_last(state: State, told: tuple[str, str]) -> None:
    assert progress_line("kennel-1", state, {}, 0.5) == told


def test_the_longest_figures_fit_beside_hours() -> None:
    metrics = {"epoch": 120.0, "train_loss": 1.0, "valid_loss": 1.2345e-5, "valid_accuracy": 0.9876}
    state = State("Interrupted: the spot machine is gone", ended=False, word="Interrupted")
    word, after = progress_line(NAME, state, metrics, 123.456)
    moving = after.partition(f", {NAME}")[0]
    assert moving == "123.46 USD, epoch 120, loss 1.234e-05, accuracy 0.9876"
    assert len(f"{word} [10:02:03], {moving}") <= 80
