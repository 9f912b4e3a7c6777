"""The chain's steps, each taken under the roles that take it in an account.

The caller is the deploy role, as GitHub's workflows take it; SageMaker, Lambda and EC2 act under
the training, serving, Lambda and EC2 roles. A step that does not succeed raises: what AWS answered,
a failure reason, or `MissingError` where nothing came of it.
"""

import io
import json
import shutil
import subprocess
import tarfile
import time
from base64 import b64decode, urlsafe_b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property, partial
from itertools import count
from pathlib import Path
from typing import Any

import boto3
from botocore import UNSIGNED
from botocore.config import Config

from terraform.cli import (
    deploy,
    function,
    logs,
    model,
    objects,
    packages,
    settling,
    smoke,
    status,
    verify,
)
from tests.archives import make_archive
from tests.localaws.conftest import SECONDS, LocalAws, until
from tests.terraform.iam_calls import without
from trainer.jobs import record_latest
from trainer.jobs_sagemaker import LOG_GROUP, TrainingJob
from trainer.target import Target, load
from trainer.upload import upload

ACCOUNT = "123456789012"
NAME = "kennel-local"
BUCKET = f"{NAME}-{ACCOUNT}-us-east-1"
FUNCTION = {"FunctionName": f"{NAME}-classify"}
LIVE = {**FUNCTION, "Qualifier": "live"}
MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
"""How long a step waits for what must happen."""

TERRAFORM = Path(__file__).parents[2] / "terraform"
# Terraform waits a minute for the rules of the bucket's life cycle, which no step needs.
_OVERRIDES = {
    "stacks/foundation/override.tf": 'terraform {\n  backend "local" {}\n}\n',
    "modules/bucket/override.tf": (
        'resource "aws_s3_bucket_lifecycle_configuration" "this" {\n  count = 0\n}\n'
    ),
}
_VARIABLES = """
cost_centre       = "none"
enable_notebook   = false
environment       = "local"
force_destroy     = true
github            = { environments = ["local"], repository = "example/kennel" }
owner             = "tests"
region            = "us-east-1"
s3_use_path_style = true
"""
_TRAIN = """
cp "$SM_CHANNEL_MODEL"/* "$SM_MODEL_DIR"
echo "epoch=0 valid_accuracy=1.0"
echo 1 > "$SAGEMAKER_BASE_DIR/checkpoints/epoch"
"""
_USER_DATA = f"""
trap 'shutdown -h now' EXIT
set -e
aws s3 cp --only-show-errors --recursive s3://{BUCKET}/source/model/ model
aws s3 cp --only-show-errors model/labels.json "s3://{BUCKET}/jobs/$KENNEL_JOB/output/labels.json"
aws logs create-log-stream --log-group-name /{NAME}/ec2-trainer --log-stream-name "$KENNEL_JOB"
aws logs put-log-events --log-group-name /{NAME}/ec2-trainer --log-stream-name "$KENNEL_JOB" \
  --log-events timestamp="$(date +%s)000",message=trained > /dev/null
echo done
"""


class MissingError(AssertionError):
    """Something should have come of a step and has not."""


def apply_foundation(folder: Path, binary: Path, environment: dict[str, str]) -> None:
    """Apply the real stack with Terraform, and so the roles with their real policies."""
    for part in ("modules", "stacks/foundation"):
        ignored = shutil.ignore_patterns(".terraform*")
        shutil.copytree(TERRAFORM / part, folder / part, ignore=ignored)
    for name, text in _OVERRIDES.items():
        (folder / name).write_text(text)
    stack = folder / "stacks/foundation"
    (stack / "terraform.tfvars").write_text(_VARIABLES)
    for command in (["init"], ["apply", "-auto-approve"]):
        done = subprocess.run(
            [binary, *command, "-input=false", "-no-color"],
            cwd=stack,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr


class Chain:
    """A foundation in a localaws that enforces IAM, and the steps that use it."""

    def __init__(self, aws: LocalAws, folder: Path, calls: Path, photos: Path, zip_: Path) -> None:
        """Bring what the steps work on.

        Args:
            aws: With the foundation applied.
            folder: An empty one.
            calls: File of localaws' calls.
            photos: A data folder.
            zip_: The Lambda function's zip.
        """
        self.aws = aws
        self._folder = folder
        self._calls = calls
        self._photos = photos
        self._zip = zip_
        self._numbers = count(1)
        self._keys = self._assume_deploy()
        self._image = ""
        self._configurations: list[str] = []
        self._released = ""
        self._has_function = False
        self._lacking: tuple[str, str, float] | None = None
        make_archive(folder)

    def _assume_deploy(self) -> dict[str, str]:
        host = "token.actions.githubusercontent.com"
        claims = {
            "iss": f"https://{host}",
            "aud": "sts.amazonaws.com",
            "sub": "repo:example/kennel:environment:local",
        }
        payload = urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
        sts = boto3.client(
            "sts",
            region_name="us-east-1",
            endpoint_url=self.aws.endpoint,
            config=Config(signature_version=UNSIGNED),
        )
        keys: dict[str, str] = sts.assume_role_with_web_identity(
            RoleArn=f"arn:aws:iam::{ACCOUNT}:role/{NAME}-deploy",
            RoleSessionName="workflow",
            WebIdentityToken=f"e30.{payload}.x",
        )["Credentials"]
        return keys

    @property
    def environment(self) -> dict[str, str]:
        """The variables under which the project's commands act as the deploy role."""
        return {
            "AWS_ENDPOINT_URL": self.aws.endpoint,
            "AWS_ACCESS_KEY_ID": self._keys["AccessKeyId"],
            "AWS_SECRET_ACCESS_KEY": self._keys["SecretAccessKey"],
            "AWS_SESSION_TOKEN": self._keys["SessionToken"],
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_MAX_ATTEMPTS": "1",
        }

    @cached_property
    def target(self) -> Target:
        """The environment, as commands load it; they find `environment` in the process's own."""
        return load("local")

    def client(self, service: str) -> Any:
        """A client of the deploy role."""
        return self.target.client(service)

    def _parameter(self, key: str) -> str:
        return self.target.required_parameter(key)

    def _new(self, kind: str) -> str:
        return f"{NAME}-{kind}-{next(self._numbers)}"

    # --- roles

    def policies(self, role: str) -> list[Any]:
        """The policies that a role has now."""
        return [document for document, _ in self._policies(role)]

    def _policies(self, role: str) -> Iterator[tuple[Any, Callable[[Any], None]]]:
        """The policies of a role, each with what puts another one in its place."""
        iam, named = self.aws.client("iam"), {"RoleName": f"{NAME}-{role}"}
        for inline in iam.list_role_policies(**named)["PolicyNames"]:
            own = {**named, "PolicyName": inline}

            def put(document: Any, own: dict[str, str] = own) -> None:
                iam.put_role_policy(**own, PolicyDocument=json.dumps(document))

            yield iam.get_role_policy(**own)["PolicyDocument"], put
        for attached in iam.list_attached_role_policies(**named)["AttachedPolicies"]:
            managed = {"PolicyArn": attached["PolicyArn"]}
            version = iam.get_policy(**managed)["Policy"]["DefaultVersionId"]
            held = iam.get_policy_version(**managed, VersionId=version)["PolicyVersion"]

            def replace(document: Any, managed: dict[str, str] = managed) -> None:
                former = iam.get_policy(**managed)["Policy"]["DefaultVersionId"]
                text = json.dumps(document)
                iam.create_policy_version(**managed, PolicyDocument=text, SetAsDefault=True)
                iam.delete_policy_version(**managed, VersionId=former)

            yield held["Document"], replace

    @contextmanager
    def lacking(self, role: str, action: str) -> Iterator[None]:
        """Take an action out of all policies of a role within the block."""
        restore: list[Callable[[], None]] = []
        for document, put in self._policies(role):
            (changed,) = without([document], action)
            if changed != document:
                put(changed)
                restore.append(partial(put, document))
        assert restore, f"no policy of {role} allows {action}"
        self._lacking = role, action, time.time()
        try:
            yield
        finally:
            self._lacking = None
            for undo in restore:
                undo()

    def calls(self, role: str, since: float = 0) -> list[dict[str, Any]]:
        """What a role has called since a moment."""
        found = [json.loads(line) for line in self._calls.read_text().splitlines()]
        session = f":assumed-role/{NAME}-{role}/"
        return [call for call in found if call["time"] >= since and session in call["principal"]]

    def _await(self, what: str, look: Callable[[], Any]) -> None:
        """Wait for an effect, or until the role that lacks an action has been refused it."""

        def seen() -> str:
            if look():
                return "found"
            return "refused" if self._lacking and self._was_refused(*self._lacking) else ""

        if until(seen) == "refused":
            raise MissingError(f"{what} is missing")

    def _was_refused(self, role: str, action: str, since: float) -> bool:
        return any(
            f"{call['service']}:{call['operation']}" == action and call["status"] >= 400
            for call in self.calls(role, since)
        )

    # --- data, jobs

    def upload(self) -> None:
        """The data set, as `make upload` does it, and what the jobs run."""
        s3 = self.client("s3")
        for path in sorted((self._folder / "model").iterdir()):
            s3.put_object(Bucket=BUCKET, Key=f"source/model/{path.name}", Body=path.read_bytes())
        s3.put_object(Bucket=BUCKET, Key="source/script/script.tar.gz", Body=_packed(_TRAIN))
        upload(self.target, self._photos, f"photos-{next(self._numbers)}")

    def train(self) -> None:
        """A training job: its archive, its checkpoints, its log and its metrics."""
        name = self._new("train")
        self.client("sagemaker").create_training_job(
            TrainingJobName=name,
            **self._work("AlgorithmSpecification", "HyperParameters"),
            CheckpointConfig={"S3Uri": f"s3://{BUCKET}/checkpoints/{name}/"},
            Tags=[{"Key": "project", "Value": "kennel"}],
        )
        job = TrainingJob(self.target, name)
        until(lambda: job.state().ended)
        record_latest(self.target, BUCKET, job.outcome())
        lines = list(job.lines())
        self._await(
            "the job's log",
            lambda: any("valid_accuracy" in line for line in [*lines, *job.lines()]),
        )
        metrics = self.aws.client("cloudwatch").list_metrics
        dimension = {"Name": "TrainingJobName", "Value": name}
        self._await(
            "the job's metric",
            lambda: metrics(Namespace=LOG_GROUP, Dimensions=[dimension])["Metrics"],
        )

    def tune(self) -> None:
        """A tuning job of one trial."""
        name = self._new("tune")
        definition = self._work("AlgorithmSpecification", "StaticHyperParameters")
        objective = {"Type": "Maximize", "MetricName": "valid_accuracy"}
        sagemaker = self.client("sagemaker")
        sagemaker.create_hyper_parameter_tuning_job(
            HyperParameterTuningJobName=name,
            HyperParameterTuningJobConfig={
                "Strategy": "Random",
                "HyperParameterTuningJobObjective": objective,
                "ResourceLimits": {"MaxNumberOfTrainingJobs": 1, "MaxParallelTrainingJobs": 1},
                "ParameterRanges": {
                    "CategoricalParameterRanges": [{"Name": "seed", "Values": ["1", "2"]}]
                },
            },
            TrainingJobDefinition=definition,
        )
        named = {"HyperParameterTuningJobName": name}
        until(
            lambda: (
                sagemaker.describe_hyper_parameter_tuning_job(**named)[
                    "HyperParameterTuningJobStatus"
                ]
                != "InProgress"
            )
        )
        (trial,) = sagemaker.list_training_jobs_for_hyper_parameter_tuning_job(**named)[
            "TrainingJobSummaries"
        ]
        if trial["TrainingJobStatus"] != "Completed":
            raise MissingError(trial["FailureReason"])

    def _work(self, algorithm: str, hyperparameters: str) -> dict[str, Any]:
        """What training and tuning jobs have in common."""
        source = {"S3DataType": "S3Prefix", "S3Uri": f"s3://{BUCKET}/source/model/"}
        return {
            algorithm: {
                "TrainingImage": "763104351884.dkr.ecr.us-east-1.amazonaws.com/pytorch:2",
                "TrainingInputMode": "File",
                "MetricDefinitions": [
                    {"Name": "valid_accuracy", "Regex": "valid_accuracy=([0-9.]+)"}
                ],
            },
            hyperparameters: {
                "sagemaker_program": "train.sh",
                "sagemaker_submit_directory": f"s3://{BUCKET}/source/script/script.tar.gz",
            },
            "RoleArn": self._parameter("training_role_arn"),
            "InputDataConfig": [
                {"ChannelName": "model", "DataSource": {"S3DataSource": source}},
            ],
            "OutputDataConfig": {"S3OutputPath": f"s3://{BUCKET}/jobs/"},
            "ResourceConfig": {
                "InstanceType": "ml.m5.large",
                "InstanceCount": 1,
                "VolumeSizeInGB": 1,
            },
            "StoppingCondition": {"MaxRuntimeInSeconds": SECONDS},
        }

    def ec2(self) -> None:
        """A machine from the trainer's launch template."""
        ec2, job = self.client("ec2"), self._new("ec2")
        (started,) = ec2.run_instances(
            LaunchTemplate={"LaunchTemplateId": self._parameter("ec2_launch_template_id")},
            SubnetId=self._parameter("ec2_subnet_ids").split(",")[0],
            UserData=f"#!/bin/bash\nKENNEL_JOB={job}\n{_USER_DATA}",
            MinCount=1,
            MaxCount=1,
        )["Instances"]
        named = {"InstanceIds": [started["InstanceId"]]}

        def has_ended() -> bool:
            (found,) = ec2.describe_instances(**named)["Reservations"][0]["Instances"]
            return bool(found["State"]["Name"] == "terminated")

        until(has_ended)
        printed = ec2.get_console_output(InstanceId=started["InstanceId"])["Output"]
        if not printed.endswith("done\n"):
            raise MissingError(printed)

    # --- a model into service

    def register(self) -> None:
        """The latest archive, as `make deploy MODEL=latest` registers and publishes it."""
        target = self.target
        packages.delete_all(target)
        source = deploy.find_latest(target)
        archive = model.locate(source, target)
        opened = model.opened(model.fetch(archive, target), source)
        model.publish(archive, target)
        smoke.store(smoke.make(opened), archive, target)
        packages.judge(packages.register(opened, archive, source, target), target, None)

    def release(self) -> None:
        """A model, its configuration with data capture and a rollback alarm, and the endpoint."""
        target, name, sagemaker = self.target, self._new("release"), self.client("sagemaker")
        started, group = int(time.time() * 1000), f"/aws/sagemaker/Endpoints/{NAME}"
        tags = [{"Key": "project", "Value": "kennel"}]
        sagemaker.create_model(
            ModelName=name,
            ExecutionRoleArn=self._parameter("serving_role_arn"),
            PrimaryContainer={"Image": self._image, "ModelDataUrl": self._archive.uri},
            EnableNetworkIsolation=True,
            Tags=tags,
        )
        sagemaker.create_endpoint_config(
            EndpointConfigName=name,
            ProductionVariants=[
                {
                    "VariantName": "main",
                    "ModelName": name,
                    "InstanceType": "ml.m5.large",
                    "InitialInstanceCount": 1,
                }
            ],
            DataCaptureConfig={
                "EnableCapture": True,
                "InitialSamplingPercentage": 100,
                "DestinationS3Uri": f"s3://{BUCKET}/capture",
                "CaptureOptions": [{"CaptureMode": "Input"}],
            },
            Tags=tags,
        )
        alarm = f"{NAME}-rollback-errors"
        self.client("cloudwatch").put_metric_alarm(
            AlarmName=alarm,
            Namespace="AWS/SageMaker",
            MetricName="Invocation5XXErrors",
            Dimensions=[{"Name": "EndpointName", "Value": NAME}],
            ComparisonOperator="GreaterThanThreshold",
            EvaluationPeriods=1,
            Period=60,
            Statistic="Sum",
            Threshold=1000,
        )
        guard: dict[str, Any] = {
            "BlueGreenUpdatePolicy": {
                "TrafficRoutingConfiguration": {
                    "Type": "ALL_AT_ONCE",
                    "WaitIntervalInSeconds": 60,
                },
                # The alarms are asked while the former instances wait for their end.
                "TerminationWaitInSeconds": 60,
            },
            "AutoRollbackConfiguration": {"Alarms": [{"AlarmName": alarm}]},
        }
        given: dict[str, Any] = {"EndpointName": NAME, "EndpointConfigName": name}
        self._configurations.append(name)
        if settling.live(target):
            sagemaker.update_endpoint(**given, DeploymentConfig=guard)
        else:
            self.client("logs").create_log_group(logGroupName=group)
            sagemaker.create_endpoint(**given, DeploymentConfig=guard, Tags=tags)
        until(lambda: settling.live(target)["EndpointStatus"] in ("InService", "Failed"))
        found = settling.live(target)
        if (found["EndpointStatus"], found["EndpointConfigName"]) != ("InService", name):
            raise MissingError(found["FailureReason"])
        self._released = name
        self._await("the endpoint's log", lambda: self._events(group, started))

    def image(self) -> None:
        """A serving image in the registry; its layers are of no interest to localaws."""
        repository = self._parameter("repository_url")
        tag = f"v{next(self._numbers)}"
        self.client("ecr").put_image(
            repositoryName=repository.partition("/")[2],
            imageManifest=json.dumps({"schemaVersion": 2, "mediaType": MANIFEST, "tag": tag}),
            imageTag=tag,
        )
        self._image = f"{repository}:{tag}"

    def function(self) -> None:
        """The Lambda function behind its alias: made, or brought up to date."""
        client, code = self.client("lambda"), self._zip.read_bytes()
        group = {"logGroupName": f"/aws/lambda/{FUNCTION['FunctionName']}"}
        if self._has_function:
            client.update_function_code(**FUNCTION, ZipFile=code)
            client.get_waiter("function_updated_v2").wait(**FUNCTION)
            version = client.publish_version(**FUNCTION)["Version"]
            client.update_alias(**FUNCTION, Name="live", FunctionVersion=version)
            return
        self.client("logs").create_log_group(**group)
        queue = f"{FUNCTION['FunctionName']}-failed"
        self.client("sqs").create_queue(QueueName=queue)
        client.create_function(
            **FUNCTION,
            Role=self._parameter("lambda_role_arn"),
            Runtime="python3.13",
            Handler="lambda_src.handler.handler",
            Architectures=["arm64"],
            Code={"ZipFile": code},
            MemorySize=512,
            Timeout=30,
            Publish=True,
            Environment={
                "Variables": {"ENDPOINT_NAME": NAME, "POWERTOOLS_METRICS_NAMESPACE": "Kennel"}
            },
        )
        client.create_alias(**FUNCTION, Name="live", FunctionVersion="1")
        client.put_function_event_invoke_config(
            **LIVE,
            MaximumEventAgeInSeconds=60,
            DestinationConfig={
                "OnFailure": {"Destination": f"arn:aws:sqs:us-east-1:{ACCOUNT}:{queue}"}
            },
        )
        self._has_function = True

    # --- a model in service

    @property
    def _archive(self) -> model.Archive:
        return model.locate(deploy.find_latest(self.target), self.target)

    def invoke(self) -> None:
        """A photo through the alias, as `make invoke` sends it, and what the function logs."""
        started = int(time.time() * 1000)
        picture = smoke.of(self._archive, self.target).image
        answer = function.call(self.target, {"image": picture})
        if answer.failure:
            raise MissingError(answer.failure)
        self._await(
            "the function's log",
            lambda: self._events(f"/aws/lambda/{FUNCTION['FunctionName']}", started),
        )

    def _events(self, group: str, since_ms: int) -> list[Any]:
        events: list[Any] = self.client("logs").filter_log_events(
            logGroupName=group, startTime=since_ms
        )["events"]
        return events

    def capture(self) -> None:
        """A request to the endpoint itself, which is written to the bucket."""

        def captured() -> int:
            found = self.client("s3").list_objects_v2(Bucket=BUCKET, Prefix="capture/")
            return int(found["KeyCount"])

        before = captured()
        self.client("sagemaker-runtime").invoke_endpoint(
            EndpointName=NAME,
            ContentType="image/png",
            Body=b64decode(smoke.of(self._archive, self.target).image),
        )
        self._await("capture", lambda: captured() > before)

    def dead_letter(self) -> None:
        """An event that never gets its turn ends in the queue."""
        client, sqs = self.client("lambda"), self.aws.client("sqs")
        url = sqs.get_queue_url(QueueName=f"{FUNCTION['FunctionName']}-failed")["QueueUrl"]

        def received() -> bool:
            found = sqs.receive_message(QueueUrl=url).get("Messages", [])
            for message in found:
                sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
            return bool(found)

        client.put_function_concurrency(**FUNCTION, ReservedConcurrentExecutions=0)
        try:
            client.invoke(**LIVE, InvocationType="Event", Payload=b"{}")
            self._await("the failed event", received)
        finally:
            client.delete_function_concurrency(**FUNCTION)

    def scale(self) -> None:
        """Target tracking on the endpoint, and off."""
        scaling = self.client("application-autoscaling")
        scaled = {
            "ServiceNamespace": "sagemaker",
            "ResourceId": f"endpoint/{NAME}/variant/main",
            "ScalableDimension": "sagemaker:variant:DesiredInstanceCount",
        }
        scaling.register_scalable_target(**scaled, MinCapacity=1, MaxCapacity=2)
        scaling.put_scaling_policy(
            **scaled,
            PolicyName=NAME,
            PolicyType="TargetTrackingScaling",
            TargetTrackingScalingPolicyConfiguration={
                "TargetValue": 1000.0,
                "PredefinedMetricSpecification": {
                    "PredefinedMetricType": "SageMakerVariantInvocationsPerInstance"
                },
            },
        )
        scaling.delete_scaling_policy(**scaled, PolicyName=NAME)
        scaling.deregister_scalable_target(**scaled)

    def verify(self) -> None:
        """What `make verify` looks at."""
        archive = self._archive
        outputs = {
            "model": {"digest": archive.digest, "archive_uri": archive.uri},
            "endpoint_configuration_name": self._released,
            "function_name": FUNCTION["FunctionName"],
        }
        if fault := verify.check(self.target, outputs).fault:
            raise MissingError(fault)

    def status(self) -> None:
        """What `make status` asks for."""
        found = status.status(self.target)
        assert found["endpoint"]["status"] == "InService"

    def logs(self) -> None:
        """What `make logs` reads."""
        found = {event.what for event in logs.read(self.target, logs.groups(self.target), since=0)}
        assert found == {"ec2", "endpoint", "function", "training"}

    def destroy(self) -> None:
        """All that the steps have made and Terraform has not."""
        sagemaker = self.client("sagemaker")
        sagemaker.delete_endpoint(EndpointName=NAME)
        until(lambda: not settling.live(self.target))
        for name in self._configurations:
            sagemaker.delete_endpoint_config(EndpointConfigName=name)
            sagemaker.delete_model(ModelName=name)
        self.client("lambda").delete_function(**FUNCTION)
        packages.delete_all(self.target)
        objects.delete(self.client("s3"), BUCKET)


def _packed(script: str) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as packed:
        member = tarfile.TarInfo("train.sh")
        member.size = len(script)
        packed.addfile(member, io.BytesIO(script.encode()))
    return stream.getvalue()
