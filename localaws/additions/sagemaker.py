"""SageMaker: models, endpoints, notebook instances and model packages as AWS keeps them.

Nothing is executed here: an endpoint is `InService` as soon as it has a configuration. What runs a
model takes its place in `deploy`.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, cast

from botocore import xform_name
from moto.applicationautoscaling.models import applicationautoscaling_backends
from moto.core.responses import ActionResult, EmptyResult
from moto.core.utils import get_service_model, utcnow
from moto.sagemaker import models, responses, urls
from moto.sagemaker.exceptions import ConflictException, ValidationError
from moto.sagemaker.utils import arn_formatter

from localaws.additions import Gap
from localaws.additions import _sagemaker_training as training
from localaws.additions import _sagemaker_tuning as tuning
from localaws.additions._moto import ROLE, answer_with, plain_client, refuses
from localaws.additions._sagemaker_training import TrainingAnswers
from localaws.additions._sagemaker_tuning import TuningAnswers
from localaws.additions.application_autoscaling import VARIANT_INSTANCES, delete_scaling

_CONFIG_MEMBERS = (
    "EnableNetworkIsolation",
    "ExecutionRoleArn",
    "ExplainerConfig",
    "ShadowProductionVariants",
    "VpcConfig",
)
_NOTEBOOK_MEMBERS = (
    "InstanceMetadataServiceConfiguration",
    "IpAddressType",
    "PlatformIdentifier",
)
_NOTEBOOK_UPDATES = (
    *_NOTEBOOK_MEMBERS,
    "AcceleratorTypes",
    "AdditionalCodeRepositories",
    "DefaultCodeRepository",
    "InstanceType",
    "LifecycleConfigName",
    "RoleArn",
    "RootAccess",
    "VolumeSizeInGB",
)
_NOTEBOOK_REMOVALS = {
    "DisassociateAcceleratorTypes": "accelerator_types",
    "DisassociateAdditionalCodeRepositories": "additional_code_repositories",
    "DisassociateDefaultCodeRepository": "default_code_repository",
    "DisassociateLifecycleConfig": "lifecycle_config_name",
}
_PACKAGE_MEMBERS = (
    "ModelCard",
    "ModelLifeCycle",
    "SecurityConfig",
    "SkipModelValidation",
    "SourceUri",
)


class EndpointConfig(models.FakeEndpointConfig):
    """An endpoint configuration with today's instance types."""

    def validate_instance_type(self, instance_type: str) -> None:
        """Refuse an instance type that SageMaker does not know."""
        _require_enum("ProductionVariantInstanceType", instance_type)


class NotebookInstance(models.FakeSagemakerNotebookInstance):
    """A notebook instance with all that `CreateNotebookInstance` takes."""

    # As AWS fills in what was not asked for.
    instance_metadata_service_configuration: Mapping[str, str] = {
        "MinimumInstanceMetadataServiceVersion": "1"
    }
    ip_address_type = "ipv4"
    platform_identifier = "notebook-al2-v3"

    def validate_instance_type(self, instance_type: str) -> None:
        """Refuse an instance type that SageMaker does not know."""
        _require_enum("InstanceType", instance_type)

    def to_dict(self) -> dict[str, Any]:
        """What `DescribeNotebookInstance` answers."""
        described = super().to_dict()
        described.update({name: getattr(self, xform_name(name)) for name in _NOTEBOOK_MEMBERS})
        described["RootAccess"] = self.root_access or "Enabled"
        return described


class ModelPackage(models.ModelPackage):
    """A model package whose version is free."""

    def __init__(self, **given: Any) -> None:
        group = given["model_package_group_name"]
        if group:
            backend = models.sagemaker_backends[given["account_id"]][given["region_name"]]
            # Moto counts, and would give a number twice once a package is deleted.
            given["model_package_version"] = 1 + max(
                (package.model_package_version or 0 for package in _packages(backend, group)),
                default=0,
            )
        super().__init__(**given)


class Answers(TrainingAnswers, TuningAnswers, responses.SageMakerResponse):
    """Moto's answers, mended."""

    def create_model(self) -> ActionResult:
        """Create a model of a new name; what was not given is not described."""
        stored, name = self.sagemaker_backend._models, self._get_param("ModelName")
        self._refuse_existing("model", name, stored)
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
        self._refuse_existing("endpoint configuration", name, backend.endpoint_configs)
        backend.validate_production_variants(self._get_param("ShadowProductionVariants", []))
        answer = super().create_endpoint_config()
        config = backend.endpoint_configs[name]
        vars(config).update(
            {xform_name(member): self._get_param(member) for member in _CONFIG_MEMBERS},
            arn=config.endpoint_config_arn,
            data_capture_config=config.data_capture_config or None,
        )
        return answer

    def create_endpoint(self) -> ActionResult:
        """Create an endpoint of a new name."""
        backend, name = self.sagemaker_backend, self._get_param("EndpointName")
        self._refuse_existing("endpoint", name, backend.endpoints)
        config = self._config()
        endpoint = models.FakeEndpoint(  # type: ignore[abstract]
            account_id=backend.account_id,
            region_name=backend.region_name,
            endpoint_name=name,
            endpoint_config_name=config.endpoint_config_name,
            production_variants=[],
            data_capture_config={},
            tags=self._get_param("Tags"),
        )
        vars(endpoint).update(last_deployment_config=self._get_param("DeploymentConfig"))
        deploy(backend, endpoint, config)
        backend.endpoints[name] = endpoint
        return ActionResult({"EndpointArn": endpoint.arn})

    def update_endpoint(self) -> ActionResult:
        """Move an endpoint to another configuration."""
        backend, config = self.sagemaker_backend, self._config()
        endpoint = self._endpoint()
        if endpoint.endpoint_config_name == config.endpoint_config_name:
            raise ValidationError(
                "Cannot update endpoint with the currently in use endpoint configuration"
                f' "{config.endpoint_config_name}".'
            )
        _refuse_scaled(backend, endpoint, config)
        retained: set[str] = set()
        if self._get_param("RetainAllVariantProperties", False):
            excluded = self._get_param("ExcludeRetainedVariantProperties", [])
            retained = {"DataCaptureConfig", "DesiredInstanceCount", "DesiredWeight"} - {
                variant_property["VariantPropertyType"] for variant_property in excluded
            }
        deploy(backend, endpoint, config, retained)
        if not self._get_param("RetainDeploymentConfig", False):
            vars(endpoint).update(last_deployment_config=self._get_param("DeploymentConfig"))
        return ActionResult({"EndpointArn": endpoint.arn})

    def update_endpoint_weights_and_capacities(self) -> ActionResult:
        """Change weights or counts; what is not given stays."""
        running = {found["VariantName"]: found for found in self._endpoint().production_variants}
        for desired in self._get_param("DesiredWeightsAndCapacities"):
            for member in ("DesiredWeight", "DesiredInstanceCount"):
                former = running.get(desired["VariantName"], {}).get(member)
                desired.setdefault(member, former)
        return super().update_endpoint_weights_and_capacities()

    def delete_endpoint(self) -> ActionResult:
        """Delete an endpoint, and deregister its variants as scalable targets."""
        backend, endpoint = self.sagemaker_backend, self._endpoint()
        scaling = applicationautoscaling_backends[backend.account_id][backend.region_name]
        for variant in endpoint.production_variants:
            delete_scaling(scaling, _scalable_resource(endpoint, variant), VARIANT_INSTANCES)
        return super().delete_endpoint()

    def create_notebook_instance(self) -> ActionResult:
        """Create a notebook instance with all that was given."""
        answer = super().create_notebook_instance()
        self._change_notebook(_NOTEBOOK_MEMBERS)
        return answer

    def update_notebook_instance(self) -> ActionResult:
        """Change a notebook instance that is stopped."""
        notebook = self._notebook()
        if not notebook.is_deletable:
            raise ValidationError(
                f"Status ({notebook.status}) not in ([Stopped, Failed]). Unable to transition to"
                f" (Updating) for Notebook Instance ({notebook.arn})"
            )
        notebook.validate_instance_type(self._get_param("InstanceType", notebook.instance_type))
        self._change_notebook(_NOTEBOOK_UPDATES)
        removed = [name for flag, name in _NOTEBOOK_REMOVALS.items() if self._get_param(flag)]
        vars(notebook).update(dict.fromkeys(removed))
        notebook.last_modified_time = utcnow()
        return EmptyResult()

    def create_notebook_instance_lifecycle_config(self) -> ActionResult:
        """Create a lifecycle configuration with its tags."""
        answer = super().create_notebook_instance_lifecycle_config()
        vars(self._lifecycle_config()).update(tags=self._get_param("Tags") or [])
        return answer

    def update_notebook_instance_lifecycle_config(self) -> ActionResult:
        """Change the scripts of a lifecycle configuration."""
        config = self._lifecycle_config()
        config.on_create = self._get_param("OnCreate", config.on_create)
        config.on_start = self._get_param("OnStart", config.on_start)
        config.last_modified_time = utcnow()
        return EmptyResult()

    def create_model_package_group(self) -> ActionResult:
        """Create a group of a new name."""
        backend, name = self.sagemaker_backend, self._get_param("ModelPackageGroupName")
        if name in backend.model_package_groups:
            arn = backend.model_package_groups[name].arn
            raise ValidationError(f"Model Package Group already exists: {arn}")
        return super().create_model_package_group()

    def describe_model_package_group(self) -> ActionResult:
        """Describe a group that nobody in a SageMaker domain made."""
        answer = super().describe_model_package_group()
        return ActionResult({**cast(dict[str, Any], answer.result), "CreatedBy": {}})

    def delete_model_package_group(self) -> ActionResult:
        """Delete a group that has no packages left."""
        backend, name = self.sagemaker_backend, self._get_param("ModelPackageGroupName")
        group = backend.describe_model_package_group(name)
        if any(_packages(backend, group.model_package_group_name)):
            raise ConflictException(
                f"Model Package Group {group.arn} cannot be deleted as it contains model packages."
            )
        del backend.model_package_groups[group.model_package_group_name]
        return EmptyResult()

    def create_model_package(self) -> ActionResult:
        """Create a model package with all that was given."""
        answer = super().create_model_package()
        arn = cast(dict[str, str], answer.result)["ModelPackageArn"]
        package = self.sagemaker_backend.model_packages[arn]
        vars(package).update(
            {xform_name(member): self._get_param(member) for member in _PACKAGE_MEMBERS},
            tags=package.tags or [],
        )
        return answer

    def describe_model_package(self) -> ActionResult:
        """Describe a model package with all that was given."""
        answer = super().describe_model_package()
        package = self.sagemaker_backend.describe_model_package(self._get_param("ModelPackageName"))
        more = {member: vars(package).get(xform_name(member)) for member in _PACKAGE_MEMBERS}
        given = {member: value for member, value in more.items() if value is not None}
        return ActionResult({**cast(dict[str, Any], answer.result), **given})

    def update_model_package(self) -> ActionResult:
        """Change what is given of a model package; moto would forget the rest."""
        package = self.sagemaker_backend.describe_model_package(self._get_param("ModelPackageArn"))
        self.params.setdefault("ApprovalDescription", package.approval_description)
        self.params.setdefault("ModelApprovalStatus", package.model_approval_status)
        self.params["CustomerMetadataProperties"] = {
            **(package.customer_metadata_properties or {}),
            **self._get_param("CustomerMetadataProperties", {}),
        }
        answer = super().update_model_package()
        for member in _PACKAGE_MEMBERS:
            if member in self.params:
                setattr(package, xform_name(member), self.params[member])
        return answer

    def delete_model_package(self) -> ActionResult:
        """Delete one model package."""
        backend = self.sagemaker_backend
        package = backend.describe_model_package(self._get_param("ModelPackageName"))
        del backend.model_packages[package.arn]
        for name, arn in list(backend.model_package_name_mapping.items()):
            if arn == package.arn:
                del backend.model_package_name_mapping[name]
        return EmptyResult()

    def list_tags(self) -> ActionResult:
        """The tags of anything that has an ARN."""
        return ActionResult({"Tags": self._tagged().tags})

    def add_tags(self) -> ActionResult:
        """Add tags, in the place of those with the same keys."""
        tagged, tags = self._tagged(), self._get_param("Tags")
        keys = {tag["Key"] for tag in tags}
        tagged.tags = [tag for tag in tagged.tags if tag["Key"] not in keys] + tags
        return ActionResult({"Tags": tagged.tags})

    def delete_tags(self) -> ActionResult:
        """Remove tags."""
        tagged, keys = self._tagged(), self._get_param("TagKeys")
        tagged.tags = [tag for tag in tagged.tags if tag["Key"] not in keys]
        return EmptyResult()

    def _refuse_existing(self, kind: str, name: str, stored: Mapping[str, Any]) -> None:
        if name in stored:
            raise ValidationError(
                f'Cannot create already existing {kind} "{self._arn(kind, name)}".'
            )

    def _endpoint(self) -> models.FakeEndpoint:
        name = self._get_param("EndpointName")
        if name not in self.sagemaker_backend.endpoints:
            raise ValidationError(f'Could not find endpoint "{self._arn("endpoint", name)}".')
        return self.sagemaker_backend.endpoints[name]

    def _config(self) -> models.FakeEndpointConfig:
        kind, name = "endpoint configuration", self._get_param("EndpointConfigName")
        if name not in self.sagemaker_backend.endpoint_configs:
            raise ValidationError(f'Could not find {kind} "{self._arn(kind, name)}".')
        return self.sagemaker_backend.endpoint_configs[name]

    def _arn(self, kind: str, name: str) -> str:
        backend = self.sagemaker_backend
        kind = "endpoint-config" if kind == "endpoint configuration" else kind
        return arn_formatter(kind, name, backend.account_id, backend.region_name)

    def _notebook(self) -> models.FakeSagemakerNotebookInstance:
        return self.sagemaker_backend.get_notebook_instance(self._get_param("NotebookInstanceName"))

    def _change_notebook(self, members: Iterable[str]) -> None:
        given = {member: self._get_param(member) for member in members}
        vars(self._notebook()).update(
            {xform_name(member): value for member, value in given.items() if value is not None}
        )

    def _lifecycle_config(self) -> models.FakeSageMakerNotebookInstanceLifecycleConfig:
        name = self._get_param("NotebookInstanceLifecycleConfigName")
        configs = self.sagemaker_backend.notebook_instance_lifecycle_configurations
        if name not in configs:
            # Raises: it is the service's own error for an unknown name.
            self.sagemaker_backend.describe_notebook_instance_lifecycle_config(name)
        return configs[name]

    def _tagged(self) -> Any:
        arn = self._get_param("ResourceArn")
        for stored in vars(self.sagemaker_backend).values():
            for found in stored.values() if isinstance(stored, dict) else ():
                if getattr(found, "arn", None) == arn:
                    return found
        raise ValidationError(f"Could not find resource with ARN: {arn}")


def deploy(
    backend: models.SageMakerModelBackend,
    endpoint: models.FakeEndpoint,
    config: models.FakeEndpointConfig,
    retained: Iterable[str] = (),
) -> None:
    """Put a configuration in service.

    Args:
        backend: Where the models of the configuration are.
        endpoint: The endpoint.
        config: What it is to serve.
        retained: What stays as it is in variants of the same name: `DesiredInstanceCount`,
            `DesiredWeight`, `DataCaptureConfig`.

    Raises:
        ValidationError: A model of the configuration was deleted.
    """
    shadows = vars(config).get("shadow_production_variants") or []
    backend.validate_production_variants([*config.production_variants, *shadows])
    running = {found["VariantName"]: found for found in endpoint.production_variants}
    described = vars(endpoint)
    capture = described["data_capture_config"] if "DataCaptureConfig" in retained else None
    described.update(
        async_inference_config=config.async_inference_config,
        # The configuration itself may be deleted while the endpoint serves it.
        config=config,
        data_capture_config=capture or _capture(config),
        endpoint_config_name=config.endpoint_config_name,
        endpoint_status="InService",
        last_modified_time=utcnow(),
        production_variants=[
            _running(backend, variant, running.get(variant["VariantName"], {}), retained)
            for variant in config.production_variants
        ],
        shadow_production_variants=[_running(backend, variant) for variant in shadows] or None,
    )


def _running(
    backend: models.SageMakerModelBackend,
    variant: Mapping[str, Any],
    former: Mapping[str, Any] | None = None,
    retained: Iterable[str] = (),
) -> dict[str, Any]:
    """What `DescribeEndpoint` says of a variant."""
    desired = {
        "InstanceCount": variant.get("InitialInstanceCount"),
        "ServerlessConfig": variant.get("ServerlessConfig"),
        "Weight": variant.get("InitialVariantWeight", 1.0),
    }
    for name in retained:
        if former and name in former:
            desired[name.removeprefix("Desired")] = former[name]
    summary = {
        f"{when}{name}": value
        for name, value in desired.items()
        for when in ("Current", "Desired")
        if value is not None
    }
    kept = ("ManagedInstanceScaling", "RoutingConfig", "VariantName")
    return {
        **{name: variant[name] for name in kept if name in variant},
        **summary,
        "DeployedImages": [
            {"SpecifiedImage": image, "ResolvedImage": image, "ResolutionTime": utcnow()}
            for image in _images(backend._models[variant["ModelName"]])
        ],
    }


def _images(model: models.Model) -> list[str]:
    containers = [model.primary_container] if model.primary_container else model.containers or []
    return [container["Image"] for container in containers if "Image" in container]


def _capture(config: models.FakeEndpointConfig) -> dict[str, Any] | None:
    """What `DescribeEndpoint` says of data capture."""
    given = config.data_capture_config
    if not given:
        return None
    enabled = given.get("EnableCapture", False)
    return {
        "CaptureStatus": "Started" if enabled else "Stopped",
        "CurrentSamplingPercentage": given["InitialSamplingPercentage"],
        "DestinationS3Uri": given["DestinationS3Uri"],
        "EnableCapture": enabled,
        "KmsKeyId": given.get("KmsKeyId", ""),
    }


def _refuse_scaled(
    backend: models.SageMakerModelBackend,
    endpoint: models.FakeEndpoint,
    config: models.FakeEndpointConfig,
) -> None:
    """Refuse to remove, or to change the instance type of, a variant that is scaled."""
    scaling = applicationautoscaling_backends[backend.account_id][backend.region_name]
    scaled = scaling.targets.get(VARIANT_INSTANCES, {})
    wanted = {new["VariantName"]: new.get("InstanceType") for new in config.production_variants}
    served: models.FakeEndpointConfig = vars(endpoint)["config"]
    refused = [
        variant["VariantName"]
        for variant in served.production_variants
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


def _packages(backend: models.SageMakerModelBackend, group: str) -> Iterable[models.ModelPackage]:
    return (
        package
        for package in backend.model_packages.values()
        if package.model_package_group_name == group
    )


def _require_enum(shape: str, value: str) -> None:
    # Botocore knows the service's own list; a client that is newer may know more.
    known = get_service_model("sagemaker").shape_for(shape).enum
    if value not in known:
        raise ValidationError(
            f"1 validation error detected: Value '{value}' at 'instanceType' failed to satisfy"
            f" constraint: Member must satisfy enum value set: [{', '.join(known)}]"
        )


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


def _create_notebook(client: Any, **more: Any) -> None:
    client.create_notebook_instance(
        **{
            "NotebookInstanceName": "probe",
            "InstanceType": "ml.t3.medium",
            "RoleArn": ROLE,
            **more,
        }
    )


def _create_group(client: Any) -> str:
    arn: str = client.create_model_package_group(ModelPackageGroupName="probe")[
        "ModelPackageGroupArn"
    ]
    return arn


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


def _notebook_keeps_platform() -> bool:
    with plain_client("sagemaker") as client:
        _create_notebook(client, PlatformIdentifier="notebook-al2-v3")
        described = client.describe_notebook_instance(NotebookInstanceName="probe")
        return "PlatformIdentifier" in described


def _notebook_takes_new_instance_types() -> bool:
    with plain_client("sagemaker") as client:
        return not refuses(lambda: _create_notebook(client, InstanceType="ml.g5.xlarge"))


def _group_describes_creator() -> bool:
    with plain_client("sagemaker") as client:
        _create_group(client)
        described = client.describe_model_package_group(ModelPackageGroupName="probe")
        return "CreatedBy" in described


def _group_name_is_unique() -> bool:
    with plain_client("sagemaker") as client:
        _create_group(client)
        return refuses(lambda: _create_group(client))


def _package_keeps_source() -> bool:
    with plain_client("sagemaker") as client:
        _create_group(client)
        arn = client.create_model_package(
            ModelPackageGroupName="probe", SourceUri="s3://probe/model"
        )["ModelPackageArn"]
        return "SourceUri" in client.describe_model_package(ModelPackageName=arn)


def _package_keeps_metadata() -> bool:
    with plain_client("sagemaker") as client:
        _create_group(client)
        arn = client.create_model_package(
            ModelPackageGroupName="probe", CustomerMetadataProperties={"a": "b"}
        )["ModelPackageArn"]
        client.update_model_package(ModelPackageArn=arn, ModelApprovalStatus="Approved")
        return "CustomerMetadataProperties" in client.describe_model_package(ModelPackageName=arn)


def _tags_replace() -> bool:
    with plain_client("sagemaker") as client:
        arn = _create_group(client)
        for value in ("old", "new"):
            client.add_tags(ResourceArn=arn, Tags=[{"Key": "a", "Value": value}])
        return len(client.list_tags(ResourceArn=arn)["Tags"]) == 1


def _config_has_arn() -> bool:
    with plain_client("sagemaker") as client:
        _create_model(client)
        _create_config(client, Tags=[{"Key": "a", "Value": "b"}])
        with plain_client("resourcegroupstaggingapi") as tagging:
            found = tagging.get_resources()["ResourceTagMappingList"]
            return all(resource["ResourceARN"].startswith("arn:") for resource in found)


def _missing(operation: str, effect: str) -> Gap:
    def answered() -> bool:
        return hasattr(responses.SageMakerResponse, xform_name(operation))

    return Gap("sagemaker", operation, effect, answered)


def _flawed(where: str, effect: str, closed: Callable[[], bool]) -> Gap:
    return Gap("sagemaker", where, effect, closed)


GAPS = [
    *training.GAPS,
    *tuning.GAPS,
    _flawed(
        "DescribeModel",
        "empty structures that nobody gave: Terraform replaces the model in every plan",
        _model_answers_only_what_is_given,
    ),
    _flawed(
        "DescribeModel.EnableNetworkIsolation",
        "always false: Terraform replaces the model in every plan",
        _model_keeps_isolation,
    ),
    _flawed("CreateModel", "a name in use is taken, which AWS refuses", _model_name_is_unique),
    _flawed(
        "DescribeEndpointConfig.DataCaptureConfig",
        "an empty structure that nobody gave: SageMaker's SDK rejects the answer",
        _config_answers_only_what_is_given,
    ),
    _flawed(
        "DescribeEndpointConfig.ShadowProductionVariants",
        "dropped, as are the configuration's isolation, network, role and explainer",
        _config_keeps_shadows,
    ),
    _flawed(
        "CreateEndpointConfig",
        "a name in use is taken, which AWS refuses: no order of create and destroy is tested",
        _config_name_is_unique,
    ),
    _flawed(
        "CreateEndpointConfig.InstanceType",
        "types that are newer than 2021 are refused",
        _config_takes_new_instance_types,
    ),
    _flawed(
        "CreateEndpoint", "a name in use is taken, which AWS refuses", _endpoint_name_is_unique
    ),
    _flawed(
        "DescribeEndpoint.DataCaptureConfig",
        "the configuration's structure, which lacks the required members of the answer's",
        _endpoint_describes_capture,
    ),
    _missing("UpdateEndpoint", "no endpoint can move to another model"),
    _flawed(
        "UpdateEndpointWeightsAndCapacities",
        "a new count deletes the weight, a new weight the count",
        _endpoint_keeps_weight,
    ),
    _flawed(
        "DeleteEndpoint",
        "scalable targets outlive their endpoint",
        _endpoint_deregisters_targets,
    ),
    _flawed(
        "DescribeNotebookInstance.PlatformIdentifier",
        "dropped, as are the metadata service's version and the address type: endless diff",
        _notebook_keeps_platform,
    ),
    _flawed(
        "CreateNotebookInstance.InstanceType",
        "types that are newer than 2021 are refused",
        _notebook_takes_new_instance_types,
    ),
    _missing("UpdateNotebookInstance", "a notebook instance cannot be changed"),
    _missing("UpdateNotebookInstanceLifecycleConfig", "a lifecycle script cannot be changed"),
    _flawed(
        "DescribeModelPackageGroup.CreatedBy",
        "a required member is missing: SageMaker's SDK rejects the answer",
        _group_describes_creator,
    ),
    _flawed(
        "CreateModelPackageGroup",
        "a name in use is taken, which AWS refuses, and its packages are lost",
        _group_name_is_unique,
    ),
    _missing("DeleteModelPackageGroup", "`terraform destroy` fails"),
    _flawed(
        "DescribeModelPackage.SourceUri",
        "dropped, as are the model card, the life cycle and the security configuration",
        _package_keeps_source,
    ),
    _flawed(
        "UpdateModelPackage",
        "an approval deletes the package's metadata",
        _package_keeps_metadata,
    ),
    _missing("DeleteModelPackage", "a model registry cannot be emptied"),
    _flawed("AddTags", "a tag that has another value is there twice: endless diff", _tags_replace),
    _flawed(
        "CreateEndpointConfig.Tags",
        "the configuration's ARN is not one for whoever lists tagged resources",
        _config_has_arn,
    ),
]


def install() -> None:
    """Put the additions in moto's place."""
    models.FakeEndpointConfig = EndpointConfig  # type: ignore[misc]
    models.FakeSagemakerNotebookInstance = NotebookInstance  # type: ignore[misc]
    models.ModelPackage = ModelPackage  # type: ignore[assignment,misc]
    answer_with(urls, Answers)
