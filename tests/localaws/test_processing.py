"""Processing jobs as a user of SageMaker sees them: from S3, through a program, to S3."""

import json
import os
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from localaws.jobs import processing
from localaws.jobs.hosts import Cluster, HostError
from localaws.jobs.processing import has_views
from tests.localaws.conftest import LocalAws, until
from tests.localaws.job_account import JobAccount

GROUP = "/aws/sagemaker/ProcessingJobs"
CODE = "/opt/ml/processing/input/code"
OUT = "/opt/ml/processing/out"
PRELUDE = """
import json, os, socket, sys, time
from pathlib import Path
out = Path(sys.argv[1]) if len(sys.argv) > 1 else None
"""

# What a script names itself is its own folder only where the machine allows such a view.
needs_views = pytest.mark.skipif(
    not has_views(), reason="this machine allows no mount namespaces (unshare --user --mount)"
)


def source(name: str, uri: str, path: str, **more: str) -> dict[str, Any]:
    kind = {"S3DataType": "S3Prefix", "S3InputMode": "File", **more}
    return {"InputName": name, "S3Input": {"S3Uri": uri, "LocalPath": path, **kind}}


def target(name: str, mode: str = "EndOfJob", path: str = OUT) -> dict[str, Any]:
    output = {"S3Uri": f"s3://kennel/out/{name}", "LocalPath": path, "S3UploadMode": mode}
    return {"OutputName": "out", "S3Output": output}


class Account(JobAccount):
    """A localaws with a bucket, and a role for jobs."""

    def __init__(self, aws: LocalAws) -> None:
        super().__init__(aws, "processing", GROUP)

    def create(self, name: str, script: str, hosts: int = 1, **more: Any) -> None:
        """Start a job that runs Python code, which knows the folder of its output as `out`."""
        self.put(f"code/{name}/main.py", (PRELUDE + textwrap.dedent(script)).encode())
        inputs = [source("code", f"s3://kennel/code/{name}", CODE), *more.pop("Inputs", [])]
        program = {
            "ImageUri": "683313688378.dkr.ecr.us-east-1.amazonaws.com/sagemaker-scikit-learn:1.2-1",
            "ContainerEntrypoint": ["python3", f"{CODE}/main.py"],
            "ContainerArguments": [OUT],
        }
        self.sagemaker.create_processing_job(
            **{
                "ProcessingJobName": name,
                "RoleArn": self.role,
                "AppSpecification": program,
                "ProcessingInputs": inputs,
                "ProcessingOutputConfig": {"Outputs": [target(name)]},
                "ProcessingResources": {
                    "ClusterConfig": {
                        "InstanceCount": hosts,
                        "InstanceType": "ml.m5.large",
                        "VolumeSizeInGB": 1,
                        **more.pop("Cluster", {}),
                    }
                },
                **more,
            }
        )

    def describe(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.sagemaker.describe_processing_job(ProcessingJobName=name)
        return found

    def ended(self, name: str) -> dict[str, Any]:
        return until(
            lambda: self.describe(name),
            lambda told: told["ProcessingJobStatus"] not in ("InProgress", "Stopping"),
        )

    def texts(self, name: str) -> dict[str, str]:
        """What a job has left, by what follows its prefix."""
        return {key: content.decode() for key, content in self.results(name).items()}

    def by_host(self, name: str) -> dict[str, list[str]]:
        """A job's messages by host."""
        return {stream.rpartition("-")[0]: lines for stream, lines in self.log(name).items()}


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Account]:
    """AWS's own waits are short in it; its folder's name has a space, as a user's may."""
    aws = LocalAws(tmp_path_factory.mktemp("local aws"), "--time-scale", "120")
    yield Account(aws)
    aws.stop()


@needs_views
def test_a_job_runs_from_its_inputs_to_its_outputs(account: Account) -> None:
    for key in ("a.txt", "b/b.txt", "c.txt"):
        account.put(f"data/{key}", key.encode())
    listed = [{"prefix": "s3://kennel/data/"}, "c.txt"]
    account.put("lists/c.json", json.dumps(listed).encode())
    script = """
        place = Path("/opt/ml/processing")
        config, resources = (json.loads(Path(f"/opt/ml/config/{name}.json").read_text())
                             for name in ("processingjobconfig", "resourceconfig"))
        me = resources["current_host"]
        found = sorted(str(p.relative_to(place)) for p in place.rglob("*.txt"))
        # The hosts find each other by their names.
        hosts = [socket.gethostbyname(name) for name in resources["hosts"]]
        told = {"config": config, "found": found, "environment": dict(os.environ),
                "resources": resources, "addresses": len(set(hosts))}
        (place / f"out/of/{me}").parent.mkdir(exist_ok=True)
        (place / f"out/of/{me}").write_text(json.dumps(told))
        (place / "out/link").symlink_to("/etc/hostname")
        Path("/opt/ml/output/message").write_text(f"{me} is done. ")
        print("worked")
    """
    account.create(
        "whole", script, hosts=2,
        Environment={"COLOUR": "blue", "PLACE": OUT},
        Inputs=[
            source("all", "s3://kennel/data", "/opt/ml/processing/all"),
            source(
                "shared", "s3://kennel/data/", "/opt/ml/processing/shared",
                S3DataDistributionType="ShardedByS3Key",
            ),
            source(
                "listed", "s3://kennel/lists/c.json", "/opt/ml/processing/listed",
                S3DataType="ManifestFile",
            ),
        ],
    )  # fmt: skip
    told = account.ended("whole")
    assert told["ProcessingJobStatus"] == "Completed", told
    assert told["CreationTime"] <= told["ProcessingStartTime"] <= told["ProcessingEndTime"]
    assert told["ExitMessage"] == "algo-1 is done. algo-2 is done. "
    assert told["StoppingCondition"] == {"MaxRuntimeInSeconds": 86400}
    assert told["Environment"] == {"COLOUR": "blue", "PLACE": OUT}
    results = account.texts("whole")
    assert set(results) == {"of/algo-1", "of/algo-2"}
    shared = {"of/algo-1": ["a.txt", "c.txt"], "of/algo-2": ["b/b.txt"]}
    for host, content in results.items():
        wrote = json.loads(content)
        assert wrote["found"] == [
            *(f"all/{name}" for name in ("a.txt", "b/b.txt", "c.txt")),
            "listed/c.txt",
            *(f"shared/{name}" for name in shared[host]),
        ]
        assert wrote["resources"] == {
            "current_host": host.removeprefix("of/"),
            "hosts": ["algo-1", "algo-2"],
        }
        assert wrote["addresses"] == 2
        config = wrote["config"]
        assert config["ProcessingJobArn"] == told["ProcessingJobArn"]
        assert config["ProcessingOutputConfig"]["Outputs"] == [target("whole")]
        assert config["ProcessingInputs"][0]["S3Input"]["S3DownloadMode"] == "StartOfJob"
        assert config["StoppingCondition"] == {"MaxRuntimeInSeconds": 86400}
        assert wrote["environment"]["COLOUR"] == "blue"
        assert wrote["environment"]["PLACE"] == OUT
        assert wrote["environment"]["AWS_ENDPOINT_URL"] == account.aws.endpoint
        assert wrote["environment"]["AWS_ACCESS_KEY_ID"].startswith("ASIA")
    assert account.by_host("whole") == {"whole/algo-1": ["worked"], "whole/algo-2": ["worked"]}


def test_a_job_that_fails_uploads_only_what_it_did_as_it_went(account: Account) -> None:
    account.create("end", "(out / 'x').write_text('x'); raise ValueError('no photos')")
    went = {"Outputs": [target("went", "Continuous")]}
    account.create("went", "(out / 'x').write_text('x'); sys.exit(3)", ProcessingOutputConfig=went)
    for name in ("end", "went"):
        told = account.ended(name)
        assert told["ProcessingJobStatus"] == "Failed"
        assert told["FailureReason"] == "AlgorithmError: See job logs for more information"
    assert account.texts("end") == {}
    assert account.texts("went") == {"x": "x"}
    assert account.by_host("end")["end/algo-1"][-1] == "ValueError: no photos"


def test_an_exit_message_is_a_kilobyte_of_text(account: Account) -> None:
    tells = "(out.parents[1] / 'output/message').write_bytes(%s)"
    account.create("long-message", tells % "b'a' + 'é'.encode() * 2000")
    account.create("odd-message", tells % "b'\\xff'")
    assert account.ended("long-message")["ExitMessage"] == "a" + "é" * 511
    told = account.ended("odd-message")
    assert told["ProcessingJobStatus"] == "Failed"
    assert told["FailureReason"].startswith("ClientError: The exit message")


def test_what_goes_on_too_long_or_is_stopped(account: Account) -> None:
    hangs = "(out / 'x').write_text('x')\nprint('begun', flush=True)\ntime.sleep(600)"
    account.create("long", hangs, StoppingCondition={"MaxRuntimeInSeconds": 1})
    config = {"Outputs": [target("stopped", "Continuous")]}
    account.create("stopped", hangs, ProcessingOutputConfig=config)
    until(lambda: account.texts("stopped"))
    account.sagemaker.stop_processing_job(ProcessingJobName="stopped")
    for name in ("long", "stopped"):
        told = account.ended(name)
        assert told["ProcessingJobStatus"] == "Stopped", told
        assert "FailureReason" not in told
    assert account.texts("long") == {}
    assert account.texts("stopped") == {"x": "x"}
    with pytest.raises(ClientError, match="processing job is in status Stopped"):
        account.sagemaker.stop_processing_job(ProcessingJobName="stopped")
    account.sagemaker.delete_processing_job(ProcessingJobName="stopped")
    with pytest.raises(ClientError, match="Could not find requested job with name: stopped"):
        account.describe("stopped")


def test_an_isolated_job_gets_no_credentials(account: Account) -> None:
    script = "(out / 'keys').write_text(str([n for n in os.environ if 'ACCESS_KEY' in n]))"
    account.create("isolated", script, NetworkConfig={"EnableNetworkIsolation": True})
    assert account.ended("isolated")["ProcessingJobStatus"] == "Completed"
    assert account.texts("isolated") == {"keys": "[]"}


@pytest.mark.parametrize(
    ("name", "more", "reason"),
    [
        (
            "no-data",
            {"Inputs": [source("data", "s3://kennel/nowhere", "/opt/ml/processing/data")]},
            "ClientError: Failed to download data. No S3 objects found under S3 URL"
            ' "s3://kennel/nowhere"',
        ),
        (
            "no-manifest",
            {
                "Inputs": [
                    source(
                        "data",
                        "s3://kennel/code/no-manifest/main.py",
                        "/opt/ml/processing/data",
                        S3DataType="ManifestFile",
                    )
                ]
            },
            "ClientError: Failed to download data. s3://kennel/code/no-manifest/main.py is no",
        ),
        (
            "no-output",
            {
                "ProcessingOutputConfig": {
                    "Outputs": [
                        {
                            "OutputName": "out",
                            "S3Output": {
                                "S3Uri": "s3://nobody-has-it/out",
                                "LocalPath": OUT,
                                "S3UploadMode": "EndOfJob",
                            },
                        }
                    ]
                }
            },
            "ClientError: Failed to upload output. ",
        ),
        (
            "no-image",
            {
                "AppSpecification": {
                    "ImageUri": "123456789012.dkr.ecr.us-east-1.amazonaws.com/nothing:1",
                    "ContainerEntrypoint": ["true"],
                }
            },
            "ClientError: The image '123456789012.dkr.ecr.us-east-1.amazonaws.com/nothing:1' does",
        ),
        (
            "no-program",
            {"AppSpecification": {"ImageUri": "image"}},
            "AlgorithmError: localaws runs no images",
        ),
    ],
)
def test_what_cannot_be_had_is_the_failure_reason(
    account: Account, name: str, more: dict[str, Any], reason: str
) -> None:
    account.create(name, "(out / 'x').write_text('x')", **more)
    told = account.ended(name)
    assert told["ProcessingJobStatus"] == "Failed"
    assert told["FailureReason"].startswith(reason)


def test_a_job_needs_a_role_that_trusts_sagemaker_and_a_name_of_its_own(account: Account) -> None:
    with pytest.raises(ClientError, match="Could not assume role") as refused:
        account.create("nobody", "", RoleArn="arn:aws:iam::123456789012:role/nobody")
    assert refused.value.response["Error"]["Code"] == "ValidationException"
    account.create("unique", "", Tags=[{"Key": "a", "Value": "b"}])
    with pytest.raises(ClientError, match="Job name must be unique") as refused:
        account.create("unique", "")
    assert refused.value.response["Error"]["Code"] == "ResourceInUse"
    arn = account.ended("unique")["ProcessingJobArn"]
    assert arn == "arn:aws:sagemaker:us-east-1:123456789012:processing-job/unique"
    assert account.sagemaker.list_tags(ResourceArn=arn)["Tags"] == [{"Key": "a", "Value": "b"}]
    found = account.sagemaker.list_processing_jobs(NameContains="uniq", MaxResults=1)
    assert [each["ProcessingJobArn"] for each in found["ProcessingJobSummaries"]] == [arn]


PIPE = source("pipe", "s3://kennel/data", "/opt/ml/processing/x", S3InputMode="Pipe")
FEATURES = {"OutputName": "out", "FeatureStoreOutput": {"FeatureGroupName": "a"}}
OUTSIDE = source("x", "s3://kennel/data", "/opt/ml/processing/../../x")


@pytest.mark.parametrize(
    ("more", "code", "words"),
    [
        ({"Inputs": [OUTSIDE]}, "ValidationException", "LocalPath '/opt/ml/processing/../../x'"),
        (
            {"Inputs": [source("x", "s3://kennel/data", "/data")]},
            "ValidationException",
            "LocalPath '/data'",
        ),
        (
            {"Inputs": [source("code", "s3://kennel/data", "/opt/ml/processing/x")]},
            "ValidationException",
            "names must be unique: code",
        ),
        ({"Cluster": {"InstanceType": "ml.none.large"}}, "ValidationException", "enum value set"),
        ({"Inputs": [PIPE]}, "501", "Pipe"),
        ({"ProcessingOutputConfig": {"Outputs": [FEATURES]}}, "501", "FeatureStoreOutput"),
        (
            {
                "AppSpecification": {
                    "ImageUri": "1.dkr.ecr.us-east-1.amazonaws.com/sagemaker-spark-processing:3.3",
                    "ContainerEntrypoint": ["smspark-submit"],
                }
            },
            "501",
            "Spark",
        ),
    ],
)
def test_what_is_refused(account: Account, more: dict[str, Any], code: str, words: str) -> None:
    with pytest.raises(ClientError) as refused:
        account.create("refused", "", **more)
    error = refused.value.response
    status = str(error["ResponseMetadata"]["HTTPStatusCode"])
    assert code in (error["Error"]["Code"], status)
    assert words in str(refused.value)


@pytest.mark.parametrize("is_refused", [True, False])
def test_a_machine_that_gives_no_view_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_refused: bool
) -> None:
    """Only the paths that the request names are the job's; a script's own may not be made here."""
    monkeypatch.setattr(processing, "has_views", lambda: False)
    monkeypatch.setattr(processing, "_may_make", lambda _: is_refused)
    cluster = Cluster((("group", "ml.m5.large"),), 1)
    config = {
        "AppSpecification": {"ContainerEntrypoint": ["touch", f"{OUT}"]},
        "Environment": {},
    }
    with processing.ProcessingHost(tmp_path / "ml", cluster, 0) as host:
        if is_refused:
            with pytest.raises(HostError, match="allows no mount namespaces"):
                host.start(config, dict(os.environ))
            return
        host.start(config, dict(os.environ))
        until(lambda: host.exit_code is not None)
        assert host.place(OUT).exists()
