"""SageMaker: models, endpoints, jobs, notebook instances and model packages as AWS keeps them."""

from base64 import b64decode
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any, cast

from botocore import xform_name
from moto.core.responses import ActionResult, EmptyResult
from moto.core.utils import utcnow
from moto.sagemaker import models, urls
from moto.sagemaker.exceptions import ConflictException, ValidationError

from localaws import network
from localaws.additions import _sagemaker_endpoints as endpoints
from localaws.additions import _sagemaker_jobs as jobs
from localaws.additions import _sagemaker_training as training
from localaws.additions import _sagemaker_tuning as tuning
from localaws.additions._moto import ROLE, answer_with, page, plain_client, refuses
from localaws.additions._sagemaker import flawed, missing
from localaws.additions._sagemaker_data import not_assumed
from localaws.additions._sagemaker_endpoints import EndpointAnswers, EndpointConfig
from localaws.additions._sagemaker_jobs import JobAnswers
from localaws.additions._sagemaker_training import TrainingAnswers
from localaws.additions._sagemaker_tuning import TuningAnswers
from localaws.execution import RoleError, require_trust, running
from localaws.hosting.endpoints import Endpoints

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
# AWS takes minutes. Nothing starts here, so what is left of them is the states: each is there until
# somebody has seen it, or for as long as on AWS.
_NOTEBOOK_MOVES, _NOTEBOOK_UNSEEN = timedelta(seconds=1), timedelta(minutes=2)
_DELETED = "Deleted"
_NOTEBOOK_SERVICE = "sagemaker.amazonaws.com"
_TAGS = 50
_PACKAGE_MEMBERS = (
    "ModelCard",
    "ModelLifeCycle",
    "SecurityConfig",
    "SkipModelValidation",
    "SourceUri",
)


class NotebookInstance(models.FakeSagemakerNotebookInstance):
    """A notebook instance with all that `CreateNotebookInstance` takes."""

    # As AWS fills in what was not asked for.
    instance_metadata_service_configuration: Mapping[str, str] = {
        "MinimumInstanceMetadataServiceVersion": "1"
    }
    ip_address_type = "ipv4"
    platform_identifier = "notebook-al2-v3"
    _moves: tuple[str, datetime] | None = None
    _settled = "InService"
    _is_seen = False

    @property
    def status(self) -> str:
        """Where it is; for a while on the way there."""
        if self._moves:
            through, began = self._moves
            if utcnow() - began < (_NOTEBOOK_MOVES if self._is_seen else _NOTEBOOK_UNSEEN):
                return through
        return self._settled

    @status.setter
    def status(self, settled: str) -> None:
        self._settled = settled

    def move(self, through: str, settled: str) -> None:
        """Go to another status; where something is executed, not at once."""
        if running(Endpoints):
            self._moves, self._is_seen = (through, utcnow()), False
        self._settled = settled

    def start(self) -> None:
        """Begin to run."""
        self.move("Pending", "InService")

    def stop(self) -> None:
        """Begin to end."""
        self.move("Stopping", "Stopped")

    def require(self, target: str, *wanted: str) -> None:
        """Refuse what it cannot do from where it is.

        Raises:
            ValidationError: It is in none of the statuses wanted.
        """
        if self.status not in wanted:
            raise ValidationError(
                f"Status ({self.status}) not in ([{', '.join(wanted)}]). Unable to transition to"
                f" ({target}) for Notebook Instance ({self.arn})"
            )

    def validate_instance_type(self, instance_type: str) -> None:
        """Take every type: what SageMaker does not know was refused before, see `bounds`."""

    def to_dict(self) -> dict[str, Any]:
        """What `DescribeNotebookInstance` answers."""
        described = super().to_dict()
        described.update({name: getattr(self, xform_name(name)) for name in _NOTEBOOK_MEMBERS})
        described["RootAccess"] = self.root_access or "Enabled"
        self._is_seen = True
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


class Answers(EndpointAnswers, JobAnswers, TrainingAnswers, TuningAnswers):
    """Moto's answers, mended."""

    @property
    def sagemaker_backend(self) -> models.SageMakerModelBackend:
        """Moto's records, without the notebook instances that are deleted by now."""
        backend = super().sagemaker_backend
        for name, notebook in list(backend.notebook_instances.items()):
            if notebook.status == _DELETED:
                del backend.notebook_instances[name]
        return backend

    def create_notebook_instance(self) -> ActionResult:
        """Create a notebook instance with all that was given, of what is there."""
        self._refuse_notebook()
        answer = super().create_notebook_instance()
        self._change_notebook(_NOTEBOOK_MEMBERS)
        return answer

    def start_notebook_instance(self) -> ActionResult:
        """Start a notebook instance that is stopped."""
        self._notebook().require("Pending", "Stopped", "Failed")
        return super().start_notebook_instance()

    def stop_notebook_instance(self) -> ActionResult:
        """Stop a notebook instance that runs."""
        self._notebook().require("Stopping", "InService")
        return super().stop_notebook_instance()

    def update_notebook_instance(self) -> ActionResult:
        """Change a notebook instance that is stopped."""
        notebook = self._notebook()
        notebook.require("Updating", "Stopped", "Failed")
        size = self._get_param("VolumeSizeInGB", notebook.volume_size_in_gb)
        if size < notebook.volume_size_in_gb:
            raise ValidationError(
                f"VolumeSizeInGB cannot be decreased, from {notebook.volume_size_in_gb} to {size}."
            )
        self._refuse_notebook()
        self._change_notebook(_NOTEBOOK_UPDATES)
        removed = [name for flag, name in _NOTEBOOK_REMOVALS.items() if self._get_param(flag)]
        vars(notebook).update(dict.fromkeys(removed))
        notebook.last_modified_time = utcnow()
        notebook.move("Updating", "Stopped")
        return EmptyResult()

    def delete_notebook_instance(self) -> ActionResult:
        """Delete a notebook instance that is stopped."""
        notebook = self._notebook()
        notebook.require("Deleting", "Stopped", "Failed")
        if not running(Endpoints):
            return super().delete_notebook_instance()
        notebook.move("Deleting", _DELETED)
        return EmptyResult()

    def create_notebook_instance_lifecycle_config(self) -> ActionResult:
        """Create a lifecycle configuration with its tags."""
        self._refuse_scripts()
        answer = super().create_notebook_instance_lifecycle_config()
        vars(self._lifecycle_config()).update(tags=self._get_param("Tags") or [])
        return answer

    def update_notebook_instance_lifecycle_config(self) -> ActionResult:
        """Change the scripts of a lifecycle configuration."""
        config = self._lifecycle_config()
        self._refuse_scripts()
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
        """Create a model package with all that was given; once for each token of a caller's."""
        stored, token = self.sagemaker_backend.model_packages, self._get_param("ClientToken")
        for made in stored.values() if token else ():
            if vars(made).get("client_token") == token:
                return ActionResult({"ModelPackageArn": made.arn})
        answer = super().create_model_package()
        arn = cast(dict[str, str], answer.result)["ModelPackageArn"]
        package = self.sagemaker_backend.model_packages[arn]
        vars(package).update(
            {xform_name(member): self._get_param(member) for member in _PACKAGE_MEMBERS},
            client_token=token,
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
        """The tags of anything that has an ARN, a page at a time."""
        size = self._get_param("MaxResults", _TAGS)
        tags, token = page(self._tagged().tags, self._get_param("NextToken"), size)
        return ActionResult({"Tags": tags, **token})

    def add_tags(self) -> ActionResult:
        """Add tags, in the place of those with the same keys."""
        tagged, tags = self._tagged(), self._get_param("Tags")
        if own := [tag["Key"] for tag in tags if tag["Key"].lower().startswith("aws:")]:
            raise ValidationError(f"{own[0]}: tag keys that begin with aws: are reserved for AWS.")
        keys = {tag["Key"] for tag in tags}
        tagged.tags = [tag for tag in tagged.tags if tag["Key"] not in keys] + tags
        return ActionResult({"Tags": tagged.tags})

    def delete_tags(self) -> ActionResult:
        """Remove tags."""
        tagged, keys = self._tagged(), self._get_param("TagKeys")
        tagged.tags = [tag for tag in tagged.tags if tag["Key"] not in keys]
        return EmptyResult()

    def _notebook(self) -> NotebookInstance:
        name = self._get_param("NotebookInstanceName")
        return cast(NotebookInstance, self.sagemaker_backend.get_notebook_instance(name))

    def _refuse_notebook(self) -> None:
        """Refuse a notebook instance of what is not there."""
        config, subnet = self._get_param("LifecycleConfigName"), self._get_param("SubnetId")
        if not running(Endpoints):
            return
        if role := self._get_param("RoleArn"):
            try:
                require_trust(role, _NOTEBOOK_SERVICE)
            except RoleError as error:
                raise ValidationError(not_assumed(role, error)) from error
        if config:
            # Raises for an unknown one.
            self.sagemaker_backend.describe_notebook_instance_lifecycle_config(config)
        groups = self._get_param("SecurityGroupIds") or []
        if bool(subnet) != bool(groups):
            raise ValidationError("SubnetId and SecurityGroupIds must be given together.")
        if self._get_param("DirectInternetAccess") == "Disabled" and not subnet:
            raise ValidationError("DirectInternetAccess can only be Disabled with a SubnetId.")
        if subnet:
            try:
                network.require({"Subnets": [subnet], "SecurityGroupIds": groups})
            except network.NetworkError as error:
                raise ValidationError(str(error)) from error

    def _change_notebook(self, members: Iterable[str]) -> None:
        given = {member: self._get_param(member) for member in members}
        vars(self._notebook()).update(
            {xform_name(member): value for member, value in given.items() if value is not None}
        )

    def _refuse_scripts(self) -> None:
        """Refuse a script that is no base64; `base64 FILE` breaks its lines."""
        for member in ("OnCreate", "OnStart"):
            for hook in self._get_param(member) or []:
                try:
                    b64decode("".join(hook["Content"].split()), validate=True)
                except ValueError as error:
                    raise ValidationError(
                        f"The content of {member} must be encoded as base64: {error}."
                    ) from error

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
                # Of a model card all versions are kept; the tags are those of the first.
                tagged = found[0] if isinstance(found, list) and found else found
                if getattr(tagged, "arn", None) == arn:
                    return tagged
        raise ValidationError(f"Could not find resource with ARN: {arn}")


def _packages(backend: models.SageMakerModelBackend, group: str) -> Iterable[models.ModelPackage]:
    return (
        package
        for package in backend.model_packages.values()
        if package.model_package_group_name == group
    )


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


GAPS = [
    *endpoints.GAPS,
    *jobs.GAPS,
    *training.GAPS,
    *tuning.GAPS,
    flawed(
        "DescribeNotebookInstance.PlatformIdentifier",
        "dropped, as are the metadata service's version and the address type: endless diff",
        _notebook_keeps_platform,
    ),
    flawed(
        "CreateNotebookInstance.InstanceType",
        "types that are newer than 2021 are refused",
        _notebook_takes_new_instance_types,
    ),
    missing("UpdateNotebookInstance", "a notebook instance cannot be changed"),
    missing("UpdateNotebookInstanceLifecycleConfig", "a lifecycle script cannot be changed"),
    flawed(
        "DescribeModelPackageGroup.CreatedBy",
        "a required member is missing: SageMaker's SDK rejects the answer",
        _group_describes_creator,
    ),
    flawed(
        "CreateModelPackageGroup",
        "a name in use is taken, which AWS refuses, and its packages are lost",
        _group_name_is_unique,
    ),
    missing("DeleteModelPackageGroup", "`terraform destroy` fails"),
    flawed(
        "DescribeModelPackage.SourceUri",
        "dropped, as are the model card, the life cycle and the security configuration",
        _package_keeps_source,
    ),
    flawed(
        "UpdateModelPackage",
        "an approval deletes the package's metadata",
        _package_keeps_metadata,
    ),
    missing("DeleteModelPackage", "a model registry cannot be emptied"),
    flawed("AddTags", "a tag that has another value is there twice: endless diff", _tags_replace),
]


def install() -> None:
    """Put the additions in moto's place."""
    models.FakeEndpointConfig = EndpointConfig  # type: ignore[misc]
    models.FakeSagemakerNotebookInstance = NotebookInstance  # type: ignore[misc]
    models.ModelPackage = ModelPackage  # type: ignore[assignment,misc]
    endpoints.install()
    answer_with(urls, Answers)
