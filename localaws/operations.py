"""What becomes of each operation: it is executed, recorded, or refused by name.

*Executed*: what AWS would do happens here. *Recorded*: AWS only keeps what it is told, and so does
localaws; reading it is counted as that. *Refused*: AWS would do something that nothing here does,
so a success would be a lie; the answer is 501 with the operation's name.

Of the services in `STRICT` an operation is refused unless it stands in `EXECUTED` or `RECORDED`:
what a later moto adds is refused until somebody has read what it does. Of the other services named
here or in `AS_MOTO` moto's records are answered as they are, but for what stands in `REFUSED`. A
service that is named nowhere is refused as a whole.
`python -m localaws.additions --operations` writes docs/localaws-operations.md from this file.
"""

from collections.abc import Iterable, Iterator, Mapping
from importlib import import_module

from botocore import xform_name
from moto.backends import ALT_SERVICE_NAMES
from moto.core.utils import get_service_model

from localaws.additions import Gap


class RefusedError(NotImplementedError):
    """Nothing here does what a request asks for; the message says what would not be done."""


STRICT = (
    "events",
    "lambda",
    "sagemaker",
    "sagemaker-metrics",
    "sagemaker-runtime",
    "scheduler",
    "sns",
    "sqs",
)
"""Services of which only what stands here is answered."""


def _notes(*groups: tuple[str, str]) -> dict[str, str]:
    """The note of each operation, from groups of names that share one."""
    return {name: note for names, note in groups for name in names.split()}


EXECUTED: Mapping[str, Mapping[str, str]] = {
    "application-autoscaling": _notes(
        (
            "RegisterScalableTarget DeregisterScalableTarget PutScalingPolicy PutScheduledAction",
            "target tracking and schedules scale endpoints and provisioned concurrency",
        ),
    ),
    "cloudwatch": _notes(
        (
            "PutMetricAlarm PutCompositeAlarm SetAlarmState EnableAlarmActions DisableAlarmActions",
            "evaluated each period; acts by SNS topics and by endpoints' releases",
        ),
        ("PutMetricData GetMetricData GetMetricStatistics", "values are kept and computed with"),
    ),
    "codebuild": _notes(("StartBuild", "puts the image's record into the registry; builds none")),
    "ec2": _notes(
        ("RunInstances", "user data runs until it ends; GPU types take their time"),
        ("TerminateInstances StopInstances StartInstances", "ends or starts what runs"),
    ),
    "events": _notes(
        (
            "PutRule EnableRule DisableRule PutTargets",
            "patterns and schedules run functions, queues and topics, at most 5 a rule; other"
            " targets and sources of AWS that send nothing here are refused; no archive, no replay",
        ),
        (
            "PutEvents TestEventPattern",
            "targets' policies are asked; dead letters; all filters of patterns",
        ),
    ),
    "lambda": _notes(
        ("Invoke InvokeAsync", "the zip runs; sizes, limits, tries and dead letters as documented"),
        (
            "CreateEventSourceMapping UpdateEventSourceMapping DeleteEventSourceMapping",
            "queues only, in batches under the function's role; partial failures; no filters, no"
            " streams",
        ),
        (
            "PutFunctionEventInvokeConfig UpdateFunctionEventInvokeConfig"
            " DeleteFunctionEventInvokeConfig",
            "heeded by asynchronous invocations",
        ),
        (
            "PutProvisionedConcurrencyConfig DeleteProvisionedConcurrencyConfig"
            " PutFunctionConcurrency DeleteFunctionConcurrency",
            "environments are kept ready; what is over the limit is throttled",
        ),
        (
            "CreateFunctionUrlConfig UpdateFunctionUrlConfig DeleteFunctionUrlConfig",
            "served on the loopback interface; the function's policy is asked",
        ),
        ("AddPermission RemovePermission", "asked for each call, each URL and each service"),
    ),
    "sagemaker": _notes(
        (
            "CreateTrainingJob StopTrainingJob UpdateTrainingJob",
            "a process for each instance; bounds, role, channels and quotas checked",
        ),
        (
            "CreateProcessingJob StopProcessingJob",
            "a process for each instance, with a /opt/ml of its own; from S3 to S3, at the end or"
            " as it goes; dataset definitions, feature store, pipes, instance preferences,"
            " experiments and Spark are refused",
        ),
        (
            "CreateTransformJob StopTransformJob",
            "an inference server for each instance, under the model's role; whole objects or"
            " lines; data processing and capture, experiments, RecordIO, TFRecord, Converse and"
            " chunked bodies are refused",
        ),
        (
            "CreateHyperParameterTuningJob StopHyperParameterTuningJob",
            "trials are training jobs; bounds of the request's members checked",
        ),
        (
            "CreateEndpoint UpdateEndpoint DeleteEndpoint UpdateEndpointWeightsAndCapacities",
            "inference servers; releases step by step, with rollback and the limits of guardrails;"
            " quotas; serverless, asynchronous, explaining and multi-model endpoints are refused",
        ),
    ),
    "sagemaker-runtime": _notes(("InvokeEndpoint", "answered by the endpoint's servers")),
    "s3": _notes(
        (
            "PutBucketNotificationConfiguration",
            "destinations have to be there and to let the bucket in; functions, queues, topics and"
            " EventBridge are told of objects made, removed, tagged and shared; other events are"
            " refused",
        ),
        (
            "PutObject CopyObject CompleteMultipartUpload DeleteObject DeleteObjects"
            " GetObject HeadObject",
            "objects are files; the bucket's policy, conditions and locks are heeded",
        ),
    ),
    "scheduler": _notes(
        (
            "CreateSchedule UpdateSchedule DeleteSchedule",
            "keep to the clock; run functions, queues and topics under their role; other targets"
            " are refused",
        ),
    ),
    "sns": _notes(
        (
            "Subscribe Publish PublishBatch",
            "to queues and functions whose policies allow it, else to the dead-letter queue; a"
            " mail address stays pending; all other protocols are refused",
        ),
    ),
    "sqs": _notes(
        (
            "SendMessage SendMessageBatch ReceiveMessage DeleteMessage DeleteMessageBatch"
            " ChangeMessageVisibility ChangeMessageVisibilityBatch PurgeQueue",
            "as moto: visibility, delay, FIFO and redrive to a dead-letter queue",
        ),
    ),
}
"""What happens here as on AWS, with how strict it is."""

RECORDED: Mapping[str, Mapping[str, str]] = {
    "lambda": _notes(
        (
            "CreateFunction UpdateFunctionCode UpdateFunctionConfiguration DeleteFunction"
            " GetFunction GetFunctionConfiguration ListFunctions PublishVersion"
            " ListVersionsByFunction",
            "zip, environment and the role's rights checked; under way for seconds; what cannot run"
            " is refused by name when it is invoked",
        ),
        ("CreateAlias UpdateAlias DeleteAlias GetAlias ListAliases", "weights are drawn"),
        (
            "GetAccountSettings GetFunctionConcurrency GetFunctionEventInvokeConfig"
            " GetFunctionUrlConfig GetPolicy GetProvisionedConcurrencyConfig"
            " ListFunctionEventInvokeConfigs ListProvisionedConcurrencyConfigs"
            " GetFunctionCodeSigningConfig ListTags TagResource UntagResource",
            "",
        ),
        (
            "PublishLayerVersion DeleteLayerVersion GetLayerVersion ListLayers ListLayerVersions"
            " AddLayerVersionPermission GetLayerVersionPolicy RemoveLayerVersionPermission",
            "a function with layers is refused when it is invoked",
        ),
        ("GetEventSourceMapping ListEventSourceMappings", ""),
    ),
    "events": _notes(
        (
            "CreateEventBus DeleteEventBus DescribeEventBus ListEventBuses DeleteRule DescribeRule"
            " ListRules ListRuleNamesByTarget ListTargetsByRule RemoveTargets PutPermission"
            " RemovePermission ListTagsForResource TagResource UntagResource",
            "",
        ),
    ),
    "sagemaker": _notes(
        (
            "CreateModel DescribeModel ListModels DeleteModel CreateEndpointConfig"
            " DescribeEndpointConfig ListEndpointConfigs DeleteEndpointConfig",
            "bounds, instance types and names checked; a model's role and data have to be there",
        ),
        (
            "DescribeEndpoint ListEndpoints DescribeTrainingJob ListTrainingJobs DeleteTrainingJob"
            " DescribeProcessingJob ListProcessingJobs DeleteProcessingJob"
            " DescribeTransformJob ListTransformJobs"
            " DescribeHyperParameterTuningJob ListHyperParameterTuningJobs"
            " ListTrainingJobsForHyperParameterTuningJob DeleteHyperParameterTuningJob Search",
            "",
        ),
        (
            "CreateModelPackage DescribeModelPackage ListModelPackages UpdateModelPackage"
            " DeleteModelPackage CreateModelPackageGroup DescribeModelPackageGroup"
            " ListModelPackageGroups DeleteModelPackageGroup",
            "numbers, uniqueness and emptiness checked",
        ),
        (
            "CreateNotebookInstance StartNotebookInstance StopNotebookInstance"
            " UpdateNotebookInstance DeleteNotebookInstance DescribeNotebookInstance"
            " ListNotebookInstances CreateNotebookInstanceLifecycleConfig"
            " DescribeNotebookInstanceLifecycleConfig UpdateNotebookInstanceLifecycleConfig"
            " DeleteNotebookInstanceLifecycleConfig",
            "states in between; no notebook runs, and no lifecycle script: Kennel's foundation has"
            " one, nothing uses it",
        ),
        (
            "CreateExperiment DescribeExperiment ListExperiments DeleteExperiment CreateTrial"
            " DescribeTrial ListTrials DeleteTrial CreateTrialComponent DescribeTrialComponent"
            " ListTrialComponents UpdateTrialComponent DeleteTrialComponent"
            " AssociateTrialComponent DisassociateTrialComponent CreateModelCard DescribeModelCard"
            " ListModelCards ListModelCardVersions UpdateModelCard DeleteModelCard",
            "as moto",
        ),
        ("AddTags ListTags DeleteTags", ""),
    ),
    "sagemaker-metrics": _notes(("BatchPutMetrics", "as moto")),
    "scheduler": _notes(
        (
            "GetSchedule ListSchedules CreateScheduleGroup GetScheduleGroup ListScheduleGroups"
            " DeleteScheduleGroup ListTagsForResource TagResource UntagResource",
            "",
        ),
    ),
    "sns": _notes(
        (
            "CreateTopic DeleteTopic GetTopicAttributes SetTopicAttributes ListTopics"
            " AddPermission RemovePermission ConfirmSubscription Unsubscribe ListSubscriptions"
            " ListSubscriptionsByTopic GetSubscriptionAttributes SetSubscriptionAttributes"
            " ListTagsForResource TagResource UntagResource",
            "",
        ),
    ),
    "sqs": _notes(
        (
            "CreateQueue DeleteQueue GetQueueAttributes SetQueueAttributes GetQueueUrl ListQueues"
            " ListDeadLetterSourceQueues ListQueueTags TagQueue UntagQueue AddPermission"
            " RemovePermission",
            "",
        ),
    ),
}
"""What AWS only keeps, as localaws does, with how strict it is where that is not as moto is."""

REFUSED: Mapping[str, Mapping[str, str]] = {
    "athena": _notes(("StartQueryExecution", "no query would run")),
    "batch": _notes(("SubmitJob", "no job would run")),
    "cloudwatch": _notes(("PutInsightRule EnableInsightRules", "no rule would be evaluated")),
    "ec2": _notes(
        ("RequestSpotInstances RequestSpotFleet CreateFleet", "no user data would run"),
        ("RebootInstances", "nothing would start again"),
        ("CreateFlowLogs CreateTrafficMirrorSession", "no traffic would be seen"),
        ("BundleInstance ImportVolume", "no disk would be read"),
    ),
    "ecr": _notes(
        ("StartImageScan", "no image would be scanned"),
        ("PutReplicationConfiguration", "nothing would be replicated"),
    ),
    "events": _notes(
        ("CreateArchive StartReplay", "no event would come back"),
        ("CreateApiDestination CreateConnection", "no call would leave"),
        ("PutPartnerEvents CreatePartnerEventSource", "no partner sends events here"),
    ),
    "ecs": _notes(("RunTask StartTask CreateService", "no container would run")),
    "emr": _notes(("RunJobFlow AddJobFlowSteps", "no cluster would run")),
    "emr-serverless": _notes(("StartJobRun", "no job would run")),
    "emr-containers": _notes(("StartJobRun", "no job would run")),
    "glue": _notes(("StartJobRun StartCrawler StartTrigger", "nothing would run")),
    "logs": _notes(
        ("PutSubscriptionFilter", "nothing would be sent to the filter's destination"),
        (
            "PutDestination PutDeliverySource PutDeliveryDestination CreateDelivery",
            "nothing would be delivered",
        ),
        ("PutMetricFilter", "no metric would be published"),
        ("StartLiveTail", "no event would follow"),
        ("StartQuery", "no query would be computed; FilterLogEvents finds"),
    ),
    "s3": _notes(
        ("PutBucketReplication", "nothing would be replicated"),
        ("PutBucketInventoryConfiguration", "no inventory would be written"),
        ("PutBucketWebsite", "no page would be served"),
        ("PutBucketAccelerateConfiguration", "nothing would be nearer"),
        ("RestoreObject", "nothing here comes back from an archive"),
        ("SelectObjectContent", "no query would run; S3 has closed it to new customers"),
    ),
    "sagemaker": _notes(
        ("CreateAutoMLJobV2 StopAutoMLJob", "no candidate would be trained"),
        ("CreateCluster", "no instance would run"),
        ("CreateCompilationJob", "nothing would be compiled"),
        ("CreateDomain", "no Studio would run"),
        ("CreateFeatureGroup", "no store would hold features"),
        ("CreatePipeline UpdatePipeline StartPipelineExecution", "no step would run"),
        (
            "CreateDataQualityJobDefinition CreateModelBiasJobDefinition"
            " CreateModelExplainabilityJobDefinition CreateModelQualityJobDefinition",
            "nothing would be monitored",
        ),
    ),
    "sagemaker-runtime": _notes(
        ("InvokeEndpointAsync InvokeEndpointWithResponseStream", "no model would answer")
    ),
    "ses": _notes(("SendEmail SendRawEmail SendTemplatedEmail", "no mail would leave")),
    "sesv2": _notes(("SendEmail", "no mail would leave")),
    "sns": _notes(
        ("CreatePlatformApplication CreatePlatformEndpoint", "no message would leave"),
    ),
    "ssm": _notes(
        ("SendCommand", "no command would run"),
        (
            "CreateMaintenanceWindow RegisterTaskWithMaintenanceWindow",
            "no task would run",
        ),
    ),
    "stepfunctions": _notes(("StartExecution StartSyncExecution", "no step would run")),
    "sts": _notes(
        ("GetSessionToken GetFederationToken AssumeRoleWithSAML", "its keys would open nothing"),
    ),
}
"""Why an operation is refused; for those of `STRICT` that are not here nobody has said why."""


AS_MOTO = (
    "budgets",
    "ce",
    "cloudformation",
    "config",
    "dynamodb",
    "dynamodbstreams",
    "ecs",
    "iam",
    "kinesis",
    "kms",
    "resourcegroupstaggingapi",
    "s3control",
    "secretsmanager",
    "service-quotas",
)
"""Services of which nothing is executed, and moto's records are what AWS would keep, too."""

KEPT = frozenset({*STRICT, *AS_MOTO, *EXECUTED, *RECORDED, "ecr", "logs", "ssm", "sts"})
"""All services that are answered: in any other a record would say that something runs."""


def refusal(service: str, operation: str) -> str | None:
    """Why an operation is refused, empty where nobody has said why; None if it is answered.

    Args:
        service: The service's name in botocore.
        operation: The operation's name in botocore.
    """
    if why := REFUSED.get(service, {}).get(operation):
        return why
    if service not in KEPT:
        return "the service is none of those that it keeps"
    known = service not in STRICT or any(
        operation in kind.get(service, ()) for kind in (EXECUTED, RECORDED)
    )
    return None if known else ""


_HEAD = """# What localaws does with each operation

`python -m localaws.additions --operations` writes this file; a test says when it is out of date.

- **executed**: what AWS would do happens here.
- **recorded**: AWS only keeps what it is told, and so does localaws. Reading is counted as that.
- **refused**: AWS would do something that nothing here does. The answer is 501 with the operation's
  name.

*How strict* says what is checked and done; where it is empty, that is what moto does. *Mended* is
what would go wrong without localaws, with the last moto that was seen to have the fault. An
operation that neither moto nor localaws knows is refused, too, and not listed. What a later moto
adds to {strict}
is refused until somebody has said here what becomes of it. Services that are not listed are
refused, but for {as_moto}:
they answer with moto's records, for which localaws does not vouch.
"""
_ROW = "| {} | {} | {} | {} |"


def document(gaps: Iterable[Gap]) -> str:
    """The table of all operations as Markdown.

    Args:
        gaps: What the additions mend; moto's own classes are looked at, so before `install`.
    """
    mended: dict[tuple[str, str], list[Gap]] = {}
    for gap in gaps:
        name = gap.operation.replace(",", " ").split()[0].partition(".")[0]
        mended.setdefault((gap.service, name), []).append(gap)
    kinds = {"executed": EXECUTED, "recorded": RECORDED, "refused": REFUSED}
    services = {service for kind in kinds.values() for service in kind}
    listed = services | {service for service, _ in mended}
    as_moto = ", ".join(service for service in AS_MOTO if service not in listed)
    lines = [_HEAD.format(strict=", ".join(STRICT), as_moto=as_moto)]
    for service in sorted(listed):
        told = {
            name: (kind, note)
            for kind, of in kinds.items()
            for name, note in of.get(service, {}).items()
        }
        is_vouched_for = service in STRICT or any(of == service for of, _ in mended)
        answered = set(_answered(service)) if is_vouched_for else set()
        if service in STRICT:
            told |= dict.fromkeys(answered - set(told), ("refused", ""))
        else:
            mentioned = {name for of, name in mended if of == service}
            told |= dict.fromkeys(mentioned - set(told), ("recorded", ""))
        lines += [f"\n## {service}\n", _ROW.format("operation", "is", "how strict", "mended")]
        lines.append("|---|---|---|---|")
        for name in sorted(told):
            effects = (f"{g.effect} (moto {g.moto})" for g in mended.get((service, name), ()))
            lines.append(_ROW.format(name, *told[name], "; ".join(effects)).replace("  ", " "))
        if rest := sorted(answered - set(told)):
            lines.append(f"\nRecorded as moto does: {', '.join(rest)}.")
    return "\n".join(lines) + "\n"


def _answered(service: str) -> Iterator[str]:
    """The operations that moto answers."""
    module = ALT_SERVICE_NAMES.get(service, service.replace("-", ""))
    urls = import_module(f"moto.{module}.urls")
    classes = {getattr(answer, "__self__", None) for answer in urls.url_paths.values()} - {None}
    for name in get_service_model(service).operation_names:
        if any(hasattr(each, xform_name(name)) for each in classes):
            yield name
