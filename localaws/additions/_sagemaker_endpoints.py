"""SageMaker's models, endpoint configurations and endpoints.

Where localaws executes, a new endpoint is `Creating` and one that changes is `Updating` until its
containers serve; where it keeps records only, both are `InService` at once.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, cast

from botocore import xform_name
from moto.applicationautoscaling.models import applicationautoscaling_backends
from moto.core.responses import ActionResult, EmptyResult
from moto.sagemaker import models, responses
from moto.sagemaker.exceptions import ValidationError
from moto.sagemaker.utils import arn_formatter

from localaws.additions._moto import ACCOUNT, REGION, ROLE, plain_client, refuses, wrap
from localaws.additions._sagemaker import flawed, missing
from localaws.additions._sagemaker_data import require_model_data
from localaws.additions._sagemaker_deployments import refuse_deployment, refuse_other_names
from localaws.additions._sagemaker_images import refuse_image
from localaws.additions._sagemaker_quotas import instances, require_endpoint
from localaws.additions._sagemaker_volumes import refuse_volume_key
from localaws.additions.application_autoscaling import delete_scaling
from localaws.additions.ecr import OCI_MANIFEST
from localaws.execution import running
from localaws.hosting import records
from localaws.hosting.endpoints import Endpoints
from localaws.monitoring.scaling import VARIANT_INSTANCES
from localaws.operations import RefusedError

_CONFIG_MEMBERS = (
    "EnableNetworkIsolation",
    "ExecutionRoleArn",
    "ExplainerConfig",
    "ShadowProductionVariants",
    "VpcConfig",
)


class EndpointConfig(models.FakeEndpointConfig):
    """An endpoint configuration with today's instance types, and nothing that nobody gave."""

    def __init__(self, *given: Any, **named: Any) -> None:
        """Make the record; CloudFormation gives what is empty for what is not there."""
        super().__init__(*given, **named)
        vars(self).update(
            arn=self.endpoint_config_arn,
            async_inference_config=self.async_inference_config or None,
            data_capture_config=self.data_capture_config or None,
        )

    def validate_instance_type(self, instance_type: str) -> None:
        """Take every type: what SageMaker does not know was refused before, see `bounds`."""


class EndpointAnswers(responses.SageMakerResponse):
    """Moto's answers about models, endpoint configurations and endpoints, mended."""

    def create_model(self) -> ActionResult:
        """Create a model of a new name and of images that SageMaker takes.

        What was not given is not described.
        """
        stored, name = self.sagemaker_backend._models, self._get_param("ModelName")
        _refuse_existing(self.sagemaker_backend, "model", name, stored)
        one, several = self._get_param("PrimaryContainer"), self._get_param("Containers", [])
        for container in [one, *several]:
            refuse_image(self.sagemaker_backend, container or {})
        if hosting := running(Endpoints):
            if bool(one) == bool(several):
                raise ValidationError(
                    "One of PrimaryContainer and Containers must be given, and not both."
                )
            require_model_data(
                hosting.execution, self._get_param("ExecutionRoleArn"), [one] if one else several
            )
        answer = super().create_model()
        model = stored[name]
        vars(model).update(
            containers=model.containers or None,
            enable_network_isolation=self._get_param("EnableNetworkIsolation", False),
            inference_execution_config=self._get_param("InferenceExecutionConfig"),
            primary_container=model.primary_container or None,
            vpc_config=model.vpc_config or None,
        )
        return answer

    def create_endpoint_config(self) -> ActionResult:
        """Create a configuration of a new name, with all its members."""
        backend, name = self.sagemaker_backend, self._get_param("EndpointConfigName")
        _refuse_existing(backend, "endpoint configuration", name, backend.endpoint_configs)
        shadows = self._get_param("ShadowProductionVariants", [])
        backend.validate_production_variants(shadows)
        variants = [*self._get_param("ProductionVariants"), *shadows]
        names = [variant["VariantName"] for variant in variants]
        if repeated := {name for name in names if names.count(name) > 1}:
            raise ValidationError(f"Variant names must be unique: {', '.join(sorted(repeated))}.")
        refuse_volume_key(self._get_param("KmsKeyId"), variants)
        answer = super().create_endpoint_config()
        config = backend.endpoint_configs[name]
        vars(config).update(
            {xform_name(member): self._get_param(member) for member in _CONFIG_MEMBERS}
        )
        return answer

    def create_endpoint(self) -> ActionResult:
        """Create an endpoint of a new name."""
        endpoint = _create(
            self.sagemaker_backend,
            self._get_param("EndpointName"),
            self._get_param("EndpointConfigName"),
            self._get_param("Tags"),
            self._get_param("DeploymentConfig"),
        )
        return ActionResult({"EndpointArn": endpoint.arn})

    def describe_endpoint(self) -> ActionResult:
        """Describe an endpoint, and what it is about to serve."""
        answer, endpoint = super().describe_endpoint(), self._endpoint()
        if pending := records.pending(endpoint):
            described = cast(dict[str, Any], answer.result)
            summary = records.summary(pending)
            return ActionResult({**described, "PendingDeploymentSummary": summary})
        return answer

    def update_endpoint(self) -> ActionResult:
        """Move an endpoint to another configuration."""
        backend = self.sagemaker_backend
        config = _config(backend, self._get_param("EndpointConfigName"))
        endpoint, served = self._serving_endpoint()
        if endpoint.endpoint_config_name == config.endpoint_config_name:
            raise ValidationError(
                "Cannot update endpoint with the currently in use endpoint configuration"
                f' "{config.endpoint_config_name}".'
            )
        retained: set[str] = set()
        if self._get_param("RetainAllVariantProperties", False):
            excluded = self._get_param("ExcludeRetainedVariantProperties", [])
            retained = {"DataCaptureConfig", "DesiredInstanceCount", "DesiredWeight"} - {
                variant_property["VariantPropertyType"] for variant_property in excluded
            }
        deployment = self._get_param("DeploymentConfig")
        if self._get_param("RetainDeploymentConfig", False):
            deployment = vars(endpoint)["last_deployment_config"]
        _update(backend, endpoint, config, deployment, served, retained)
        return ActionResult({"EndpointArn": endpoint.arn})

    def update_endpoint_weights_and_capacities(self) -> ActionResult:
        """Change weights or counts; what is not given stays."""
        endpoint, served = self._serving_endpoint()
        before = {found["VariantName"]: dict(found) for found in endpoint.production_variants}
        more = Counter[str]()
        for desired in self._get_param("DesiredWeightsAndCapacities"):
            for member in ("DesiredWeight", "DesiredInstanceCount"):
                former = before.get(desired["VariantName"], {}).get(member)
                desired.setdefault(member, former)
            if variant := before.get(desired["VariantName"]):
                kind = served.settings(variant).get("InstanceType", "")
                wanted, has = desired["DesiredInstanceCount"], variant.get("DesiredInstanceCount")
                more[kind] += int(wanted or 0) - int(has or 0)
        require_endpoint(self.sagemaker_backend, more)
        answer = super().update_endpoint_weights_and_capacities()
        if hosting := running(Endpoints):
            for variant in endpoint.production_variants:
                count = before[variant["VariantName"]].get("CurrentInstanceCount")
                variant.update(CurrentInstanceCount=count)
            endpoint.endpoint_status = "Updating"
            hosting.scale(endpoint)
        return answer

    def delete_endpoint(self) -> ActionResult:
        """Delete an endpoint, and deregister its variants as scalable targets."""
        self.sagemaker_backend.delete_endpoint(self._get_param("EndpointName"))
        return EmptyResult()

    def _endpoint(self) -> models.FakeEndpoint:
        return _found(self.sagemaker_backend, self._get_param("EndpointName"))

    def _serving_endpoint(self) -> tuple[models.FakeEndpoint, records.Release]:
        return _serving(_settled(self._endpoint()))


Backend = models.SageMakerModelBackend


def _create(
    backend: Backend,
    name: str,
    config_name: str,
    tags: list[dict[str, str]],
    deployment: Mapping[str, Any] | None,
) -> models.FakeEndpoint:
    _refuse_existing(backend, "endpoint", name, backend.endpoints)
    config = _config(backend, config_name)
    _refuse_unserved(backend, config)
    refuse_deployment(deployment, config.production_variants)
    release = records.release(backend, config, deployment)
    require_endpoint(backend, instances(release))
    endpoint = models.FakeEndpoint(  # type: ignore[abstract]
        account_id=backend.account_id,
        region_name=backend.region_name,
        endpoint_name=name,
        endpoint_config_name=config.endpoint_config_name,
        production_variants=[],
        data_capture_config={},
        tags=tags,
    )
    vars(endpoint).update(data_capture_config=None, last_deployment_config=deployment)
    backend.endpoints[name] = endpoint
    _release(endpoint, release, "Creating")
    return endpoint


def _update(
    backend: Backend,
    endpoint: models.FakeEndpoint,
    config: models.FakeEndpointConfig,
    deployment: Mapping[str, Any] | None,
    served: records.Release,
    retained: Iterable[str] = (),
) -> None:
    _refuse_scaled(backend, endpoint, served, config)
    _refuse_unserved(backend, config)
    refuse_deployment(deployment, config.production_variants)
    refuse_other_names(deployment, served.variants, config.production_variants)
    release = records.release(backend, config, deployment, served, retained)
    require_endpoint(backend, instances(release))
    vars(endpoint).update(last_deployment_config=deployment)
    _release(endpoint, release, "Updating")


def _refuse_unserved(backend: Backend, config: models.FakeEndpointConfig) -> None:
    """Refuse by name what no server here would do."""
    refused = {
        "AsyncInferenceConfig": vars(config).get("async_inference_config"),
        "ExplainerConfig": vars(config).get("explainer_config"),
        "ServerlessConfig": any("ServerlessConfig" in v for v in config.production_variants),
    }
    for variant in config.production_variants:
        model = backend._models.get(variant.get("ModelName", ""))
        containers = model.containers or [] if model else []
        one = (model.primary_container or {}) if model else {}
        refused["a model of several containers"] = len(containers) > 1
        modes = {container.get("Mode") for container in [one, *containers]}
        refused["a multi-model container"] = "MultiModel" in modes
        for what, is_given in refused.items():
            if is_given:
                raise RefusedError(f"nothing here serves {what}")


def _create_from_template(
    _: Any,
    backend: Backend,
    endpoint_name: str,
    endpoint_config_name: str,
    tags: list[dict[str, str]],
) -> models.FakeEndpoint:
    """Create an endpoint as CloudFormation does."""
    return _create(backend, endpoint_name, endpoint_config_name, tags, None)


def _update_from_template(
    original_resource: models.FakeEndpoint,
    new_resource_name: str,
    cloudformation_json: Mapping[str, Any],
    account_id: str,
    region_name: str,
) -> models.FakeEndpoint:
    """Move an endpoint to another configuration as CloudFormation does."""
    backend = models.sagemaker_backends[account_id][region_name]
    endpoint, served = _serving(_settled(original_resource))
    config = _config(backend, cloudformation_json["Properties"]["EndpointConfigName"])
    if config.endpoint_config_name != endpoint.endpoint_config_name:
        _update(backend, endpoint, config, None, served)
    return endpoint


def _delete(original: Any, backend: Backend, endpoint_name: str) -> None:
    endpoint = _settled(_found(backend, endpoint_name))
    scaling = applicationautoscaling_backends[backend.account_id][backend.region_name]
    for variant in endpoint.production_variants:
        delete_scaling(scaling, _scalable_resource(endpoint, variant), VARIANT_INSTANCES)
    if hosting := running(Endpoints):
        endpoint.endpoint_status = "Deleting"
        hosting.delete(endpoint)
    else:
        original(backend, endpoint_name)


def _refuse_existing(backend: Backend, kind: str, name: str, stored: Mapping[str, Any]) -> None:
    if name in stored:
        raise ValidationError(
            f'Cannot create already existing {kind} "{_arn(backend, kind, name)}".'
        )


def _found(backend: Backend, name: str) -> models.FakeEndpoint:
    if name not in backend.endpoints:
        raise ValidationError(f'Could not find endpoint "{_arn(backend, "endpoint", name)}".')
    return backend.endpoints[name]


def _settled(endpoint: models.FakeEndpoint) -> models.FakeEndpoint:
    if endpoint.endpoint_status not in {"InService", "Failed"}:
        raise ValidationError(f'Cannot update in-progress endpoint "{endpoint.arn}".')
    return endpoint


def _serving(endpoint: models.FakeEndpoint) -> tuple[models.FakeEndpoint, records.Release]:
    served = records.served(endpoint)
    if not served:
        raise ValidationError(
            f'Cannot update endpoint "{endpoint.arn}" with status "Failed". Delete it instead.'
        )
    return endpoint, served


def _config(backend: Backend, name: str) -> models.FakeEndpointConfig:
    kind = "endpoint configuration"
    if name not in backend.endpoint_configs:
        raise ValidationError(f'Could not find {kind} "{_arn(backend, kind, name)}".')
    return backend.endpoint_configs[name]


def _arn(backend: Backend, kind: str, name: str) -> str:
    kind = "endpoint-config" if kind == "endpoint configuration" else kind
    return arn_formatter(kind, name, backend.account_id, backend.region_name)


def _release(endpoint: models.FakeEndpoint, release: records.Release, status: str) -> None:
    """Bring a release into service; at once where nothing is executed."""
    records.begin(endpoint, release, status)
    if hosting := running(Endpoints):
        hosting.release(endpoint)
    else:
        records.finish(endpoint)


def _refuse_scaled(
    backend: models.SageMakerModelBackend,
    endpoint: models.FakeEndpoint,
    served: records.Release,
    config: models.FakeEndpointConfig,
) -> None:
    """Refuse to remove, or to change the instance type of, a variant that is scaled."""
    scaling = applicationautoscaling_backends[backend.account_id][backend.region_name]
    scaled = scaling.targets.get(VARIANT_INSTANCES, {})
    wanted = {new["VariantName"]: new.get("InstanceType") for new in config.production_variants}
    refused = [
        variant["VariantName"]
        for variant in served.config.production_variants
        if _scalable_resource(endpoint, variant) in scaled
        and wanted.get(variant["VariantName"]) != variant.get("InstanceType")
    ]
    if refused:
        names = ", ".join(f'"{name}"' for name in refused)
        raise ValidationError(
            f'The variant(s) "[{names}]" must be deregistered as scalable targets with AWS Auto'
            " Scaling before they can be removed or have their instance type updated."
        )


def _scalable_resource(endpoint: models.FakeEndpoint, variant: Mapping[str, Any]) -> str:
    return f"endpoint/{endpoint.endpoint_name}/variant/{variant['VariantName']}"


_VARIANT = {
    "VariantName": "main",
    "ModelName": "probe",
    "InstanceType": "ml.m5.large",
    "InitialInstanceCount": 1,
    "InitialVariantWeight": 1.0,
}


def _create_model(client: Any, **more: Any) -> None:
    client.create_model(ModelName="probe", ExecutionRoleArn=ROLE, **more)


def _create_config(client: Any, **more: Any) -> None:
    config = {"EndpointConfigName": "probe", "ProductionVariants": [_VARIANT], **more}
    client.create_endpoint_config(**config)


def _create_endpoint(client: Any) -> None:
    _create_model(client, PrimaryContainer={"Image": "probe"})
    capture = {
        "EnableCapture": True,
        "InitialSamplingPercentage": 1,
        "DestinationS3Uri": "s3://probe",
        "CaptureOptions": [{"CaptureMode": "Input"}],
    }
    _create_config(client, DataCaptureConfig=capture)
    client.create_endpoint(EndpointName="probe", EndpointConfigName="probe")


def _model_answers_only_what_is_given() -> bool:
    with plain_client("sagemaker") as client:
        _create_model(client, Containers=[{"Image": "probe"}])
        return not client.describe_model(ModelName="probe").keys() & {
            "PrimaryContainer",
            "VpcConfig",
        }


def _model_keeps_isolation() -> bool:
    with plain_client("sagemaker") as client:
        _create_model(client, EnableNetworkIsolation=True)
        return bool(client.describe_model(ModelName="probe")["EnableNetworkIsolation"])


def _model_refuses_oci() -> bool:
    image = f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/probe:probe"
    manifest = json.dumps({"schemaVersion": 2, "mediaType": OCI_MANIFEST})
    with plain_client("sagemaker") as client, plain_client("ecr") as ecr:
        ecr.create_repository(repositoryName="probe")
        ecr.put_image(repositoryName="probe", imageManifest=manifest, imageTag="probe")
        return refuses(lambda: _create_model(client, PrimaryContainer={"Image": image}))


def _model_name_is_unique() -> bool:
    with plain_client("sagemaker") as client:
        _create_model(client)
        return refuses(lambda: _create_model(client))


def _config_answers_only_what_is_given() -> bool:
    with plain_client("sagemaker") as client:
        _create_model(client)
        _create_config(client)
        described = client.describe_endpoint_config(EndpointConfigName="probe")
        return "DataCaptureConfig" not in described


def _config_keeps_shadows() -> bool:
    with plain_client("sagemaker") as client:
        _create_model(client)
        _create_config(client, ShadowProductionVariants=[{**_VARIANT, "VariantName": "shadow"}])
        described = client.describe_endpoint_config(EndpointConfigName="probe")
        return "ShadowProductionVariants" in described


def _config_name_is_unique() -> bool:
    with plain_client("sagemaker") as client:
        _create_model(client)
        _create_config(client)
        return refuses(lambda: _create_config(client))


def _config_takes_new_instance_types() -> bool:
    with plain_client("sagemaker") as client:
        _create_model(client)
        variant = {**_VARIANT, "InstanceType": "ml.g5.xlarge"}
        return not refuses(lambda: _create_config(client, ProductionVariants=[variant]))


def _endpoint_name_is_unique() -> bool:
    with plain_client("sagemaker") as client:
        _create_endpoint(client)
        return refuses(
            lambda: client.create_endpoint(EndpointName="probe", EndpointConfigName="probe")
        )


def _endpoint_describes_capture() -> bool:
    with plain_client("sagemaker") as client:
        _create_endpoint(client)
        described = client.describe_endpoint(EndpointName="probe")
        return "CaptureStatus" in described["DataCaptureConfig"]


def _endpoint_keeps_weight() -> bool:
    with plain_client("sagemaker") as client:
        _create_endpoint(client)
        client.update_endpoint_weights_and_capacities(
            EndpointName="probe",
            DesiredWeightsAndCapacities=[{"VariantName": "main", "DesiredInstanceCount": 2}],
        )
        (variant,) = client.describe_endpoint(EndpointName="probe")["ProductionVariants"]
        return "DesiredWeight" in variant


def _endpoint_deregisters_targets() -> bool:
    scaled = {
        "ServiceNamespace": "sagemaker",
        "ResourceId": "endpoint/probe/variant/main",
        "ScalableDimension": VARIANT_INSTANCES,
    }
    with plain_client("sagemaker") as client, plain_client("application-autoscaling") as scaling:
        _create_endpoint(client)
        scaling.register_scalable_target(**scaled, MinCapacity=1, MaxCapacity=2)
        client.delete_endpoint(EndpointName="probe")
        left = scaling.describe_scalable_targets(ServiceNamespace="sagemaker")
        return not left["ScalableTargets"]


def _config_has_arn() -> bool:
    with plain_client("sagemaker") as client:
        _create_model(client)
        _create_config(client, Tags=[{"Key": "a", "Value": "b"}])
        with plain_client("resourcegroupstaggingapi") as tagging:
            found = tagging.get_resources()["ResourceTagMappingList"]
            return all(resource["ResourceARN"].startswith("arn:") for resource in found)


GAPS = [
    flawed(
        "DescribeModel",
        "empty structures that nobody gave: Terraform replaces the model in every plan",
        _model_answers_only_what_is_given,
    ),
    flawed(
        "DescribeModel.EnableNetworkIsolation",
        "always false: Terraform replaces the model in every plan",
        _model_keeps_isolation,
    ),
    flawed("CreateModel", "a name in use is taken, which AWS refuses", _model_name_is_unique),
    flawed(
        "CreateModel.Image",
        "any image is taken: one that is not there, in another region or in OCI's form, too",
        _model_refuses_oci,
    ),
    flawed(
        "DescribeEndpointConfig.DataCaptureConfig",
        "an empty structure that nobody gave: SageMaker's SDK rejects the answer",
        _config_answers_only_what_is_given,
    ),
    flawed(
        "DescribeEndpointConfig.ShadowProductionVariants",
        "dropped, as are the configuration's isolation, network, role and explainer",
        _config_keeps_shadows,
    ),
    flawed(
        "CreateEndpointConfig",
        "a name in use is taken, which AWS refuses: no order of create and destroy is tested",
        _config_name_is_unique,
    ),
    flawed(
        "CreateEndpointConfig.InstanceType",
        "types that are newer than 2021 are refused",
        _config_takes_new_instance_types,
    ),
    flawed("CreateEndpoint", "a name in use is taken, which AWS refuses", _endpoint_name_is_unique),
    flawed(
        "DescribeEndpoint.DataCaptureConfig",
        "the configuration's structure, which lacks the required members of the answer's",
        _endpoint_describes_capture,
    ),
    missing("UpdateEndpoint", "no endpoint can move to another model"),
    flawed(
        "UpdateEndpointWeightsAndCapacities",
        "a new count deletes the weight, a new weight the count",
        _endpoint_keeps_weight,
    ),
    flawed(
        "DeleteEndpoint",
        "scalable targets outlive their endpoint",
        _endpoint_deregisters_targets,
    ),
    flawed(
        "CreateEndpointConfig.Tags",
        "the configuration's ARN is not one for whoever lists tagged resources",
        _config_has_arn,
    ),
]


def install() -> None:
    """Let CloudFormation's endpoints be those of the API."""
    wrap(Backend, "create_endpoint", _create_from_template)
    wrap(Backend, "delete_endpoint", _delete)
    endpoint: Any = models.FakeEndpoint
    endpoint.update_from_cloudformation_json = staticmethod(_update_from_template)
