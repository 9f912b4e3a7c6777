"""Runs hyperparameter tuning jobs: training jobs whose hyperparameters a search chooses."""

import threading
import traceback
from collections.abc import Mapping
from math import isfinite
from uuid import uuid4

from localaws import regions
from localaws.execution import Execution, RoleError, Service
from localaws.jobs.ranges import combination
from localaws.jobs.training import TrainingJobs
from localaws.jobs.tuning_records import Ending, TuningJob, keep, tuning_jobs
from localaws.jobs.tuning_trials import Definition, Trial

_SERVICE = "sagemaker.amazonaws.com"
_POLL_SECONDS = 0.2


class TuningJobs(Service):
    """Runs the tuning jobs that were created through SageMaker, each in a thread of its own."""

    def __init__(self, execution: Execution) -> None:
        """Make the service; nothing runs yet."""
        super().__init__(execution)
        self._leaving = threading.Event()
        self._changing_status = threading.Lock()
        self._runs: list[threading.Thread] = []

    def create(self, job: TuningJob) -> None:
        """Keep a tuning job and start it.

        Raises:
            RoleError: SageMaker cannot act under the role of its trials.
            ResourceInUseException: There is one of that name.
        """
        for definition in job.definitions:
            self.execution.credentials(definition.given["RoleArn"], _SERVICE, "SageMaker")
        with self.execution.changing():
            keep(job)
        self._start(job)

    def stop_job(self, job: TuningJob) -> None:
        """Let a tuning job and its trials end; it is `Stopping` when this returns."""
        with self.execution.changing(), self._changing_status:
            if not job.ended:
                job.stop()

    def resume(self) -> None:
        """Go on with all searches; `TrainingJobs` has taken up their trials already."""
        for job in tuning_jobs().values():
            if not job.ended:
                self._start(job)

    def stop(self) -> None:
        """End all searches; the records go on saying that they run."""
        self._leaving.set()
        for run in self._runs:
            run.join()

    def _start(self, job: TuningJob) -> None:
        if self._leaving.is_set():
            return  # It is resumed when localaws is back.
        name = job.hyper_parameter_tuning_job_name
        run = regions.Thread(target=self._run, args=(job,), name=name, daemon=True)
        self._runs.append(run)
        run.start()

    def _run(self, job: TuningJob) -> None:
        search = _Run(self.execution, job)
        while not job.ended and not self._leaving.wait(_POLL_SECONDS):
            try:
                search.go_on()
            except RoleError as error:
                self._give_up(job, f"ClientError: {error}")
            except Exception as error:
                traceback.print_exc()
                self._give_up(job, f"InternalServerError: {error}")
            if job.ending and not job.running:
                self._end(job, job.ending)

    def _give_up(self, job: TuningJob, reason: str) -> None:
        with self.execution.changing():
            job.ending = Ending("Failed", reason)

    def _end(self, job: TuningJob, ending: Ending) -> None:
        with self.execution.changing(), self._changing_status:
            job.end(ending)


class _Run:
    """One tuning job while it runs."""

    def __init__(self, execution: Execution, job: TuningJob) -> None:
        self._execution = execution
        self._training = execution.service(TrainingJobs)
        self._job = job
        # What a trial wrote before localaws ended is known from the record only.
        self._followed = {trial.name: list(trial.progress) for trial in job.running}
        self._judged: dict[str, int] = {}

    def go_on(self) -> None:
        """Take up what the trials have done, end those that lag, and start new ones."""
        with self._execution.changing():
            for trial in self._job.trials:
                self._follow(trial)
            self._job.judge()
        for trial in self._job.running:
            is_over = self._job.ending or self._is_not_worth_it(trial)
            if is_over and not trial.is_stopping:
                self._training.stop_job(trial.name)
        parallel = self._job.config["ResourceLimits"]["MaxParallelTrainingJobs"]
        while len(self._job.running) < parallel and (found := self._job.next_definition()):
            self._start_trial(found)

    def _follow(self, trial: Trial) -> None:
        """Take up the objective of the epochs since the last time."""
        if trial.name not in self._followed:
            return
        # Asked before its values are read, so that none is missed.
        ended = not trial.runs
        values = self._training.values(trial.name).get(trial.objective["MetricName"], [])
        trial.progress = [*self._followed[trial.name], *filter(isfinite, values)]
        if ended:
            del self._followed[trial.name]

    def _is_not_worth_it(self, trial: Trial) -> bool:
        """Whether a trial shall end early; asked once after each of its epochs."""
        if self._judged.get(trial.name, 0) == len(trial.progress):
            return False
        self._judged[trial.name] = len(trial.progress)
        definition = next(
            found for found in self._job.definitions if found.name == trial.definition
        )
        trials = self._job.trials_of(definition)
        if definition.strategy == "Hyperband":
            observed = [found.observe() for found in trials]
            return definition.search(None).drops(trials.index(trial), observed)
        if self._job.config.get("TrainingJobEarlyStoppingType", "Off") == "Off":
            return False
        ended = [found.observe() for found in trials if not found.runs]
        return definition.search(None).lags(trial.observe(), ended)

    def _start_trial(self, definition: Definition) -> None:
        tuned = self._choose(definition)
        number = len(self._job.trials) + 1
        name = f"{self._job.hyper_parameter_tuning_job_name}-{number:03}-{uuid4().hex[:8]}"
        trial = Trial(name, definition.name, definition.objective, tuned)
        request = definition.training_job(name, tuned, self._job.tags)
        # One change: a saved state has both, or neither.
        with self._execution.changing():
            self._training.create(request, self._job.arn)
            self._job.trials.append(trial)
            self._followed[name] = []

    def _choose(self, definition: Definition) -> Mapping[str, str]:
        own = self._job.trials_of(definition)
        if definition.strategy == "Grid":
            return combination(definition.space, len(own))
        former = [trial for trial in self._job.former if trial.definition == definition.name]
        search = definition.search(self._job.config.get("RandomSeed"))
        return search.propose([trial.observe() for trial in [*former, *own]])
