"""Training on the foundation's EC2 machine, which ends itself when the job has ended."""

import base64
import shlex
import sys
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from botocore.exceptions import ClientError

from trainer import source
from trainer.config import TrainConfig
from trainer.errors import KennelError, UsageError
from trainer.job_logs import Tail
from trainer.jobs import (
    Job,
    Named,
    Outcome,
    State,
    read_json,
    slug,
    timestamp,
    write_json,
)
from trainer.jobs_sagemaker import Work
from trainer.make_command import make_command
from trainer.prices import hourly_usd
from trainer.target import Target

RECORD = "instance.json"
"""Object that tells a job's machine."""

_NAME_CHARACTERS = 63
_LAUNCH_ATTEMPTS = 3
_AGAIN = "give its command again, without FRESH, to go on from its last checkpoint"
_GONE = frozenset({"terminated", "stopped"})
# AWS keeps a machine that has ended for longer, and knows a new one sooner.
_UNKNOWN = timedelta(minutes=10)
# A zone has none left, or never had any of this type: the next one may.
_NOT_HERE = ("InsufficientInstanceCapacity", "Unsupported")
_TOO_MANY = ("MaxSpotInstanceCountExceeded", "VcpuLimitExceeded")


def submit(
    target: Target,
    work: Work,
    config: TrainConfig,
    instance_type: str | None,
    spot: bool,
    named: Named = lambda _: None,
) -> str:
    """Launch a machine that trains.

    Args:
        target: Where.
        work: The training; it goes on from the checkpoints of the same one.
        config: What is trained.
        instance_type: Another type than the launch template's.
        spot: Whether AWS may take the machine away, for a lower price.
        named: Is told the job's name before there is a machine.

    Returns:
        The job's name.

    Raises:
        KennelError: The foundation is missing, or no subnet has such a machine.
        UsageError: The data set has not been uploaded, or the foundation has no EC2 trainer.
    """
    from trainer.upload import require_manifest

    bucket = target.required_parameter("bucket")
    template = target.parameter("ec2_launch_template_id")
    if template is None:
        raise UsageError(
            f"WHERE=ec2: the EC2 trainer is off in ENV={target.name}; say `enable_ec2_trainer = "
            f"true` in terraform/environments/{target.name}.foundation.tfvars, and "
            f"`{make_command('apply', target.name, STACK='foundation')}`, "
            "or train with WHERE=sagemaker"
        )
    subnets = target.required_parameter("ec2_subnet_ids").split(",")
    require_manifest(target, work.dataset)
    end = f"-{timestamp()}"
    job = f"{target.prefix}-{slug(work.dataset)}"[: _NAME_CHARACTERS - len(end)].rstrip("-") + end
    request = {
        "dataset": work.dataset,
        "checkpoints": work.checkpoints,
        "hyperparameters": config.to_json(),
        "source": source.publish(target, bucket),
        "processes": "auto",
    }
    write_json(target, bucket, _request(job), request)
    options: dict[str, Any] = {"InstanceType": instance_type} if instance_type else {}
    if spot:
        options["InstanceMarketOptions"] = {"MarketType": "spot"}
    # A zone that is full says so as a failure of its own, and waiting for it helps less than asking
    # the next one.
    ec2 = target.client("ec2", _LAUNCH_ATTEMPTS)
    options["UserData"] = _user_data(ec2, template, job)
    named(job)
    instance = _launch(target, ec2, template, subnets, options)
    write_json(
        target,
        bucket,
        _record(job),
        {
            "instance_id": instance["InstanceId"],
            "instance_type": instance["InstanceType"],
            "launched": datetime.now(UTC).isoformat(timespec="seconds"),
        },
    )
    return job


def _request(job: str) -> str:
    return f"jobs/{job}/request.json"


def _record(job: str) -> str:
    return f"jobs/{job}/{RECORD}"


def _user_data(ec2: Any, template: str, job: str) -> str:
    """The template's own script below the job's name."""
    versions = ec2.describe_launch_template_versions(
        LaunchTemplateId=template, Versions=["$Default"]
    )["LaunchTemplateVersions"]
    script = base64.b64decode(versions[0]["LaunchTemplateData"]["UserData"]).decode()
    return (
        "#!/bin/bash\n"
        f"export KENNEL_JOB={shlex.quote(job)}\n"
        f"export KENNEL_GIT_COMMIT={shlex.quote(source.git_commit())}\n"
        f"{script}"
    )


def _launch(
    target: Target, ec2: Any, template: str, subnets: list[str], options: Mapping[str, Any]
) -> dict[str, Any]:
    """Ask for a machine in each subnet in turn until there is one."""
    for subnet in subnets:
        try:
            started = ec2.run_instances(
                LaunchTemplate={"LaunchTemplateId": template, "Version": "$Default"},
                SubnetId=subnet,
                MinCount=1,
                MaxCount=1,
                **options,
            )
        except ClientError as error:
            code, message = error.response["Error"]["Code"], error.response["Error"]["Message"]
            if code in _TOO_MANY:
                raise KennelError(
                    f"{code}: {message.rstrip('.')}; "
                    f"`{make_command('preflight', target.name)}` names the quota to raise"
                ) from error
            if code not in _NOT_HERE:
                raise
            sys.stderr.write(f"{subnet}: {message}\n")
        else:
            instance: dict[str, Any] = started["Instances"][0]
            return instance
    raise KennelError(
        f"none of the subnets {', '.join(subnets)} has a machine of this instance type: try again "
        "later, or choose another --instance-type"
    )


class Ec2Job(Job):
    """A training on an EC2 machine."""

    kind = "ec2"

    def __init__(self, target: Target, name: str) -> None:
        """Take up a job that was launched."""
        self.name = name
        self._target = target
        self._bucket = target.required_parameter("bucket")
        self._ec2 = target.client("ec2")
        self._log_group = f"/{target.prefix}/ec2-trainer"
        self._tail = Tail(target, self._log_group, name)
        record = read_json(target, self._bucket, _record(name))
        if record is None:
            raise KennelError(f"job {name} was not launched from here: its machine is not known")
        self._instance: str = record["instance_id"]
        self._launched = datetime.fromisoformat(record["launched"])
        self.machines = f"1 x {record['instance_type']}"
        self.usd_per_hour = hourly_usd(record["instance_type"], "ec2")

    @staticmethod
    def exists(target: Target, name: str) -> bool:
        """Whether a job of that name was launched."""
        return read_json(target, target.required_parameter("bucket"), _record(name)) is not None

    def state(self) -> State:
        """Ask for the machine, and for the job's own last word."""
        if status := self._status():
            return State(f"{status['status']}: {status['stage']}", True, status["status"])
        machine = self._machine()
        # The last word is written before the machine ends, but may be read after.
        ended = machine in _GONE and self._status() is None
        return State(f"{self._instance} is {machine}", ended, machine)

    def lines(self) -> Iterable[str]:
        """What the machine has logged."""
        return self._tail.lines()

    def stop(self) -> None:
        """End the machine; its script saves checkpoints and log first."""
        self._ec2.terminate_instances(InstanceIds=[self._instance])

    def outcome(self) -> Outcome:
        """Where its archive is, and what it cost."""
        status = self._status()
        log = f"its log: {self._log_group}, stream {self.name}"
        if status is None:
            raise KennelError(
                f"job {self.name} has no outcome, and its machine {self._instance} is gone: "
                f"{_AGAIN}; {log}, and s3://{self._bucket}/logs/ec2/{self.name}.log"
            )
        if status["status"] != "completed":
            again = f": {_AGAIN}" if status["status"] == "stopped" else ""
            raise KennelError(
                f"job {self.name} {status['status']} while {status['stage']} "
                f"(exit status {status['exit_code']}){again}; {log}"
            )
        ended = datetime.fromisoformat(status["ended"])
        seconds = (ended - self._launched).total_seconds()
        price = self.usd_per_hour
        trained, served = (
            (read_json(self._target, self._bucket, f"jobs/{self.name}/output/{place}") or {})
            for place in ("trained/evaluation.json", "evaluation/evaluation.json")
        )
        return Outcome(
            job=self.name,
            kind=self.kind,
            result=f"s3://{self._bucket}/jobs/{self.name}/output/model.tar.gz",
            seconds=seconds,
            billable_seconds=seconds,
            usd=None if price is None else price * seconds / 3600,
            top1_trained=trained.get("top1"),
            top1_served=served.get("top1"),
        )

    def _status(self) -> Mapping[str, Any] | None:
        return read_json(self._target, self._bucket, f"jobs/{self.name}/status.json")

    def _machine(self) -> str:
        """The machine's state; AWS forgets a terminated one after an hour."""
        try:
            answer = self._ec2.describe_instances(InstanceIds=[self._instance])
        except ClientError as error:
            if error.response["Error"]["Code"] != "InvalidInstanceID.NotFound":
                raise
            # A new one is not known everywhere for a while.
            is_new = datetime.now(UTC) - self._launched < _UNKNOWN
            return "pending" if is_new else "terminated"
        return str(answer["Reservations"][0]["Instances"][0]["State"]["Name"])
