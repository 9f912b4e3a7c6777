"""Chooses what a tuning job tries next, and tells which trials are not worth going on with.

Each answer is computed from the trials so far. Nothing is kept between two of them, so a search
goes on after localaws has ended, however it ended.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from statistics import fmean, median
from typing import Any

from localaws.jobs.ranges import Choice, Numbers, Space

# Optuna's own 10 would leave nothing to learn from in a search of 8 trials.
_RANDOM_TRIALS = 4
# In a small space the sampler likes to come back to its best.
_ATTEMPTS = 20


@dataclass(frozen=True)
class Observation:
    """A trial as a search sees it."""

    values: Mapping[str, str]
    """Its hyperparameters; there may be more than are searched for."""
    progress: Sequence[float]
    """The objective after each epoch so far."""
    status: str
    """As of a training job."""
    result: float | None = None
    """The objective in the end; None while it runs, or if it gave none."""


@dataclass(frozen=True)
class Search:
    """How a tuning job searches one of its definitions' ranges."""

    strategy: str
    """`Bayesian`, `Random` or `Hyperband`."""
    space: Space
    minimize: bool
    seed: int | None = None
    """Makes the choices repeatable."""
    resource: tuple[int, int] = (1, 1)
    """For `Hyperband`: the fewest and the most epochs of a trial."""

    def propose(self, trials: Sequence[Observation]) -> dict[str, str]:
        """Choose values for one more trial.

        Args:
            trials: All so far, and those of former searches; what lies out of the space is ignored.
        """
        study = self._study([trial for trial in trials if self._contains(trial)])
        known = [{name: trial.values.get(name) for name in self.space} for trial in trials]
        distributions = {name: _distribution(found) for name, found in self.space.items()}
        for _ in range(_ATTEMPTS):
            chosen = study.ask(distributions).params
            values = {name: _text(found, chosen[name]) for name, found in self.space.items()}
            if values not in known:
                break
        return values

    def lags(self, trial: Observation, others: Sequence[Observation]) -> bool:
        """Whether early stopping ends a trial: SageMaker's median rule.

        A trial ends whose objective is worse than the median of the running averages that the
        former trials had after as many epochs (SageMaker's developer guide, "Stop Training Jobs
        Early").

        Args:
            trial: One that runs.
            others: The trials that have ended.
        """
        epoch = len(trial.progress)
        averages = [
            fmean(other.progress[:epoch]) for other in others if len(other.progress) >= epoch > 0
        ]
        if not averages:
            return False
        middle, last = median(averages), trial.progress[-1]
        return last > middle if self.minimize else last < middle

    def drops(self, position: int, trials: Sequence[Observation]) -> bool:
        """Whether Hyperband ends a trial.

        Args:
            position: The trial's.
            trials: All so far.
        """
        progress = trials[position].progress
        if len(progress) > self.resource[1]:
            return True
        study = self._study([])
        asked = [study.ask() for _ in trials]
        # What it has reached at each rung counts only once the pruner was asked about it.
        order = [*(number for number in range(len(trials)) if number != position), position]
        drops = False
        for number in order:
            for epoch, value in enumerate(trials[number].progress, 1):
                asked[number].report(value, epoch)
                drops = asked[number].should_prune()
        return drops and len(progress) > 0

    def _study(self, trials: Sequence[Observation]) -> Any:
        optuna = _optuna()
        seed = None if self.seed is None else self.seed + len(trials)
        random = optuna.samplers.RandomSampler(seed)
        learning = optuna.samplers.TPESampler(
            n_startup_trials=_RANDOM_TRIALS, constant_liar=True, seed=seed
        )
        low, high = self.resource
        study = optuna.create_study(
            # The pruner deals trials out to its brackets by the study's name.
            study_name=hashlib.sha256(repr(sorted(self.space)).encode()).hexdigest(),
            direction="minimize" if self.minimize else "maximize",
            sampler=random if self.strategy == "Random" else learning,
            pruner=optuna.pruners.HyperbandPruner(low, high),
        )
        study.add_trials([self._trial(trial) for trial in trials])
        return study

    def _trial(self, trial: Observation) -> Any:
        optuna = _optuna()
        state = {"Completed": "COMPLETE", "Stopped": "PRUNED"}.get(trial.status, "RUNNING")
        if trial.status == "Failed" or (state == "COMPLETE" and trial.result is None):
            state = "FAIL"
        return optuna.trial.create_trial(
            state=optuna.trial.TrialState[state],
            value=trial.result if state in ("COMPLETE", "PRUNED") else None,
            params={name: _value(found, trial.values[name]) for name, found in self.space.items()},
            distributions={name: _distribution(found) for name, found in self.space.items()},
            intermediate_values=dict(enumerate(trial.progress, 1)),
        )

    def _contains(self, trial: Observation) -> bool:
        return all(
            name in trial.values and _is_within(found, trial.values[name])
            for name, found in self.space.items()
        )


@cache
def _optuna() -> Any:
    # It takes as long to import as all of localaws, and most need none.
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def _distribution(found: Numbers | Choice) -> Any:
    distributions = _optuna().distributions
    if isinstance(found, Choice):
        return distributions.CategoricalDistribution(found.values)
    if found.integer:
        is_log = found.scale == "Logarithmic"
        return distributions.IntDistribution(int(found.low), int(found.high), log=is_log)
    if found.scale == "ReverseLogarithmic":
        return distributions.FloatDistribution(1 - found.high, 1 - found.low, log=True)
    return distributions.FloatDistribution(found.low, found.high, log=found.scale == "Logarithmic")


def _text(found: Numbers | Choice, value: Any) -> str:
    """A value of a distribution as a hyperparameter."""
    if isinstance(found, Choice) or found.integer:
        return str(value)
    number = 1 - value if found.scale == "ReverseLogarithmic" else value
    return repr(min(max(number, found.low), found.high))


def _value(found: Numbers | Choice, text: str) -> Any:
    """A hyperparameter as a value of a distribution."""
    if isinstance(found, Choice):
        return text
    if found.integer:
        return int(text)
    if found.scale == "ReverseLogarithmic":
        return min(max(1 - float(text), 1 - found.high), 1 - found.low)
    return float(text)


def _is_within(found: Numbers | Choice, text: str) -> bool:
    if isinstance(found, Choice):
        return text in found.values
    try:
        number = int(text) if found.integer else float(text)
    except ValueError:
        return False
    return found.low <= number <= found.high
