"""Search for hyperparameters in one job: Optuna over shared features; `test` is never touched.

    python -m trainer.tune --data DIR --backbone efficientnet_lite0 --trials 8 --output-dir
    build/tune

A stopped search goes on where it was when the same command is given again.
"""

import csv
import io
import json
import logging
import multiprocessing
import signal
import sqlite3
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Semaphore
from pathlib import Path
from threading import Event
from typing import Any

import optuna
import torch
from optuna.distributions import distribution_to_json
from optuna.trial import TrialState
from torch import nn

from inference.cpus import available_cpus
from inference.memory import keep_large_blocks
from trainer import backbones, checkpoint, index, search_page
from trainer import config as configuration
from trainer.backbones import Classifier
from trainer.checkpoint import RunState
from trainer.config import TrainConfig
from trainer.dataset import Dataset, load
from trainer.done import searched
from trainer.errors import ArgumentParser, Interrupted, KennelError, UsageError, run_command
from trainer.files import write_json_atomic, write_text_atomic
from trainer.lock import locked
from trainer.loop import make_optimizer, should_stop
from trainer.names import shown as name_shown
from trainer.progress import say_result, told_to
from trainer.ranks import Ranks, alone
from trainer.search_display import Ended, Running, Tell, nobody, pass_on, shown
from trainer.search_page import UNFROZEN
from trainer.search_space import Choice, Range, search_space
from trainer.shards import dataset_name
from trainer.sqlite_faults import is_of_its_place
from trainer.train import (
    Folders,
    Task,
    add_folder_arguments,
    feature_sources,
    finish_epoch,
    folders_from,
    head_task,
    make_task,
    train_epoch,
)

FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)
_CHECKSUM = "crc32"
_REASON = "reason"
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Search:
    """`trials` trials, `parallel` at a time, of `config` with values from its search space.

    Attributes:
        config: What is not searched for.
        folders: Where to read and write.
        trials: Trials in all.
        parallel: Trials at a time.
        fixed: Hyperparameters that the user has chosen, which are not searched for either.
        fresh: Whether to begin anew where an earlier search has left its trials.
    """

    config: TrainConfig
    folders: Folders
    trials: int
    parallel: int
    fixed: frozenset[str] = frozenset()
    fresh: bool = False

    @property
    def space(self) -> dict[str, Range | Choice]:
        """What is searched for."""
        return search_space(self.config.unfreeze, self.fixed)

    @property
    def file(self) -> Path:
        """Where Optuna keeps the trials."""
        return self.folders.output / "study.db"

    @property
    def storage(self) -> str:
        """Address of `file`, as Optuna takes it."""
        return f"sqlite:///{self.file}"


@dataclass(frozen=True)
class Budget:
    """What all processes together may still do; each claims a trial before it starts it.

    Attributes:
        trials: Trials to start.
        replacements: Failed trials to start another for. Without an end to them, a search in which
            every trial fails would have none.
    """

    trials: Semaphore
    replacements: Semaphore

    def claim(self) -> bool:
        """Take one of the trials; false if none is left."""
        return self.trials.acquire(block=False)

    def replace_failed(self) -> None:
        """Allow a trial in the place of one that failed."""
        if self.replacements.acquire(block=False):
            self.trials.release()


def search(plan: Search) -> dict[str, Any]:
    """Run a search, or the rest of one; write best.json, trials.csv, search.json, search.html.

    Returns:
        The hyperparameters with the lowest validation loss, as `trainer.train --config` takes them.

    Raises:
        UsageError: The data or the configuration does not fit.
        KennelError: No trial succeeded, or those of before are damaged.
    """
    started = time.monotonic()
    data = load_data(plan)
    with locked(plan.folders.output), written(plan.file):
        if not (whole := is_whole(plan, data)) and not plan.fresh:
            raise KennelError(
                f"the trials in {plan.file} are damaged, or of another version of Optuna: "
                "begin anew with FRESH=1 (--fresh)"
            )
        # Computes the features once, before several processes want them.
        task_maker(plan, data, alone())
        if not whole:
            remove_studies(plan)
        elif plan.fresh:
            forget_study(plan, data)
        study = open_study(plan, data, plan.config.seed)
        for trial in study.get_trials(states=[TrialState.RUNNING]):  # of a search that was killed
            study.tell(trial.number, state=TrialState.FAIL)
        try:
            run_workers(plan, data, study)
        except KeyboardInterrupt:
            done = len(study.get_trials(states=FINISHED))
            raise Interrupted(
                f"stopped by Ctrl-C: {done} of {plan.trials} trials are kept in "
                f"{plan.folders.output}; the same command goes on with the others"
            ) from None
        finished = study.get_trials(states=FINISHED)
        if not any(trial.state == TrialState.COMPLETE for trial in finished):
            raise KennelError(f"no trial succeeded{_last_reason(study)}; {plan.storage} has all")
        config = replace(plan.config, **study.best_trial.params)
        best = config.to_json()
        write_json_atomic(plan.folders.output / "best.json", best)
        write_text_atomic(plan.folders.output / "trials.csv", table(finished))
        told = index.with_way_back(page(plan, study, config), plan.folders.output)
        write_text_atomic(plan.folders.output / "search.html", told)
        result = {
            "trials": len(finished),
            "pruned": sum(trial.state == TrialState.PRUNED for trial in finished),
            "best": study.best_trial.params,
            "valid_loss": study.best_value,
            "valid_accuracy": study.best_trial.user_attrs["valid_accuracy"],
            "seconds": time.monotonic() - started,
        }
        write_json_atomic(plan.folders.output / "search.json", result)
    path = plan.folders.output / "best.json"
    say_result(
        map(name_shown, searched(plan.folders.output)),
        f"best valid_loss={study.best_value:.6g} trials={len(finished)} {path}\n"
        f"page={plan.folders.output / 'search.html'}",
    )
    return best


def _last_reason(study: optuna.Study) -> str:
    failed = study.get_trials(states=(TrialState.FAIL,))
    reasons = [trial.user_attrs[_REASON] for trial in failed if _REASON in trial.user_attrs]
    return f", the last for this reason: {reasons[-1]}" if reasons else ""


def load_data(plan: Search) -> Dataset:
    """Read `train` and `valid`; `test` stays closed until the one evaluation at the end."""
    preprocess = backbones.preprocess_for(plan.config)
    return load(
        plan.folders.data,
        plan.folders.cache,
        preprocess.resize,
        preprocess.interpolation,
        ("train", "valid"),
    )


def open_study(plan: Search, data: Dataset, sampler_seed: int) -> optuna.Study:
    """Open the study of this configuration and this data, or start it."""
    # What fails is told with its trial; Optuna would add a traceback.
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna.create_study(
        storage=plan.storage,
        study_name=study_name(plan, data),
        load_if_exists=True,
        sampler=optuna.samplers.TPESampler(
            seed=sampler_seed, n_startup_trials=4, constant_liar=plan.parallel > 1
        ),
        # The first rung is where the learning rate has begun to fall: before, a low one looks bad
        # and a high one looks better than it ends.
        pruner=optuna.pruners.SuccessiveHalvingPruner(min_resource=8, reduction_factor=2),
    )


def study_name(plan: Search, data: Dataset) -> str:
    """Name a study by what is not searched for, and by the data."""
    searched = plan.space
    fixed = {name: value for name, value in plan.config.to_json().items() if name not in searched}
    return checkpoint.run_id(fixed, data.fingerprint())


def is_whole(plan: Search, data: Dataset) -> bool:
    """Whether the file of trials is what was written, and the trials of this study are.

    Raises:
        KennelError: A folder is in its place.
        Exception: It cannot be used, whatever it holds; `written` tells why.
    """
    if plan.file.is_dir():
        raise KennelError(f"{plan.file} is a folder where the trials belong: remove it")
    if not plan.file.exists():
        return True
    try:
        with closing(sqlite3.connect(plan.file)) as database:
            if database.execute("PRAGMA integrity_check(1)").fetchone() != ("ok",):
                return False
        trials = open_study(plan, data, plan.config.seed).get_trials()
        return all(
            trial.user_attrs.get(_CHECKSUM) in (None, checksum(trial))
            for trial in trials
            if trial.state in FINISHED
        )
    # Optuna reads numbers, dates and JSON, and each gives errors of its own where it is none.
    except Exception as error:
        if (of_sqlite := _of_sqlite(error)) and is_of_its_place(of_sqlite, plan.file):
            raise
        return False


@contextmanager
def written(path: Path) -> Iterator[None]:
    """Say in one line why trials cannot be written or read."""
    try:
        yield
    except Exception as error:
        reason = _of_sqlite(error)
        if isinstance(error, KennelError) or reason is None:
            raise
        raise KennelError(
            f"cannot write the trials to {path}: {reason}; "
            "when that is mended, the same command goes on"
        ) from error


def _of_sqlite(error: BaseException | None) -> sqlite3.Error | None:
    """Find what SQLite said below what SQLAlchemy and Optuna made of it."""
    while not (error is None or isinstance(error, sqlite3.Error)):
        error = error.__cause__
    return error


def checksum(trial: optuna.Trial | optuna.trial.FrozenTrial, loss: float | None = None) -> int:
    """Give the CRC-32 of what a trial tried and came to, which SQLite would let change unseen.

    Args:
        trial: One under way, or one that has ended.
        loss: What the one under way ends with, None if it is pruned.
    """
    if isinstance(trial, optuna.trial.FrozenTrial) and trial.state == TrialState.COMPLETE:
        loss = trial.value
    space = {name: distribution_to_json(each) for name, each in trial.distributions.items()}
    accuracy = trial.user_attrs.get("valid_accuracy")
    return zlib.crc32(json.dumps([trial.params, space, accuracy, loss], sort_keys=True).encode())


def forget_study(plan: Search, data: Dataset) -> None:
    """Remove the trials of the same search, if there are any."""
    with suppress(KeyError):  # there are none
        optuna.delete_study(study_name=study_name(plan, data), storage=plan.storage)


def remove_studies(plan: Search) -> None:
    """Remove a damaged file of trials, and what SQLite has left beside it."""
    for ending in ("", "-journal", "-wal", "-shm"):
        plan.file.with_name(plan.file.name + ending).unlink(missing_ok=True)


def run_workers(plan: Search, data: Dataset, study: optuna.Study) -> None:
    """Run the trials that the study lacks here, or in processes that share the cores."""
    finished = study.get_trials(states=FINISHED)
    lacking = max(0, plan.trials - len(finished))
    context = multiprocessing.get_context("spawn")
    budget = Budget(context.Semaphore(lacking), context.Semaphore(plan.trials))
    # Equal seeds would give equal trials: in each process, and again when a search goes on.
    first_seed = plan.config.seed + len(study.trials)
    losses = [t.value for t in finished if t.state == TrialState.COMPLETE and t.value is not None]
    with shown(plan.trials, len(finished), min(losses, default=None)) as display:
        if plan.parallel == 1:
            work(plan, data, budget, first_seed, display.tell)
            return
        sources, workers = [], []
        # Ctrl-C is for this process, which ends them.
        handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
        for number in range(min(plan.parallel, lacking)):
            source, sink = context.Pipe(duplex=False)
            arguments = (plan, budget, first_seed + number, sink)
            workers.append(context.Process(target=work_in_process, args=arguments))
            workers[-1].start()
            sources.append(source)
            sink.close()  # else its end would not be seen here
        signal.signal(signal.SIGINT, handler)
        try:
            pass_on(sources, display.tell)
            for worker in workers:
                worker.join()
        finally:
            for worker in workers:
                worker.terminate()
    if failed := [worker.exitcode for worker in workers if worker.exitcode]:
        _log.warning(
            "%d of %d search processes failed, so that trials are missing; %s, and the same "
            "command goes on",
            *(len(failed), len(workers), said_of_end(failed)),
        )


def said_of_end(exit_codes: Sequence[int]) -> str:
    """Say why processes ended: of a signal, which lets none say anything, or as they said."""
    names = sorted({signal.Signals(-code).name for code in exit_codes if code < 0})
    if not names:
        return "the lines above say why"
    hint = " (was the memory too small? --parallel 1 takes least)" if "SIGKILL" in names else ""
    return f"ended by {' and '.join(names)}{hint}"


def work_in_process(plan: Search, budget: Budget, sampler_seed: int, news: Connection) -> None:
    """Run trials on this process's share of the cores; the one that started it shows them."""
    keep_large_blocks()
    torch.set_num_threads(max(1, available_cpus() // plan.parallel))
    with suppress(BrokenPipeError):  # that one was killed
        run_command(lambda: _work(plan, budget, sampler_seed, news.send))


def _work(plan: Search, budget: Budget, sampler_seed: int, tell: Tell) -> None:
    with written(plan.file):
        work(plan, load_data(plan), budget, sampler_seed, tell)


def work(plan: Search, data: Dataset, budget: Budget, sampler_seed: int, tell: Tell) -> None:
    """Run trials until the budget of all processes is spent, and tell how they are."""
    ranks = alone()
    study = open_study(plan, data, sampler_seed)
    make = task_maker(plan, data, ranks)

    while budget.claim():
        trial, loss, state = study.ask(), None, TrialState.COMPLETE
        try:
            config = replace(plan.config, **suggest(trial, plan.space))
            loss = run_trial(trial, config, *make(config), ranks, tell)
        except optuna.TrialPruned:
            state = TrialState.PRUNED
            trial.set_user_attr(_CHECKSUM, checksum(trial))
        # Whatever it is (memory, for one), other hyperparameters may do without.
        except Exception as error:
            state = TrialState.FAIL
            trial.set_user_attr(_REASON, _reason(error))
            budget.replace_failed()
        else:
            trial.set_user_attr(_CHECKSUM, checksum(trial, loss))
        ended = study.tell(trial, loss, state)
        known = ended.value if ended.state == TrialState.COMPLETE else None
        tell(Ended(ended.number, _line(ended), ended.state in FINISHED, known))


def _reason(error: Exception) -> str:
    """Give an error in one line; one that no user can act on with its kind."""
    text = " ".join(str(error).split())
    return text if isinstance(error, KennelError) else f"{type(error).__name__}: {text}"


def _line(trial: optuna.trial.FrozenTrial) -> str:
    value = "" if trial.value is None else f" valid_loss={trial.value:.6g}"
    reason = f": {trial.user_attrs[_REASON]}" if _REASON in trial.user_attrs else ""
    state = trial.state.name.lower()
    return f"trial={trial.number} {state}{value} {json.dumps(trial.params)}{reason}"


def run_trial(
    trial: optuna.Trial,
    config: TrainConfig,
    task: Task,
    classifier: Classifier,
    ranks: Ranks,
    tell: Tell = nobody,
) -> float:
    """Train one configuration, and give the validation loss that it ends with; tell each epoch.

    Its end, not its best epoch: with a high learning rate, an early epoch may hit a good place that
    the next one leaves, which says little of other photos.

    Raises:
        optuna.TrialPruned: The trial lags behind the others.
    """
    state, optimizer = RunState(), make_optimizer(classifier, config)
    lags = False
    while (
        not lags
        and state.epoch < config.epochs
        and not should_stop(state.valid_losses, config.patience)
    ):
        place = f"epoch {state.epoch + 1} of {config.epochs}"
        tell(Running(trial.number, place))
        with told_to(partial(_tell_step, tell, trial.number, place)):
            train_epoch(task, optimizer, state, config, ranks, Event())
            finish_epoch(task, state, ranks)
        trial.report(state.valid_losses[-1], state.epoch)
        lags = trial.should_prune()
    trial.set_user_attr("valid_accuracy", state.history[-1]["valid_accuracy"])
    if lags:
        raise optuna.TrialPruned
    return state.valid_losses[-1]


def _tell_step(tell: Tell, number: int, place: str, step: str) -> None:
    title, _, count = step.partition(": ")  # which names the epoch again
    tell(Running(number, f"{place}, {count or title}"))


def task_maker(
    plan: Search, data: Dataset, ranks: Ranks
) -> Callable[[TrainConfig], tuple[Task, Classifier]]:
    """Give a function that makes a trial's task; trials of a head share the features."""
    preprocess = backbones.preprocess_for(plan.config)
    classes = len(data.classes)

    def whole(config: TrainConfig) -> tuple[Task, Classifier]:
        classifier = backbones.build_classifier(config, classes)
        classifier.to(ranks.device).to(memory_format=torch.channels_last)
        return make_task(classifier, data, preprocess, config, plan.folders, ranks), classifier

    if plan.config.unfreeze != "none":
        return whole
    classifier = whole(plan.config)[1]
    sources = feature_sources(classifier, data, preprocess, plan.config, plan.folders, ranks)

    def head(config: TrainConfig) -> tuple[Task, Classifier]:
        torch.manual_seed(config.seed)
        head_alone = Classifier(nn.Identity(), classifier.head.in_features, classes, config.dropout)
        head_alone.to(ranks.device)
        return head_task(head_alone, sources, config, ranks), head_alone

    return head


def suggest(trial: optuna.Trial, searched: Mapping[str, Range | Choice]) -> dict[str, Any]:
    """Let the sampler choose a value of each hyperparameter that is searched for."""
    values: dict[str, Any] = {}
    for name, space in searched.items():
        if not isinstance(space, Range):
            values[name] = trial.suggest_categorical(name, space.values)
        elif space.integer:
            values[name] = trial.suggest_int(name, int(space.low), int(space.high), log=space.log)
        else:
            values[name] = trial.suggest_float(name, space.low, space.high, log=space.log)
    return values


def table(trials: Sequence[optuna.trial.FrozenTrial]) -> str:
    """Give the trials as CSV, a row each."""
    names = sorted({name for trial in trials for name in trial.params})
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        ["trial", "state", "valid_loss", "valid_accuracy", "epochs_run", "seconds", *names]
    )
    for trial in trials:
        seconds = trial.duration.total_seconds() if trial.duration else ""
        accuracy = trial.user_attrs.get("valid_accuracy", "")
        row = [
            trial.number,
            trial.state.name.lower(),
            trial.value,
            accuracy,
            trial.last_step,
            seconds,
        ]
        writer.writerow(row + [trial.params.get(name, "") for name in names])
    return text.getvalue()


def page(plan: Search, study: optuna.Study, best: TrainConfig) -> str:
    """Give a search as a page, with the trials that were pruned and those that failed."""
    names = {
        TrialState.COMPLETE: "complete",
        TrialState.PRUNED: "pruned",
        TrialState.FAIL: "failed",
    }
    trials = [
        search_page.Trial(
            trial.number,
            names[trial.state],
            trial.params,
            None if trial.state == TrialState.FAIL else trial.value,
            trial.user_attrs.get("valid_accuracy"),
            trial.last_step,
            trial.duration.total_seconds() if trial.duration else None,
        )
        for trial in study.get_trials(states=tuple(names))
        if plan.space.keys() <= trial.params.keys()  # not one that was killed as it began
    ]
    about = filter(None, (dataset_name(plan.folders.data), UNFROZEN[best.unfreeze]))
    return search_page.render(
        f"{best.backbone}: search",
        f"{', '.join(about)}; by Optuna: TPE, stopped early by successive halving",
        plan.space,
        trials,
        next(trial for trial in trials if trial.number == study.best_trial.number),
        best,
    )


def main() -> None:
    """Run the command line."""
    keep_large_blocks()
    parser = ArgumentParser(prog="trainer.tune", description="Search for hyperparameters.")
    parser.add_argument(
        "--trials", type=int, default=8, help="trials in all, earlier ones counted (default: 8)"
    )
    parser.add_argument("--parallel", type=int, default=1, help="trials at a time (default: 1)")
    parser.add_argument("--fresh", action="store_true", help="forget an earlier search's trials")
    add_folder_arguments(parser)
    configuration.add_arguments(parser)
    arguments = parser.parse_args()
    for flag in ("trials", "parallel"):
        if getattr(arguments, flag) < 1:
            raise UsageError(f"--{flag} takes a number of 1 or more")
    search(
        Search(
            configuration.from_arguments(arguments),
            folders_from(arguments),
            arguments.trials,
            arguments.parallel,
            configuration.given(arguments),
            arguments.fresh,
        )
    )


if __name__ == "__main__":
    run_command(main)
