"""Tuning jobs as a user of SageMaker sees them: searched, stopped, taken up again."""

import hashlib
import io
import math
import os
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
from botocore.exceptions import ClientError

from localaws.jobs.hosts import Cluster, TrainingHost
from localaws.jobs.ranges import read_space
from localaws.jobs.search import Observation, Search
from localaws.jobs.training_records import TrainingJob, jobs
from localaws.jobs.tuning_records import Ending, TuningJob
from localaws.jobs.tuning_trials import Trial
from tests.localaws.conftest import LocalAws, until
from tests.localaws.roles import create_role
from tests.localaws.test_jobs import KilledLocalAws
from trainer.jobs_tuning import STOP_ENVIRONMENT

# A trial is a shell script, which starts sooner than Python. Its only flag is `--x VALUE`.
SQUARE = """awk -v x="$2" 'BEGIN { print "loss=" (x - 0.5) ^ 2 }'"""
LINE = {"ContinuousParameterRanges": [{"Name": "x", "MinValue": "0", "MaxValue": "1"}]}
OBJECTIVE = {"Type": "Minimize", "MetricName": "loss"}


class Account:
    """A localaws with a bucket, and a role for trials."""

    def __init__(self, aws: LocalAws, name: str = "kennel") -> None:
        self.aws = aws
        self.bucket = name
        self.s3, self.sagemaker = aws.client("s3"), aws.client("sagemaker")
        self.role = create_role(aws.client("iam"), name, "sagemaker")
        self.s3.create_bucket(Bucket=self.bucket)

    def definition(self, script: str = SQUARE, **more: Any) -> dict[str, Any]:
        """Trials that run a shell script."""
        return {
            "AlgorithmSpecification": {
                "TrainingImage": "image",
                "TrainingInputMode": "File",
                "MetricDefinitions": [{"Name": "loss", "Regex": "loss=([0-9.e-]+)"}],
            },
            "StaticHyperParameters": {
                "sagemaker_program": "main.sh",
                "sagemaker_submit_directory": self.archive(script),
            },
            "RoleArn": self.role,
            "OutputDataConfig": {"S3OutputPath": "s3://kennel/jobs/"},
            "ResourceConfig": {
                "InstanceType": "ml.m5.large",
                "InstanceCount": 1,
                "VolumeSizeInGB": 1,
            },
            "StoppingCondition": {"MaxRuntimeInSeconds": 300},
            "CheckpointConfig": {"S3Uri": "s3://kennel/checkpoints/"},
            **more,
        }

    def create(self, name: str, script: str = SQUARE, **more: Any) -> None:
        """Start a tuning job over `LINE`; what else is given takes the place of the usual."""
        config = {
            "Strategy": "Bayesian",
            "HyperParameterTuningJobObjective": OBJECTIVE,
            "ResourceLimits": {"MaxNumberOfTrainingJobs": 2, "MaxParallelTrainingJobs": 1},
            "ParameterRanges": LINE,
            "RandomSeed": 7,
        }
        optional = ("StrategyConfig", "TrainingJobEarlyStoppingType", "TuningJobCompletionCriteria")
        for member in (*config, *optional):
            if member in more:
                config[member] = more.pop(member)
        given = {"TrainingJobDefinition": self.definition(script), **more}
        self.sagemaker.create_hyper_parameter_tuning_job(
            HyperParameterTuningJobName=name, HyperParameterTuningJobConfig=config, **given
        )

    def archive(self, script: str) -> str:
        """The archive of a script, as SageMaker's SDK uploads it."""
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w:gz") as archive:
            member = tarfile.TarInfo("main.sh")
            member.size = len(script)
            archive.addfile(member, io.BytesIO(script.encode()))
        digest = hashlib.sha256(script.encode()).hexdigest()
        self.s3.put_object(Bucket=self.bucket, Key=digest, Body=packed.getvalue())
        return f"s3://{self.bucket}/{digest}"

    def describe(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.sagemaker.describe_hyper_parameter_tuning_job(
            HyperParameterTuningJobName=name
        )
        return found

    def ended(self, name: str) -> dict[str, Any]:
        """What is told of a tuning job that has ended."""
        until(
            lambda: (
                self.describe(name)["HyperParameterTuningJobStatus"]
                not in ("InProgress", "Stopping")
            )
        )
        return self.describe(name)

    def trials(self, name: str, **how: Any) -> list[dict[str, Any]]:
        """All trials, on pages of two."""
        operation = "list_training_jobs_for_hyper_parameter_tuning_job"
        pages = self.sagemaker.get_paginator(operation).paginate(
            HyperParameterTuningJobName=name, MaxResults=2, **how
        )
        return [trial for page in pages for trial in page["TrainingJobSummaries"]]


def counted(told: dict[str, Any]) -> dict[str, int]:
    """How many trials there are of each status, where there are any."""
    counters = {**told["TrainingJobStatusCounters"], **told["ObjectiveStatusCounters"]}
    return {status: count for status, count in counters.items() if count}


def choices(*values: str) -> dict[str, Any]:
    return {"CategoricalParameterRanges": [{"Name": "x", "Values": list(values)}]}


def limits(most: int | None, parallel: int = 1) -> dict[str, int]:
    return {
        "MaxParallelTrainingJobs": parallel,
        **({} if most is None else {"MaxNumberOfTrainingJobs": most}),
    }


def parents(kind: str, *names: str) -> dict[str, Any]:
    return {
        "WarmStartType": kind,
        "ParentHyperParameterTuningJobs": [{"HyperParameterTuningJobName": name} for name in names],
    }


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Account]:
    """AWS's own waits are short in it."""
    aws = KilledLocalAws(tmp_path_factory.mktemp("localaws"), "--time-scale", "240")
    yield Account(aws)
    aws.stop()


@pytest.fixture(scope="module")
def former(account: Account) -> dict[str, Any]:
    """A search that has ended: 4 trials, 2 at a time."""
    tags = [{"Key": "project", "Value": "kennel"}]
    account.create("former", ResourceLimits=limits(4, 2), Tags=tags)
    return account.ended("former")


def test_a_search_runs_its_trials_and_tells_the_best(
    account: Account, former: dict[str, Any]
) -> None:
    assert former["HyperParameterTuningJobStatus"] == "Completed"
    assert counted(former) == {"Completed": 4, "Succeeded": 4}
    assert former["HyperParameterTuningJobConfig"]["ParameterRanges"] == LINE
    assert former["TrainingJobDefinition"]["RoleArn"] == account.role
    assert former["ConsumedResources"]["RuntimeInSeconds"] >= 1
    assert former["HyperParameterTuningEndTime"] == former["LastModifiedTime"]
    assert "OverallBestTrainingJob" not in former

    trials = account.trials("former", SortBy="FinalObjectiveMetricValue", SortOrder="Descending")
    for trial in trials:
        x = trial["TunedHyperParameters"]["x"]
        final = trial["FinalHyperParameterTuningJobObjectiveMetric"]
        assert 0 <= float(x) <= 1
        assert final == {**OBJECTIVE, "Value": pytest.approx((float(x) - 0.5) ** 2, rel=1e-3)}
        assert (trial["TrainingJobStatus"], trial["ObjectiveStatus"]) == ("Completed", "Succeeded")
    losses = [trial["FinalHyperParameterTuningJobObjectiveMetric"]["Value"] for trial in trials]
    assert losses == sorted(losses, reverse=True)
    assert former["BestTrainingJob"] == trials[-1]
    starts = sorted((trial["TrainingStartTime"], trial["TrainingEndTime"]) for trial in trials)
    assert starts[1][0] < starts[0][1], "two ran at a time"

    names = [trial["TrainingJobName"] for trial in account.trials("former")]
    assert names == sorted(names)
    assert [name[:11] for name in names] == [f"former-00{number}-" for number in range(1, 5)]
    assert account.trials("former", StatusEquals="Failed") == []


def test_a_trial_is_a_training_job_with_the_chosen_values(
    account: Account, former: dict[str, Any]
) -> None:
    best = former["BestTrainingJob"]
    job = account.sagemaker.describe_training_job(TrainingJobName=best["TrainingJobName"])
    assert job["TuningJobArn"] == former["HyperParameterTuningJobArn"]
    assert job["HyperParameters"] == {
        **former["TrainingJobDefinition"]["StaticHyperParameters"],
        **best["TunedHyperParameters"],
        "_tuning_objective_metric": "loss",
    }
    assert job["ResourceConfig"] == former["TrainingJobDefinition"]["ResourceConfig"]
    # Or one trial would go on from another's.
    assert job["CheckpointConfig"]["S3Uri"] == f"s3://kennel/checkpoints/{job['TrainingJobName']}"
    tags = account.sagemaker.list_tags(ResourceArn=job["TrainingJobArn"])["Tags"]
    assert tags == [{"Key": "project", "Value": "kennel"}]
    arn = former["HyperParameterTuningJobArn"]
    assert account.sagemaker.list_tags(ResourceArn=arn)["Tags"] == tags


def test_a_warm_start_counts_the_former_search(account: Account, former: dict[str, Any]) -> None:
    far = {"ContinuousParameterRanges": [{"Name": "x", "MinValue": "10", "MaxValue": "11"}]}
    account.create(
        "warm",
        ResourceLimits=limits(1),
        ParameterRanges=far,
        WarmStartConfig=parents("IdenticalDataAndAlgorithm", "former"),
    )
    told = account.ended("warm")
    assert told["OverallBestTrainingJob"] == former["BestTrainingJob"]
    assert float(told["BestTrainingJob"]["TunedHyperParameters"]["x"]) >= 10


def test_each_definition_has_its_ranges_and_all_combinations_are_tried(account: Account) -> None:
    definitions = [
        account.definition(
            DefinitionName=name,
            TuningObjective=OBJECTIVE,
            HyperParameterRanges=choices(*values),
            HyperParameterTuningResourceConfig={
                "InstanceConfigs": [
                    {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 2}
                ]
            },
        )
        for name, values in (("near", ("0.4", "0.6")), ("far", ("0.1",)))
    ]
    account.sagemaker.create_hyper_parameter_tuning_job(
        HyperParameterTuningJobName="grid",
        HyperParameterTuningJobConfig={"Strategy": "Grid", "ResourceLimits": limits(None, 3)},
        TrainingJobDefinitions=definitions,
    )
    told = account.ended("grid")
    assert counted(told) == {"Completed": 3, "Succeeded": 3}
    assert [found["DefinitionName"] for found in told["TrainingJobDefinitions"]] == ["near", "far"]
    tried = {
        (trial["TrainingJobDefinitionName"], trial["TunedHyperParameters"]["x"])
        for trial in account.trials("grid")
    }
    assert tried == {("near", "0.4"), ("near", "0.6"), ("far", "0.1")}
    assert told["BestTrainingJob"]["TrainingJobDefinitionName"] == "near"
    job = account.sagemaker.describe_training_job(
        TrainingJobName=told["BestTrainingJob"]["TrainingJobName"]
    )
    assert job["ResourceConfig"]["VolumeSizeInGB"] == 2


def test_a_trial_that_lags_is_stopped_early(account: Account) -> None:
    script = 'echo "loss=$2"; [ "$2" = 0.1 ] || sleep 600'
    account.create(
        "early",
        script,
        Strategy="Grid",
        ParameterRanges=choices("0.1", "0.9"),
        TrainingJobEarlyStoppingType="Auto",
    )
    assert counted(account.ended("early")) == {"Completed": 1, "Stopped": 1, "Succeeded": 2}
    lagging = account.trials("early", SortBy="CreationTime", SortOrder="Descending")[0]
    assert lagging["TrainingJobStatus"] == "Stopped"
    assert lagging["FinalHyperParameterTuningJobObjectiveMetric"]["Value"] == 0.9


HEARS = """
import signal, sys, time
def end(*_):
    print("saved")
    sys.exit("error: stopped by SIGTERM")
signal.signal(signal.SIGTERM, end)
print("ready", flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize(("environment", "is_heard"), [({}, False), (STOP_ENVIRONMENT, True)])
def test_a_stop_reaches_a_trial_that_the_shell_lets_it_reach(
    tmp_path: Path, environment: Mapping[str, str], is_heard: bool
) -> None:
    """A trial's first process is a shell, as in AWS's images, and hears nothing by itself."""
    host = TrainingHost(tmp_path / "ml", Cluster((("group", "ml.m5.large"),), 1), 0)
    (tmp_path / "ml/code/run_train.py").write_text(HEARS)
    request = {
        "AlgorithmSpecification": {"TrainingImage": "image"},
        "Environment": environment,
        "HyperParameters": {"sagemaker_program": "run_train.py"},
    }
    with host:
        host.start(request, {**os.environ, "TRAINING_JOB_NAME": f"trial-{os.getpid()}"})
        said: list[str] = []

        def says(word: str) -> bool:
            said.extend(host.lines(final=False))
            return word in said

        until(lambda: says("ready"))
        assert host.terminate() is is_heard
        if is_heard:
            until(lambda: host.exit_code is not None)
            assert host.exit_code == 1
            assert says("saved")
        else:
            assert host.exit_code is None
    assert all(len(value) <= 512 for value in environment.values()), "SageMaker takes no more"


def test_hyperband_stops_a_trial_after_the_most_epochs(account: Account) -> None:
    account.create(
        "hyperband",
        "echo loss=0.5; echo loss=0.4; sleep 600",
        Strategy="Hyperband",
        StrategyConfig={"HyperbandStrategyConfig": {"MaxResource": 1}},
        ResourceLimits=limits(1),
    )
    assert counted(account.ended("hyperband")) == {"Stopped": 1, "Succeeded": 1}


def test_a_search_ends_where_its_target_is_reached(account: Account) -> None:
    account.create(
        "target",
        Strategy="Grid",
        ResourceLimits=limits(3),
        ParameterRanges=choices("0.5", "0.6", "0.7"),
        TuningJobCompletionCriteria={"TargetObjectiveMetricValue": 0.001},
    )
    told = account.ended("target")
    assert told["HyperParameterTuningJobStatus"] == "Completed"
    assert counted(told) == {"Completed": 1, "Succeeded": 1}


@pytest.mark.parametrize(
    ("script", "counters", "reason"),
    [
        (
            "exit 3",
            {"NonRetryableError": 1, "Failed": 1},
            "No training job succeeded after 1 attempts",
        ),
        (
            "echo loss=unknown",
            {"Completed": 1, "Failed": 1},
            "No objective metrics found after running 1 training jobs",
        ),
    ],
)
def test_a_search_without_results_has_failed(
    account: Account, script: str, counters: dict[str, int], reason: str
) -> None:
    name = f"without-{counters['Failed']}-{len(script)}"
    account.create(name, script, ResourceLimits=limits(1))
    told = account.ended(name)
    assert told["HyperParameterTuningJobStatus"] == "Failed"
    assert told["FailureReason"].startswith(reason)
    assert counted(told) == counters
    assert "BestTrainingJob" not in told


def test_a_search_that_is_stopped_stops_its_trials(account: Account) -> None:
    account.create("stopped", "sleep 600", ResourceLimits=limits(4, 2))
    until(lambda: counted(account.describe("stopped")).get("InProgress") == 2)
    with pytest.raises(ClientError, match="Only one that has ended can be deleted"):
        account.sagemaker.delete_hyper_parameter_tuning_job(HyperParameterTuningJobName="stopped")
    account.sagemaker.stop_hyper_parameter_tuning_job(HyperParameterTuningJobName="stopped")
    assert account.describe("stopped")["HyperParameterTuningJobStatus"] == "Stopping"
    told = account.ended("stopped")
    assert told["HyperParameterTuningJobStatus"] == "Stopped"
    assert counted(told) == {"Stopped": 2, "Failed": 2}
    with pytest.raises(ClientError, match="is in status Stopped"):
        account.sagemaker.stop_hyper_parameter_tuning_job(HyperParameterTuningJobName="stopped")

    trial = account.trials("stopped")[0]["TrainingJobName"]
    account.sagemaker.delete_hyper_parameter_tuning_job(HyperParameterTuningJobName="stopped")
    with pytest.raises(account.sagemaker.exceptions.ResourceNotFound):
        account.describe("stopped")
    kept = account.sagemaker.describe_training_job(TrainingJobName=trial)
    assert kept["TrainingJobStatus"] == "Stopped"


def test_a_search_goes_on_after_localaws_was_killed(account: Account) -> None:
    aws = account.aws
    assert isinstance(aws, KilledLocalAws)
    values = ("0.4", "forever", "0.5")
    account.create(
        "killed",
        f'[ "$2" = forever ] && sleep 600; {SQUARE}',
        Strategy="Grid",
        ResourceLimits=limits(3),
        ParameterRanges=choices(*values),
    )

    def waits_forever() -> bool:
        trials = {
            trial["TunedHyperParameters"]["x"]: trial["TrainingJobName"]
            for trial in account.trials("killed")
        }
        return "forever" in trials and aws.has_saved(trials["forever"])

    until(waits_forever)
    aws.kill()
    aws.restart()
    assert account.describe("killed")["HyperParameterTuningJobStatus"] == "InProgress"
    # It has checkpoints: it would go on, and wait again.
    [lasting] = account.trials("killed", StatusEquals="InProgress")
    account.sagemaker.stop_training_job(TrainingJobName=lasting["TrainingJobName"])
    told = account.ended("killed")
    assert told["HyperParameterTuningJobStatus"] == "Completed"
    assert counted(told) == {"Completed": 2, "Stopped": 1, "Succeeded": 2, "Failed": 1}
    trials = account.trials("killed", SortBy="CreationTime")
    assert [trial["TunedHyperParameters"]["x"] for trial in trials] == list(values)
    assert told["BestTrainingJob"]["TunedHyperParameters"] == {"x": "0.5"}


def test_tuning_jobs_are_listed(account: Account, former: dict[str, Any]) -> None:
    listed = account.sagemaker.list_hyper_parameter_tuning_jobs(
        NameContains="form", CreationTimeAfter=former["CreationTime"] - timedelta(seconds=1)
    )["HyperParameterTuningJobSummaries"]
    assert [found["HyperParameterTuningJobName"] for found in listed] == ["former"]
    assert listed[0]["Strategy"] == "Bayesian"
    assert counted(listed[0]) == counted(former)
    later = account.sagemaker.list_hyper_parameter_tuning_jobs(
        CreationTimeAfter=former["CreationTime"] + timedelta(days=1)
    )
    assert later["HyperParameterTuningJobSummaries"] == []


NUMBERS = {"Name": "x", "MinValue": "0", "MaxValue": "1"}


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"Autotune": {"Mode": "Enabled"}}, "localaws has no Autotune"),
        ({"ParameterRanges": {}}, "At least one hyperparameter range must be given"),
        (
            {"ParameterRanges": {"ContinuousParameterRanges": [NUMBERS, NUMBERS]}},
            "more than one range",
        ),
        (
            {"ParameterRanges": {"IntegerParameterRanges": [{**NUMBERS, "MinValue": "0.5"}]}},
            "MinValue of x must be a finite integer",
        ),
        (
            {"ParameterRanges": {"ContinuousParameterRanges": [{**NUMBERS, "MaxValue": "0"}]}},
            "MinValue of x must be less than its MaxValue",
        ),
        (
            {
                "ParameterRanges": {
                    "ContinuousParameterRanges": [{**NUMBERS, "ScalingType": "Logarithmic"}]
                }
            },
            "a logarithmic scale needs values greater than 0",
        ),
        (
            {
                "ParameterRanges": {
                    "ContinuousParameterRanges": [{**NUMBERS, "ScalingType": "ReverseLogarithmic"}]
                }
            },
            "within 0 <= x < 1",
        ),
        ({"ParameterRanges": choices("a", "a")}, "must differ"),
        (
            {"ParameterRanges": choices("a", "b"), "ResourceLimits": limits(3)},
            r"provided ranges \[2.0\] must be equal or greater than .* \[3\]",
        ),
        ({"Strategy": "Grid"}, "categorical ranges only"),
        (
            {
                "Strategy": "Grid",
                "ParameterRanges": choices("a", "b"),
                "ResourceLimits": limits(1),
            },
            "must be the number of combinations, 2",
        ),
        (
            {"Strategy": "Hyperband", "TrainingJobEarlyStoppingType": "Auto"},
            "TrainingJobEarlyStoppingType must be Off",
        ),
        ({"Strategy": "Hyperband"}, "needs MaxResource"),
        ({"Strategy": "Guess"}, "1 validation error detected: Value 'Guess'"),
        (
            {"HyperParameterTuningJobObjective": {"Type": "Minimize", "MetricName": "accuracy"}},
            "A metric is required for this hyperparameter tuning job objective",
        ),
        ({"WarmStartConfig": parents("TransferLearning", "nobody")}, "there is no hyperparameter"),
        (
            {
                "WarmStartConfig": parents("TransferLearning", "former"),
                "HyperParameterTuningJobObjective": {"Type": "Maximize", "MetricName": "loss"},
            },
            "the objective metric of former is another one",
        ),
        (
            {
                "WarmStartConfig": parents("TransferLearning", "former"),
                "ParameterRanges": {"ContinuousParameterRanges": [{**NUMBERS, "Name": "y"}]},
            },
            "the names of all hyperparameters",
        ),
    ],
)
def test_what_cannot_be_searched_is_refused(
    account: Account, former: dict[str, Any], more: dict[str, Any], message: str
) -> None:
    with pytest.raises(ClientError, match=message) as refused:
        account.create("refused", **more)
    assert refused.value.response["Error"]["Code"] == "ValidationException"


@pytest.mark.parametrize(
    ("member", "count", "quota"),
    [
        ("MaxNumberOfTrainingJobs", 751, 750),
        ("MaxParallelTrainingJobs", 101, 100),
    ],
)
def test_a_search_beyond_the_quotas_is_refused(
    account: Account, member: str, count: int, quota: int
) -> None:
    with pytest.raises(ClientError, match=f"is {quota}, with a request of {count}") as refused:
        account.create("refused", ResourceLimits={**limits(1), member: count})
    assert refused.value.response["Error"]["Code"] == "ResourceLimitExceeded"


def test_a_definition_that_no_trial_could_have_is_refused(
    account: Account, former: dict[str, Any]
) -> None:
    algorithm = account.definition()["AlgorithmSpecification"] | {"TrainingImage": "newer"}
    warm = {"WarmStartConfig": parents("IdenticalDataAndAlgorithm", "former")}
    nobody = "arn:aws:iam::123456789012:role/nobody"
    refusals: list[tuple[dict[str, Any], dict[str, Any], str]] = [
        ({"StaticHyperParameters": {"x": "1"}}, {}, "both static and searched for: x"),
        ({"EnableManagedSpotTraining": True}, {}, "Invalid MaxWaitTimeInSeconds"),
        ({"RoleArn": nobody}, {}, "Could not assume role"),
        ({"AlgorithmSpecification": algorithm}, warm, "the training image of former is another"),
        ({}, {"TrainingJobDefinitions": [account.definition()]}, "must be given, and not both"),
    ]
    for different, more, message in refusals:
        definition = account.definition(**different)
        with pytest.raises(ClientError, match=message):
            account.create("refused", TrainingJobDefinition=definition, **more)
    with pytest.raises(account.sagemaker.exceptions.ResourceInUse):
        account.create("former")


def test_where_records_are_kept_only_there_are_no_trials(aws: LocalAws) -> None:
    account = Account(aws, "kennel-tuning")
    account.create("recorded", Tags=[{"Key": "project", "Value": "kennel"}])
    told = account.describe("recorded")
    assert told["HyperParameterTuningJobStatus"] == "Completed"
    assert told["TrainingJobDefinition"]["RoleArn"] == account.role
    assert account.trials("recorded") == []
    # Other tests look at what there is.
    account.sagemaker.delete_hyper_parameter_tuning_job(HyperParameterTuningJobName="recorded")


SPACE = read_space(
    {
        "ContinuousParameterRanges": [
            {"Name": "rate", "MinValue": "1e-5", "MaxValue": "1e-1", "ScalingType": "Auto"},
            {"Name": "momentum", "MinValue": "0", "MaxValue": "0.999"}
            | {"ScalingType": "ReverseLogarithmic"},
        ],
        "IntegerParameterRanges": [{"Name": "epochs", "MinValue": "1", "MaxValue": "9"}],
        "CategoricalParameterRanges": [{"Name": "colour", "Values": ["red", "green"]}],
    }
)


def badness(values: Mapping[str, str]) -> float:
    return (
        (math.log10(float(values["rate"])) + 3) ** 2 / 4
        + (int(values["epochs"]) / 9 - 0.3) ** 2 * 4
        + (0.3 if values["colour"] == "red" else 0)
    )


def searched(search: Search, count: int, former: Sequence[Observation] = ()) -> list[Observation]:
    """A search's trials, one after another."""
    trials: list[Observation] = []
    for _ in range(count):
        values = search.propose([*former, *trials])
        trials.append(Observation(values, [], "Completed", badness(values)))
    return trials


def best(trials: Sequence[Observation]) -> float:
    return min(trial.result for trial in trials if trial.result is not None)


def test_what_is_proposed_lies_in_the_space_on_its_scale() -> None:
    trials = searched(Search("Random", SPACE, minimize=True, seed=3), 40)
    rates = [float(trial.values["rate"]) for trial in trials]
    momenta = [float(trial.values["momentum"]) for trial in trials]
    assert all(1e-5 <= rate <= 1e-1 for rate in rates)
    assert all(0 <= momentum <= 0.999 for momentum in momenta)
    assert {trial.values["epochs"] for trial in trials} == {str(number) for number in range(1, 10)}
    assert {trial.values["colour"] for trial in trials} == {"red", "green"}
    # On linear scales, one in a hundred would be there.
    assert sum(rate < 1e-3 for rate in rates) > 10
    assert sum(momentum > 0.99 for momentum in momenta) > 7
    again = searched(Search("Random", SPACE, minimize=True, seed=3), 40)
    assert again == trials


def test_learning_beats_chance_and_a_former_search_helps() -> None:
    def mean(strategy: str, count: int, former: Sequence[Observation] = ()) -> float:
        searches = [Search(strategy, SPACE, minimize=True, seed=1000 * seed) for seed in range(5)]
        return fmean(best(searched(search, count, former)) for search in searches)

    assert mean("Bayesian", 20) < mean("Random", 20)
    former = searched(Search("Bayesian", SPACE, minimize=True, seed=1), 20)
    # What is not in the space, such as another search's values, is passed over.
    former += [Observation({"rate": "7"}, [], "Completed", -1.0)]
    assert mean("Bayesian", 4, former) < mean("Bayesian", 4)


def test_trials_that_run_are_not_tried_again() -> None:
    space = read_space(choices("a", "b", "c", "d"))
    search = Search("Bayesian", space, minimize=False, seed=1)
    trials: list[Observation] = []
    for _ in range(4):
        trials.append(Observation(search.propose(trials), [], "InProgress"))
    assert {trial.values["x"] for trial in trials} == {"a", "b", "c", "d"}


def progress(*values: float) -> Observation:
    return Observation({"x": "0.5"}, values, "Completed", values[-1] if values else None)


@pytest.mark.parametrize(
    ("mine", "lags"), [((0.9,), True), ((0.9, 0.7), True), ((0.9, 0.6), False), ((), False)]
)
def test_early_stopping_is_the_median_rule(mine: tuple[float, ...], lags: bool) -> None:
    """Running averages after two epochs: 0.35, 0.65 and 0.85."""
    others = [progress(0.5, 0.2), progress(0.7, 0.6), progress(0.9, 0.8), progress(0.1)]
    search = Search("Bayesian", read_space(LINE), minimize=True)
    assert search.lags(progress(*mine), others) is lags
    upside_down = [progress(*(-value for value in other.progress)) for other in others]
    search = replace(search, minimize=False)
    assert search.lags(progress(*(-value for value in mine)), upside_down) is lags
    assert not search.lags(progress(*mine), [])


def test_hyperband_drops_the_worse_at_each_rung() -> None:
    search = Search("Hyperband", read_space(LINE), minimize=True, resource=(1, 27))
    good, bad = [0.1] * 9, [0.9] * 9
    trials = [progress(*(good if number % 3 else bad)) for number in range(24)]
    dropped = [search.drops(number, trials) for number in range(24)]
    assert any(dropped)
    assert not any(dropped[number] for number in range(24) if number % 3)
    assert search.drops(0, [progress(*[0.1] * 28)]), "it goes beyond the most epochs"
    assert not search.drops(0, [progress()])


def test_a_search_ends_by_its_time_and_by_what_it_finds() -> None:
    with records("kennel") as job:
        job.judge()
        assert job.ending is None
        job.creation_time -= timedelta(seconds=121)
        job.judge()
        assert job.ending == Ending("Stopped")
    criteria = {"BestObjectiveNotImproving": {"MaxNumberOfTrainingJobsNotImproving": 3}}
    with records("kennel", 1.0, 0.5, 0.497, 0.6, criteria=criteria) as job:
        job.judge()
        assert job.ending is None
        assert job.describe()["TuningJobCompletionDetails"] == {
            "NumberOfTrainingJobsObjectiveNotImproving": 2
        }
    with records("kennel", 1.0, 0.5, 0.497, 0.6, 0.499, criteria=criteria) as job:
        job.judge()
        assert job.ending == Ending("Completed")
    converged = {"ConvergenceDetected": {"CompleteOnConvergence": "Enabled"}}
    with records("kennel", *[0.5] * 11, criteria=converged) as job:
        job.judge()
        assert job.ending == Ending("Completed")
        assert "ConvergenceDetectedTime" in job.describe()["TuningJobCompletionDetails"]


@contextmanager
def records(name: str, *losses: float, criteria: Any = None) -> Iterator[TuningJob]:
    """The record of a tuning job whose trials have ended, one after another."""
    config = {
        "Strategy": "Random",
        "ParameterRanges": LINE,
        "HyperParameterTuningJobObjective": OBJECTIVE,
        "ResourceLimits": {**limits(99), "MaxRuntimeInSeconds": 120},
        "TuningJobCompletionCriteria": criteria or {},
    }
    given = {"RoleArn": "role", "OutputDataConfig": {"S3OutputPath": "s3://kennel"}}
    job = TuningJob(
        {
            "HyperParameterTuningJobName": name,
            "HyperParameterTuningJobConfig": config,
            "TrainingJobDefinition": given,
        }
    )
    for number, loss in enumerate(losses):
        trial = Trial(f"{name}-{number}", None, OBJECTIVE, {"x": "0.5"})
        job.trials.append(trial)
        request = job.definitions[0].training_job(trial.name, trial.tuned, [])
        jobs()[trial.name] = trained = TrainingJob(request, job.arn)
        trained.final_metrics["loss"] = {"Value": loss}
        trained.end("Completed")
    yield job
    for trial in job.trials:
        del jobs()[trial.name]
