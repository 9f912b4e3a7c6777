"""How much each hyperparameter mattered in a search, and how sure that is."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from trainer.search_space import Choice, Range

FEWEST_TRIALS = 4
RESAMPLES = 100


@dataclass(frozen=True)
class Importance:
    """A hyperparameter's share of what made losses differ: median and 90 % interval, 0 to 1."""

    name: str
    low: float
    median: float
    high: float


def importances(
    space: Mapping[str, Range | Choice], trials: Sequence[tuple[Mapping[str, Any], float]]
) -> list[Importance]:
    """Estimate each hyperparameter's importance, the largest first.

    The trials are resampled: where another draw of as many trials would rank the hyperparameters
    otherwise, the intervals are wide. Source: Watanabe et al., PED-ANOVA (2023), by Optuna; its
    default method loads scikit-learn, which takes seconds.

    Args:
        space: What was searched.
        trials: Values by name, and the loss, of each trial that ran to its end.

    Returns:
        Nothing for fewer than `FEWEST_TRIALS` trials, or where all ended alike.
    """
    if len(trials) < FEWEST_TRIALS or len({loss for _, loss in trials}) < 2 or len(space) < 2:
        return []
    distributions = {name: _distribution(values) for name, values in space.items()}
    frozen = [
        optuna.trial.create_trial(
            params={name: values[name] for name in space}, distributions=distributions, value=loss
        )
        for values, loss in trials
    ]
    random, shares = Random(0), {name: list[float]() for name in space}
    while len(shares[next(iter(space))]) < RESAMPLES:
        drawn = random.choices(frozen, k=len(frozen))
        if len({trial.value for trial in drawn}) > 1:
            for name, share in _shares(drawn).items():
                shares[name].append(share)
    return sorted((_interval(*item) for item in shares.items()), key=lambda one: -one.median)


def _shares(trials: Sequence[optuna.trial.FrozenTrial]) -> dict[str, float]:
    optuna.logging.set_verbosity(optuna.logging.ERROR)  # else it tells of every study
    study = optuna.create_study()
    study.add_trials(trials)
    evaluator = optuna.importance.PedAnovaImportanceEvaluator()
    return optuna.importance.get_param_importances(study, evaluator=evaluator)


def _interval(name: str, shares: Sequence[float]) -> Importance:
    twentieths = statistics.quantiles(shares, n=20, method="inclusive")
    return Importance(name, twentieths[0], statistics.median(shares), twentieths[-1])


def _distribution(space: Range | Choice) -> BaseDistribution:
    if isinstance(space, Choice):
        return CategoricalDistribution(space.values)
    if space.integer:
        return IntDistribution(int(space.low), int(space.high), log=space.log)
    return FloatDistribution(space.low, space.high, log=space.log)
