"""What `make preflight` looks at: each check asks AWS or this machine one thing."""

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Literal

import boto3

from terraform.cli import (
    binary,
    deploy,
    image,
    job_logs,
    model,
    objects,
    outputs,
    provider_lock,
    stack,
)
from terraform.cli.paths import BUILD
from terraform.cli.settings import Settings
from terraform.cli.stack import Stack
from trainer import catalogue
from trainer.errors import KennelError
from trainer.fence import is_loopback
from trainer.make_command import make_command
from trainer.target import Target

if TYPE_CHECKING:
    from inference.archive import Model

State = Literal["pass", "warn", "fail"]

WARN_DAYS = 60
"""How long before the end of its patches a thing is warned of."""

_SHORT = timedelta(minutes=30)
# Left to the account's other functions: https://docs.aws.amazon.com/lambda/latest/dg/configuration-concurrency.html
# An account that may run fewer keeps them all.
_UNRESERVED = 100
_IMAGE = re.compile(r"(\d{12})\.dkr\.ecr\.([^.]+)\.[^/]+/([^@:]+)(?:@(sha256:\w{64})|:([^:]+))")
# EC2 counts processors, by family: on demand, and spot.
# https://docs.aws.amazon.com/ec2/latest/instancetypes/ec2-instance-quotas.html
_EC2_QUOTAS = {
    **dict.fromkeys(("g", "gr", "vt"), ("L-DB2E81BA", "L-3819A6DF")),
    **dict.fromkeys(("p",), ("L-417A185B", "L-7212CCBC")),
    **dict.fromkeys("acdhimrtz", ("L-1216C47A", "L-34B43A08")),
}
_ROOT_DEVICE = "/dev/xvda"  # the EC2 trainer's
# Measured: the server with its libraries takes 65 MiB, the runtime 2.1 times the network while it
# loads it, and a batch of 8 small pictures 15 MiB.
_SERVER_MIB = 256
_NETWORK_TIMES = 3
_QUEUE = 128  # the server's default


@dataclass(frozen=True)
class Row:
    """One row of the table.

    Attributes:
        name: What was looked at.
        state: "fail": what needs it will fail; "warn": it may, or could not be looked at.
        found: What was found, in a line.
        remedy: What to do; empty where nothing need be done.
    """

    name: str
    state: State
    found: str
    remedy: str = ""


@dataclass(frozen=True)
class Plan:
    """What is to be done in an environment.

    Attributes:
        target: The environment.
        settings: What its variables ask for.
        today: The day that patches are compared with.
        model: Archive to deploy: a path, an address in S3 or `latest`; None for no check.
        instance_type: SageMaker's type to train on; None for the launcher's.
        instances: How many.
        is_spot: Whether they are spot instances.
    """

    target: Target
    settings: Settings
    today: date
    model: str | None = None
    instance_type: str | None = None
    instances: int = 1
    is_spot: bool = False

    @property
    def training_type(self) -> str:
        """SageMaker's type to train on."""
        return self.instance_type or catalogue.TRAINING_TYPE

    def make(self, command: str) -> str:
        """A make target in this environment, for a remedy."""
        return f"`{make_command(command, self.target.name)}`"


@dataclass(frozen=True)
class Check:
    """One thing to look at.

    Attributes:
        name: Name of the row that says that it could not be looked at.
        look: Looks.
        is_needed: Whether it fails, and does not only warn, where it cannot be looked at.
    """

    name: str
    look: Callable[[Plan], Iterator[Row]]
    is_needed: bool = False


def credentials(plan: Plan) -> Iterator[Row]:
    """Whose they are, and for how long."""
    arn = plan.target.client("sts").get_caller_identity()["Arn"]
    found = boto3.Session().get_credentials()
    # Those that are refreshed are fetched at their first use only, and hide when they end.
    found.get_frozen_credentials()
    ends: datetime | None = getattr(found, "_expiry_time", None)
    left = ends - datetime.now(UTC) if ends else None
    if left is not None and left < _SHORT:
        minutes = max(0, int(left.total_seconds() // 60))
        remedy = "log in again (`aws sso login`), or fetch new ones, before a deployment"
        yield Row("credentials", "warn", f"{arn}, {minutes} more minutes", remedy)
    else:
        yield Row("credentials", "pass", arn)


def region(plan: Plan) -> Iterator[Row]:
    """Whether the account uses the region, and the user's own setting is the same."""
    name = plan.target.region
    found = plan.target.client("ec2").describe_regions(RegionNames=[name], AllRegions=True)
    status = found["Regions"][0]["OptInStatus"] if found["Regions"] else "unknown"
    own = boto3.Session().region_name
    if status not in {"opt-in-not-required", "opted-in"}:
        remedy = f"`aws account enable-region --region-name {name}`, or another region"
        yield Row("region", "fail", f"{name} is {status}", remedy)
    elif own not in {None, name}:
        remedy = f"set AWS_DEFAULT_REGION={name} for your own commands; those of `make` use {name}"
        yield Row("region", "warn", f"{name}, but your own is {own}", remedy)
    else:
        yield Row("region", "pass", name)


def terraform(plan: Plan) -> Iterator[Row]:
    """The program, and the provider that was chosen."""
    yield Row("Terraform", "pass", str(binary.resolve()))
    serving = Stack("serving", plan.target, BUILD)
    version = stack.provider_version(serving)
    is_local = is_loopback(os.environ.get("AWS_ENDPOINT_URL"))
    oldest = ".".join(map(str, stack.OLDEST_ON_AWS))
    if not is_local and provider_lock.version(plan.target) is None:
        remedy = (
            f"`.venv/bin/python -m terraform.cli lock --env {plan.target.name}` takes the newest; "
            "commit what it writes"
        )
        yield Row(
            "lock of the provider", "warn", "none: each machine takes the newest it finds", remedy
        )
    if version is None:
        remedy = f"the first plan of the serving stack chooses one, {oldest} or later on AWS"
        yield Row("provider", "pass" if is_local else "warn", "none chosen yet", remedy)
    elif is_local or stack.suits_aws(version):
        yield Row("provider", "pass", version)
    else:
        remedy = (
            f"remove {serving.lock_file}, and let this machine reach the registry: {oldest} or "
            "later is needed"
        )
        yield Row("provider", "fail", f"{version} is too old for AWS", remedy)


def state_bucket(plan: Plan) -> Iterator[Row]:
    """Whether Terraform's states have a place."""
    name = plan.target.state_bucket
    if objects.region(plan.target, name) is None:
        yield Row("state bucket", "fail", f"there is no {name}", plan.make("bootstrap"))
    else:
        yield Row("state bucket", "pass", name)


def bucket(plan: Plan) -> Iterator[Row]:
    """Whether the artifact bucket is there, in the region and encrypted."""
    name = plan.target.parameter("bucket")
    if name is None:
        remedy = plan.make("apply STACK=foundation")
        yield Row("bucket", "fail", "the foundation has not been applied", remedy)
        return
    where = objects.region(plan.target, name)
    if where is None:
        remedy = plan.make("apply STACK=foundation")
        yield Row("bucket", "fail", f"{name} is gone", remedy)
    elif where != plan.target.region:
        remedy = "training and serving need it in their region: correct `region` of the variables"
        yield Row("bucket", "fail", f"{name} is in {where}", remedy)
    else:
        rules = plan.target.client("s3").get_bucket_encryption(Bucket=name)
        rule = rules["ServerSideEncryptionConfiguration"]["Rules"][0]
        how = rule["ApplyServerSideEncryptionByDefault"]["SSEAlgorithm"]
        yield Row("bucket", "pass", f"{name}, {where}, {how}")


def serving_image(plan: Plan) -> Iterator[Row]:
    """Whether the image that the endpoint starts is in its registry, as SageMaker takes it."""
    pinned = plan.settings.image_uri
    address = pinned or plan.target.parameter("image_uri")
    if address is None:
        yield Row("serving image", "fail", "none was built", plan.make("image"))
    else:
        again = "push it again, built with `--output type=image,oci-mediatypes=false`"
        remedy = f"{plan.make('image')} builds it again" if pinned is None else again
        yield _image(plan, "serving image", address, plan.make("image"), remedy)


def training_image(plan: Plan) -> Iterator[Row]:
    """Whether AWS has the image that training starts."""
    is_gpu = catalogue.has_gpu(plan.training_type)
    address = catalogue.training_image(plan.target.region, is_gpu)
    remedy = f"correct the tag in trainer/{catalogue.CATALOGUE.name}; its source lists AWS's"
    yield _image(plan, "training image", address, remedy)


def end_of_patch(plan: Plan) -> Iterator[Row]:
    """Until when AWS mends what is used."""
    known, settings = catalogue.load(), plan.settings
    image = "gpu" if catalogue.has_gpu(plan.training_type) else "cpu"
    yield _patched(plan, "training image", known.entries["training_image", image])
    yield _known(plan, "Lambda runtime", "lambda_runtime", settings.runtime)
    if settings.ec2_instance_type:
        yield _patched(plan, "EC2 machine image", known.entries["machine_image", "pytorch"])
    if settings.notebook_instance_type and settings.notebook_platform:
        yield _known(plan, "notebook platform", "notebook_platform", settings.notebook_platform)


def job_log_group(plan: Plan) -> Iterator[Row]:
    """Whether training jobs have a log: no role may make the group, and SageMaker says nothing."""
    name, group = "log group of jobs", job_logs.found(plan.target).get(job_logs.TRAINING)
    if group is None:
        remedy = (
            f"{plan.make('apply STACK=foundation')} makes it, unless enable_job_log_groups is off"
        )
        found = f"there is no {job_logs.TRAINING}: jobs would leave no logs"
        yield Row(name, "fail" if plan.instance_type else "warn", found, remedy)
    elif "retentionInDays" not in group:
        remedy = (
            f"`aws logs put-retention-policy --region {plan.target.region} --log-group-name "
            f"{job_logs.TRAINING} --retention-in-days 30`, if nobody needs them longer"
        )
        yield Row(name, "warn", f"{job_logs.TRAINING} keeps logs for ever", remedy)
    else:
        yield Row(name, "pass", f"{job_logs.TRAINING}, {group['retentionInDays']} days")


def sagemaker_quotas(plan: Plan) -> Iterator[Row]:
    """How many machines SageMaker lets the account have."""
    pages = plan.target.client("service-quotas").get_paginator("list_service_quotas")
    quotas = {
        quota["QuotaName"]: int(quota["Value"])
        for page in pages.paginate(ServiceCode="sagemaker")
        for quota in page["Quotas"]
    }
    settings = plan.settings
    use = "spot training job usage" if plan.is_spot else "training job usage"
    # Who did not ask for a type may never train in the cloud.
    state: State = "fail" if plan.instance_type else "warn"
    yield _quota(quotas, f"{plan.training_type} for {use}", plan.instances, "", state)
    most = settings.endpoint_instances
    yield _quota(
        quotas,
        f"{settings.endpoint_instance_type} for endpoint usage",
        2 * most,
        f" (a release runs both fleets, of {most} at most)",
    )
    if settings.notebook_instance_type:
        name = f"{settings.notebook_instance_type} for notebook instance usage"
        yield _quota(quotas, name, 1)


def ec2_quota(plan: Plan) -> Iterator[Row]:
    """How many processors EC2 lets the account have at a time."""
    kind = plan.settings.ec2_instance_type
    if kind is None:
        return
    codes = _EC2_QUOTAS.get(re.split(r"\d", kind)[0])
    if codes is None:
        remedy = "look for its family in the Service Quotas console"
        yield Row(f"quota: {kind}", "warn", "not looked at", remedy)
        return
    quota = plan.target.client("service-quotas").get_service_quota(
        ServiceCode="ec2", QuotaCode=codes[plan.settings.is_spot]
    )["Quota"]
    allowed = {quota["QuotaName"]: int(quota["Value"])}
    needed, why = catalogue.machine(kind).vcpus, f" (vCPUs of a {kind})"
    yield _quota(allowed, quota["QuotaName"], needed, why, "warn")


def budget(plan: Plan) -> Iterator[Row]:
    """Whether the budget counts anything: a tag does so only once the account has activated it."""
    client, name = plan.target.client("budgets"), plan.target.prefix
    try:
        found = client.describe_budget(AccountId=plan.target.account, BudgetName=name)["Budget"]
    except client.exceptions.NotFoundException:
        return
    # As in "user:project$kennel".
    tags = found.get("CostFilters", {}).get("TagKeyValue", [])
    keys = sorted({tag.partition("$")[0].removeprefix("user:") for tag in tags})
    costs = plan.target.client("ce")
    listed = costs.list_cost_allocation_tags(TagKeys=keys, Status="Active") if keys else {}
    active = {tag["TagKey"] for tag in listed.get("CostAllocationTags", [])}
    if idle := [key for key in keys if key not in active]:
        told = " ".join(f"TagKey={key},Status=Active" for key in idle)
        command = f"aws ce update-cost-allocation-tags-status --cost-allocation-tags-status {told}"
        if plan.target.fence:
            command = outputs.here(command)
        remedy = (
            f"`{command}` in the account that pays, a day after the first resources; or "
            f'budget_scope = "account" in terraform/environments/{plan.target.name}'
            ".foundation.tfvars"
        )
        yield Row("budget", "warn", f"counts nothing: {', '.join(idle)} is not activated", remedy)
    else:
        yield Row("budget", "pass", f"counts {', '.join(tags) or 'the whole account'}")


def machine_image(plan: Plan) -> Iterator[Row]:
    """Whether AWS publishes the EC2 trainer's image, and the root volume holds it."""
    settings = plan.settings
    if settings.ec2_instance_type is None:
        return
    name, client = "EC2 machine image", plan.target.client("ssm")
    variables = f"terraform/environments/{plan.target.name}.foundation.tfvars"
    image = settings.ec2_image
    if image is None:
        published = catalogue.load().entries["machine_image", "pytorch"].value
        try:
            image = str(client.get_parameter(Name=published)["Parameter"]["Value"])
        except client.exceptions.ParameterNotFound:
            remedy = f"set ec2_trainer.ami_id in {variables}, or enable_ec2_trainer = false"
            yield Row(name, "fail", f"AWS has no {published} here", remedy)
            return
    wanted = [{"Name": "image-id", "Values": [image]}]
    found = plan.target.client("ec2").describe_images(Filters=wanted)["Images"]
    if not found:
        remedy = f"correct ec2_trainer.ami_id in {variables}"
        yield Row(name, "fail", f"{image} is not there for this account", remedy)
        return
    root = found[0].get("RootDeviceName", "")
    sizes = {
        mapping["DeviceName"]: mapping.get("Ebs", {}).get("VolumeSize", 0)
        for mapping in found[0].get("BlockDeviceMappings", [])
    }
    held = f"{image}, {sizes.get(root, 0)} GiB on {root}; the volume has {settings.ec2_volume_gb}"
    if sizes.get(root, 0) > settings.ec2_volume_gb:
        remedy = f"set ec2_trainer.volume_size_gb to {sizes[root] + 10} in {variables}"
        yield Row(name, "fail", held, remedy)
    elif root != _ROOT_DEVICE:
        remedy = f"its root is not {_ROOT_DEVICE}: the module's root_device_name must say {root}"
        yield Row(name, "warn", held, remedy)
    else:
        yield Row(name, "pass", held)


def ec2_zones(plan: Plan) -> Iterator[Row]:
    """In which zones EC2 has the trainer's machine, and whether a subnet is in one."""
    kind = plan.settings.ec2_instance_type
    if kind is None:
        return
    client, name = plan.target.client("ec2"), f"zones with {kind}"
    offered = {
        offer["Location"]
        for page in client.get_paginator("describe_instance_type_offerings").paginate(
            LocationType="availability-zone",
            Filters=[{"Name": "instance-type", "Values": [kind]}],
        )
        for offer in page["InstanceTypeOfferings"]
    }
    told = plan.target.parameter("ec2_subnet_ids")
    usable = offered
    if told:
        subnets = client.describe_subnets(SubnetIds=told.split(","))["Subnets"]
        usable = offered & {subnet["AvailabilityZone"] for subnet in subnets}
    if usable:
        yield Row(name, "pass", ", ".join(sorted(usable)))
    else:
        where = ", ".join(sorted(offered)) or "none of this region"
        remedy = "set vpc.subnet_ids of the foundation to subnets there, or another instance type"
        yield Row(name, "fail", f"offered in {where}; no subnet is there", remedy)


def lambda_concurrency(plan: Plan) -> Iterator[Row]:
    """Whether the function's warm and reserved environments are left to it."""
    name, settings, client = "Lambda concurrency", plan.settings, plan.target.client("lambda")
    limit = client.get_account_settings()["AccountLimit"]
    total, free = limit["ConcurrentExecutions"], limit["UnreservedConcurrentExecutions"]
    usable = max(0, free + _reserved(plan.target) - min(_UNRESERVED, total))
    needed = max(settings.warm, settings.reserved or 0)
    found = f"{needed} wanted, {usable} of {total} can be reserved or kept warm"
    if needed <= usable:
        yield Row(name, "pass", found)
    else:
        remedy = (
            "raise the quota `Concurrent executions` of Lambda, or set lambda = { "
            "provisioned_concurrency = { executions = 0 } } in "
            f"terraform/environments/{plan.target.name}.serving.tfvars until then"
        )
        yield Row(name, "fail", found, remedy)


def archive(plan: Plan) -> Iterator[Row]:
    """Whether the archive is sound, and fits into the endpoint's machine."""
    if plan.model is None:
        return
    source = deploy.find_latest(plan.target) if plan.model == deploy.LATEST else plan.model
    if source.startswith("s3://"):
        path = model.fetch(model.locate(source, plan.target), plan.target)
    else:
        path = model.local_file(source)
    opened = model.opened(path, source)
    yield Row("archive", "pass", f"{opened.name}, {len(opened.labels)} classes")
    yield memory(opened, plan.settings.endpoint_instance_type)


CHECKS = (
    Check("credentials", credentials, is_needed=True),
    Check("region", region),
    Check("Terraform", terraform, is_needed=True),
    Check("state bucket", state_bucket, is_needed=True),
    Check("bucket", bucket, is_needed=True),
    Check("serving image", serving_image, is_needed=True),
    Check("training image", training_image),
    Check("end of patch", end_of_patch),
    Check("log group of jobs", job_log_group),
    Check("quotas of SageMaker", sagemaker_quotas),
    Check("quota of EC2", ec2_quota),
    Check("budget", budget),
    Check("EC2 machine image", machine_image),
    Check("zones", ec2_zones),
    Check("Lambda concurrency", lambda_concurrency),
    Check("archive", archive, is_needed=True),
)
"""In the order in which a deployment meets what they look at."""


def _image(plan: Plan, name: str, address: str, remedy: str, mend: str | None = None) -> Row:
    """Look for an image; where its form can be mended, at that, too."""
    match = _IMAGE.fullmatch(address)
    if not match:
        advice = "SageMaker takes images from ECR: ACCOUNT.dkr.ecr.REGION.amazonaws.com/NAME@DIGEST"
        return Row(name, "fail", f"{address} is no image in ECR", advice)
    registry, where, repository, digest, tag = match.groups()
    if where != plan.target.region:
        return Row(name, "fail", f"{address} is in another region", remedy)
    wanted = {"imageDigest": digest} if digest else {"imageTag": tag}
    client = plan.target.client("ecr")
    try:
        found = client.batch_get_image(
            registryId=registry,
            repositoryName=repository,
            imageIds=[wanted],
            acceptedMediaTypes=list(image.FORMS),
        )["images"]
    except client.exceptions.RepositoryNotFoundException:
        found = []
    short = f"{repository}@{digest[:19]}" if digest else f"{repository}:{tag}"
    if found:
        form = found[0].get("imageManifestMediaType")
        if mend is None or form == image.MANIFEST:
            return Row(name, "pass", short)
        return Row(name, "fail", f"{short} is a {form}, which SageMaker refuses", mend)
    return Row(name, "fail", f"{short} is not in the registry of {registry}", remedy)


def _known(plan: Plan, name: str, kind: catalogue.Kind, value: str) -> Row:
    try:
        return _patched(plan, name, catalogue.load().find(kind, value))
    except KennelError as error:
        return Row(f"patches: {name}", "warn", f"unknown for {value}", str(error))


def _patched(plan: Plan, name: str, entry: catalogue.Entry) -> Row:
    short = entry.value.removesuffix("/latest/ami-id").rsplit("/", 1)[-1]
    title, left = f"patches: {name}", entry.days_left(plan.today)
    if left is None:
        return Row(title, "pass", f"{short}, replaced under its name")
    remedy = f"choose a later one; {entry.source} lists them"
    if left < 0:
        return Row(title, "fail", f"{short} ended on {entry.end_of_patch}", remedy)
    if left <= WARN_DAYS:
        return Row(title, "warn", f"{short} ends on {entry.end_of_patch}, in {left} days", remedy)
    return Row(title, "pass", f"{short} until {entry.end_of_patch}")


def _quota(
    quotas: dict[str, int], name: str, needed: int, why: str = "", state: State = "fail"
) -> Row:
    title = f"quota: {name}"
    if name not in quotas:
        remedy = "look in the Service Quotas console; AWS may not have that machine here"
        return Row(title, "warn", "not listed", remedy)
    found = f"{needed} wanted{why}, {quotas[name]} allowed"
    if quotas[name] >= needed:
        return Row(title, "pass", found)
    remedy = f"ask for {needed} in the Service Quotas console, or use fewer or others"
    return Row(title, state, found, remedy)


def _reserved(target: Target) -> int:
    """What the function has reserved already."""
    name = target.parameter("function_name")
    client = target.client("lambda")
    if name is None:
        return 0
    try:
        answer = client.get_function_concurrency(FunctionName=name)
    except client.exceptions.ResourceNotFoundException:
        return 0
    return int(answer.get("ReservedConcurrentExecutions", 0))


def memory(opened: "Model", instance_type: str) -> Row:
    """Whether a model is served within an endpoint's machine, all of its requests together."""
    # The serving half need not be installed where no archive is looked at.
    from inference.contract import MAX_BODY_BYTES
    from inference.preprocess import MAX_PIXELS

    name = f"memory of {instance_type}"
    try:
        machine = catalogue.machine(instance_type)
    except KennelError as error:
        return Row(name, "warn", "unknown", str(error))
    pictures = machine.vcpus * 3 * MAX_PIXELS + _QUEUE * MAX_BODY_BYTES
    network = _NETWORK_TIMES * opened.onnx.stat().st_size
    needed = (_SERVER_MIB * 2**20 + network + pictures) / 2**30
    found = f"at most {needed:.1f} GiB needed, of {machine.memory_gib}"
    if needed < machine.memory_gib:
        return Row(name, "pass", found)
    remedy = "set instance_type of the serving stack to a larger one"
    return Row(name, "fail", found, remedy)
