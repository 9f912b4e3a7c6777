"""Lambda: a function's whole configuration, and what belongs to its aliases and versions."""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass
from datetime import datetime, timedelta
from io import BytesIO
from typing import Any, cast
from unittest.mock import patch
from urllib.parse import unquote
from uuid import uuid4
from zipfile import ZipFile

from botocore import xform_name
from moto.awslambda import models, responses, urls
from moto.awslambda.exceptions import (
    ConflictException,
    GenericResourcNotFound,
    InvalidParameterValueException,
    InvalidRoleFormat,
    LambdaClientError,
    UnknownAliasException,
    UnknownEventConfig,
)
from moto.awslambda.policy import Policy
from moto.awslambda.utils import get_backend
from moto.core.common_types import TYPE_RESPONSE
from moto.core.config import default_user_config
from moto.core.responses import ActionResult
from moto.core.utils import iso_8601_datetime_with_nanoseconds, utcnow

from localaws.additions import Gap
from localaws.additions._lambda_invocation import ResourceConflictException
from localaws.additions._lambda_requests import (
    refuse_code,
    refuse_destination,
    refuse_environment,
    refuse_new,
    refuse_revision,
    refuse_rights,
    refuse_weights,
)
from localaws.additions._lambda_sources import GAPS as SOURCE_GAPS
from localaws.additions._lambda_sources import SourceAnswers
from localaws.additions._moto import ACCOUNT, REGION, ROLE, answer_with, plain_client, refuses
from localaws.execution import RoleError, require_trust, running
from localaws.functions.records import LATEST, function_of, functions, versions_of, weights_of
from localaws.functions.service import (
    CONCURRENCY,
    NOT_ASSUMED,
    SERVICE,
    UNRESERVED_CONCURRENCY,
    Functions,
    Readiness,
)

_PROVISIONED_CONCURRENCY = (
    r"{0}/(?P<api_version>[^/]+)/functions/(?P<function_name>[\w_:%-]+)/provisioned-concurrency/?$"
)
_ACCOUNT_SETTINGS = r"{0}/(?P<api_version>[^/]+)/account-settings/?$"
# What differs between a function and a version of it though nothing was changed.
_IDENTITY = (
    "FunctionArn",
    "LastModified",
    "LastUpdateStatus",
    "RevisionId",
    "SnapStart",
    "State",
    "StateReason",
    "StateReasonCode",
    "Version",
)
_EVENT_INVOKE = {"DestinationConfig", "MaximumEventAgeInSeconds", "MaximumRetryAttempts"}
# How long a function is under way: not longer than until somebody was told so.
_MOVE_SECONDS = 3.0

Json = dict[str, Any]


class ProvisionedConcurrencyConfigNotFoundException(LambdaClientError):
    """Nothing is provisioned there."""

    code = 404

    def __init__(self) -> None:
        super().__init__(
            "ProvisionedConcurrencyConfigNotFoundException",
            "No Provisioned Concurrency Config found for this function",
        )


@dataclass
class Provisioned:
    """Environments that are kept ready."""

    executions: int
    last_modified: str

    def described(self, name: str, qualifier: str) -> Json:
        """What Lambda answers; where nothing is run, all are ready at once."""
        service = running(Functions)
        state = (
            service.readiness(name, qualifier, self.executions)
            if service
            else Readiness(self.executions, "READY")
        )
        return {
            "RequestedProvisionedConcurrentExecutions": self.executions,
            "AllocatedProvisionedConcurrentExecutions": state.ready,
            "AvailableProvisionedConcurrentExecutions": state.ready,
            "LastModified": self.last_modified,
            "Status": state.status,
            **({"StatusReason": state.reason} if state.reason else {}),
        }


class Url:
    """The URL of a function, or of one of its aliases."""

    def __init__(self, function_arn: str, url: str, config: Json) -> None:
        self.created = self.last_modified = _timestamp()
        self.config = {"InvokeMode": "BUFFERED", **config}
        self.function_arn = function_arn
        self.url = url

    def update(self, config: Json) -> None:
        """Change what is given."""
        self.config.update(config)
        self.last_modified = _timestamp()

    def described(self) -> Json:
        """What Lambda answers."""
        members = ("AuthType", "Cors", "InvokeMode")
        return {
            **{name: self.config[name] for name in members if self.config.get(name)},
            "CreationTime": self.created,
            "FunctionArn": self.function_arn,
            "FunctionUrl": self.url,
            "LastModifiedTime": self.last_modified,
        }


@dataclass
class Qualified:
    """What belongs to one qualifier of a function: an alias, a version or `$LATEST`."""

    policy: Policy
    event_invoke: models.EventInvokeConfig | None = None
    provisioned: Provisioned | None = None
    url: Url | None = None
    former: str | None = None
    """The version that answers for an alias until what is provisioned for its new one is ready."""


class Alias(models.LambdaAlias):
    """An alias whose weights Lambda changes, too."""

    def update(self, description: Any, function_version: Any, routing_config: Any) -> None:
        """Change what is given; the version before answers until what is provisioned is ready."""
        held = function_of(self.arn.split(":")[6]).at(self.name)
        if held.provisioned and function_version and running(Functions):
            before = held.former or self.function_version
            held.former = before if function_version != before else None
        super().update(description, function_version, routing_config)

    def to_json(self) -> Json:
        """What Lambda answers."""
        weights = weights_of(self)
        return {
            **super().to_json(),
            "RoutingConfig": {"AdditionalVersionWeights": weights} if weights else None,
        }


class Function(models.LambdaFunction):
    """A function with all of its configuration."""

    def __init__(
        self, account_id: str, spec: Json, region: str, version: str | int = LATEST
    ) -> None:
        super().__init__(account_id, spec, region, version)
        self._moves: tuple[str, datetime] | None = None
        self._move("Pending")
        self.dead_letter_config: Json = spec.get("DeadLetterConfig") or {}
        self.logging_config: Json = spec.get("LoggingConfig") or {}
        self.published = 0
        self.published_as = ""
        self.qualified: dict[str, Qualified] = {}
        self.revision_id = str(uuid4())
        self.snap_start: Json = spec.get("SnapStart") or {}

    def __deepcopy__(self, _: object) -> "Function":
        # Moto does this to change one attribute of its answer; it would copy the account's logs.
        return copy(self)

    @property
    def moving(self) -> str:
        """`Pending` while Lambda makes it, `InProgress` while it changes it, else empty."""
        moves = vars(self).get("_moves")
        return moves[0] if moves and utcnow() < moves[1] else ""

    def see(self) -> None:
        """Somebody has been told that it is under way: it ends."""
        self._moves = None

    def _move(self, status: str) -> None:
        # Where records only are kept, all is done at once.
        if service := running(Functions):
            seconds = service.execution.seconds(_MOVE_SECONDS)
            self._moves = status, utcnow() + timedelta(seconds=seconds)

    @property
    def code_or_config_updated(self) -> bool:
        """Whether the function differs from its last version; moto asks before it publishes."""
        versions = _storage(self)._functions[self.function_name]["versions"]
        return not versions or versions[-1].published_as != self._fingerprint()

    @code_or_config_updated.setter
    def code_or_config_updated(self, _: bool) -> None:
        # Moto notes each update here, also one that changes nothing.
        pass

    def at(self, qualifier: str | None) -> Qualified:
        """What belongs to a qualifier; ask it of the unpublished function."""
        return self.qualified.setdefault(qualifier or LATEST, Qualified(Policy(self)))

    def set_version(self, version: int) -> None:
        """Make this, a copy of the function, its next version, numbered as none before."""
        latest = cast(Function, _storage(self)._get_latest(self.function_name))
        latest.published += 1
        self.published_as = self._fingerprint()
        super().set_version(latest.published)
        self.code = dict(self.code)
        self.qualified = {}
        self.revision_id = str(uuid4())
        self._moves = None

    def get_configuration(self, on_create: bool = False) -> Json:
        """What Lambda answers."""
        config = super().get_configuration(on_create)
        config["LoggingConfig"] = self._logging()
        config["RevisionId"] = self.revision_id
        if self.moving == "Pending":
            reason = "The function is being created."
            config |= {"State": "Pending", "StateReason": reason, "StateReasonCode": "Creating"}
        elif self.moving:
            config["LastUpdateStatus"] = self.moving
        applied_on = self.snap_start.get("ApplyOn", "None")
        optimized = applied_on != "None" and self.version != LATEST
        config["SnapStart"] = {
            "ApplyOn": applied_on,
            "OptimizationStatus": "On" if optimized else "Off",
        }
        if self.dead_letter_config.get("TargetArn"):
            config["DeadLetterConfig"] = self.dead_letter_config
        return config

    def get_code(self) -> Json:
        """What `GetFunction` answers; a reservation of 0, which stops the function, included."""
        answer = super().get_code()
        if self.reserved_concurrency is not None:
            answer["Concurrency"] = {"ReservedConcurrentExecutions": self.reserved_concurrency}
        return answer

    def update_configuration(self, config_updates: Json) -> Json:
        """Change what is given."""
        for member, value in config_updates.items():
            if member == "EphemeralStorage":
                self.ephemeral_storage = value["Size"]
            elif member == "ImageConfig":
                self.image_config = models.ImageConfig(value)
            elif member == "KMSKeyArn":
                self.kms_key_arn = value
            elif member in ("DeadLetterConfig", "LoggingConfig", "SnapStart", "TracingConfig"):
                setattr(self, xform_name(member), value)
        super().update_configuration(config_updates)
        return self._modified()

    def update_function_code(self, updated_spec: Json) -> Json:
        """Change the code, and the architecture that it is for."""
        if "Architectures" in updated_spec:
            self.architectures = updated_spec["Architectures"]
        super().update_function_code(updated_spec)
        return self._modified()

    def _modified(self) -> Json:
        self._move("InProgress")
        self.last_modified = iso_8601_datetime_with_nanoseconds()
        self.revision_id = str(uuid4())
        return self.get_configuration()

    def _logging(self) -> Json:
        given = {"LogFormat": "Text", "LogGroup": f"/aws/lambda/{self.function_name}"}
        if self.logging_config.get("LogFormat") == "JSON":
            given |= {"ApplicationLogLevel": "INFO", "SystemLogLevel": "INFO"}
        return given | {name: value for name, value in self.logging_config.items() if value}

    def _fingerprint(self) -> str:
        config = self.get_configuration()
        compared = {name: value for name, value in config.items() if name not in _IDENTITY}
        return json.dumps([compared, self.snap_start], sort_keys=True)


class Answers(SourceAnswers):
    """Moto's answers, mended."""

    def create_function(self) -> TYPE_RESPONSE:
        """Create a function, with a role that Lambda may assume."""
        role = self.json_body.get("Role") or ""
        # What is no ARN of a role of this account moto refuses as such.
        named = re.match(InvalidRoleFormat.pattern, role)
        if named and named[2] == ACCOUNT:
            _refuse_role(self.json_body, role)
        refuse_new(self.json_body)
        return super().create_function()

    def get_function(self) -> str:
        """Describe a function; what is told to be under way has ended when it is asked again."""
        answer = super().get_function()
        self._function().see()
        return answer

    def get_function_configuration(self) -> str:
        """The same, without its code."""
        answer = super().get_function_configuration()
        self._function().see()
        return answer

    def update_function_code(self) -> TYPE_RESPONSE:
        """Change a function's code to a sound one."""
        self._refuse_moving()
        refuse_revision(self.json_body.get("RevisionId"), self._function().revision_id)
        refuse_code(self.json_body)
        return super().update_function_code()

    def update_function_configuration(self) -> TYPE_RESPONSE:
        """Change a function's configuration to one that it can have."""
        function = self._refuse_moving()
        refuse_revision(self.json_body.get("RevisionId"), function.revision_id)
        refuse_environment(self.json_body)
        _refuse_role(self.json_body, self.json_body.get("Role") or function.role)
        return super().update_function_configuration()

    def publish_version(self) -> TYPE_RESPONSE:
        """Publish the function that the caller means."""
        function, given = self._refuse_moving(), self.json_body or {}
        refuse_revision(given.get("RevisionId"), function.revision_id)
        wanted = given.get("CodeSha256")
        if wanted and wanted != function.code_sha_256:
            raise InvalidParameterValueException(
                f"CodeSHA256 ({wanted}) is different from current CodeSHA256 in $LATEST"
                f" ({function.code_sha_256}). Please try again with the CodeSHA256 in $LATEST."
            )
        return super().publish_version()

    def put_function_concurrency(self) -> ActionResult:  # type: ignore[override]
        """Reserve concurrency; enough of it is left to the other functions."""
        function = self._function()
        reserved = self.json_body["ReservedConcurrentExecutions"]
        others = sum(
            other.reserved_concurrency or 0 for other in functions() if other is not function
        )
        if reserved + others > CONCURRENCY - UNRESERVED_CONCURRENCY:
            raise InvalidParameterValueException(
                "Specified ReservedConcurrentExecutions for function decreases account's"
                f" UnreservedConcurrentExecution below its minimum value of"
                f" [{UNRESERVED_CONCURRENCY}]."
            )
        if reserved < (provisioned := _provisioned(function)):
            raise InvalidParameterValueException(
                f"ReservedConcurrentExecutions {reserved} should not be lower than function's total"
                f" provisioned concurrency [{provisioned}]."
            )
        function.reserved_concurrency = reserved
        return ActionResult({"ReservedConcurrentExecutions": reserved})

    def get_account_settings(self) -> ActionResult:
        """The account's limits, and what is used of them."""
        held = functions()
        reserved = sum(function.reserved_concurrency or 0 for function in held)
        return ActionResult(
            {
                "AccountLimit": {
                    "TotalCodeSize": 80_530_636_800,
                    "CodeSizeUnzipped": 262_144_000,
                    "CodeSizeZipped": 52_428_800,
                    "ConcurrentExecutions": CONCURRENCY,
                    "UnreservedConcurrentExecutions": CONCURRENCY - reserved,
                },
                "AccountUsage": {
                    "TotalCodeSize": sum(function.code_size for function in held),
                    "FunctionCount": len(held),
                },
            }
        )

    def delete_function(self) -> TYPE_RESPONSE:
        """Delete a function, or a version and what belongs to it."""
        if qualifier := self._qualifier():
            function = self._function()
            if qualifier == LATEST:
                raise InvalidParameterValueException(
                    "$LATEST version cannot be deleted without deleting the function."
                )
            if not qualifier.isdigit():
                raise InvalidParameterValueException(
                    "Deletion of aliases is not currently supported."
                )
            held = [
                alias.name
                for alias in self.backend._lambdas._get_function_aliases(
                    function.function_name
                ).values()
                if qualifier in {alias.function_version, *weights_of(alias)}
            ]
            if held:
                raise ResourceConflictException(
                    "Unable to delete version because the following aliases reference it:"
                    f" [{', '.join(held)}]"
                )
            function.qualified.pop(qualifier, None)
        return super().delete_function()

    def list_versions_by_function(self) -> str:
        """The versions of a function that is there."""
        self._function()
        return super().list_versions_by_function()

    def create_alias(self) -> TYPE_RESPONSE:
        """Make an alias of a new name, of versions that are there."""
        function, name = self._function(), self.json_body["Name"]
        refuse_weights(self.json_body, self._versions())
        try:
            return super().create_alias()
        except ConflictException as error:
            arn = _qualified_arn(function, name)
            raise ResourceConflictException(f"Alias already exists: {arn}") from error

    def update_alias(self) -> TYPE_RESPONSE:
        """Change an alias; it has weights or provisioned concurrency, not both."""
        alias = unquote(self.path.rsplit("/", 1)[-1])
        function = self._function()
        former = self.backend.get_alias(alias, function.function_name)
        refuse_revision(self.json_body.get("RevisionId"), former.revision_id)
        if function.at(alias).provisioned:
            _refuse_weights(self.json_body.get("RoutingConfig"))
        refuse_weights(self.json_body, self._versions(), former.function_version)
        former.revision_id = str(uuid4())
        return super().update_alias()

    def delete_alias(self) -> TYPE_RESPONSE:
        """Delete an alias and what belongs to it."""
        self._function().qualified.pop(unquote(self.path.rsplit("/", 1)[-1]), None)
        super().delete_alias()
        return 204, {"status": 204}, ""

    def put_provisioned_concurrency_config(self) -> ActionResult:
        """Keep environments of a version or an alias ready."""
        function, qualifier = self._function(), self._qualifier() or LATEST
        alias = self._alias(qualifier)
        if LATEST in (qualifier, alias and alias.function_version):
            raise InvalidParameterValueException(
                "Provisioned Concurrency Configs cannot be applied to unpublished function"
                " versions."
            )
        _refuse_weights(alias and alias.to_json()["RoutingConfig"])
        executions = self.json_body["ProvisionedConcurrentExecutions"]
        others = sum(
            found.provisioned.executions
            for name, found in function.qualified.items()
            if found.provisioned and name != qualifier
        )
        reserved = function.reserved_concurrency
        if reserved is not None and executions + others > reserved:
            raise InvalidParameterValueException(
                "Requested Provisioned Concurrency should not be greater than the"
                " reservedConcurrentExecution for function"
            )
        if reserved is None:
            free = CONCURRENCY - UNRESERVED_CONCURRENCY - executions - others
            for other in functions():
                if other is not function:
                    free -= other.reserved_concurrency or _provisioned(cast(Function, other))
            if free < 0:
                raise InvalidParameterValueException(
                    "Specified ConcurrentExecutions for function decreases account's"
                    " UnreservedConcurrentExecution below its minimum value of"
                    f" [{UNRESERVED_CONCURRENCY}]."
                )
        function.at(qualifier).provisioned = Provisioned(executions, _timestamp())
        if service := running(Functions):
            service.try_again(function.function_name, qualifier)
        return self.get_provisioned_concurrency_config()

    def get_provisioned_concurrency_config(self) -> ActionResult:
        """How many environments are ready."""
        function, qualifier = self._function(), self._qualifier() or LATEST
        return ActionResult(self._provisioned().described(function.function_name, qualifier))

    def delete_provisioned_concurrency_config(self) -> TYPE_RESPONSE:
        """Keep none ready."""
        self._provisioned()
        held = self._function().at(self._qualifier())
        held.provisioned = held.former = None
        return 204, {"status": 204}, ""

    def list_provisioned_concurrency_configs(self) -> ActionResult:
        """All that a function keeps ready."""
        function = self._function()
        configs = [
            {
                "FunctionArn": _qualified_arn(function, name),
                **found.provisioned.described(function.function_name, name),
            }
            for name, found in function.qualified.items()
            if found.provisioned
        ]
        return ActionResult({"ProvisionedConcurrencyConfigs": configs})

    def put_function_event_invoke_config(self) -> ActionResult:
        """Say what becomes of asynchronous invocations of a qualifier."""
        return self._put_event_invoke(self.json_body)

    def update_function_event_invoke_config(self) -> ActionResult:  # type: ignore[override]
        """Change what is given of it."""
        return self._put_event_invoke({**self._event_invoke().config, **self.json_body})

    def get_function_event_invoke_config(self) -> ActionResult:
        """What becomes of asynchronous invocations of a qualifier."""
        return ActionResult(self._event_invoke().response())

    def list_function_event_invoke_configs(self) -> ActionResult:  # type: ignore[override]
        """The same for all qualifiers of a function."""
        configs = [found.event_invoke for found in self._function().qualified.values()]
        return ActionResult(
            {"FunctionEventInvokeConfigs": [found.response() for found in configs if found]}
        )

    def delete_function_event_invoke_config(self) -> TYPE_RESPONSE:
        """Go back to the defaults."""
        self._event_invoke()
        self._qualified().event_invoke = None
        return 204, {"status": 204}, ""

    def create_function_url_config(self) -> ActionResult:  # type: ignore[override]
        """Give a function, or an alias, a URL."""
        qualified, arn = self._qualified(), self._arn()
        if qualified.url:
            raise ResourceConflictException(
                f"Failed to create function url config for [functionArn = {arn}]. Error message:"
                "  FunctionUrlConfig exists for this Lambda function"
            )
        service = running(Functions)
        url = (
            service.serve_url(self._function().function_name, self._qualifier())
            if service
            else f"https://{uuid4().hex}.lambda-url.{self.region}.on.aws/"
        )
        qualified.url = Url(arn, url, self.json_body)
        return ActionResult(qualified.url.described())

    def get_function_url_config(self) -> ActionResult:  # type: ignore[override]
        """Describe a URL."""
        return ActionResult(self._url().described())

    def update_function_url_config(self) -> ActionResult:  # type: ignore[override]
        """Change what is given of a URL's configuration."""
        self._url().update(self.json_body)
        return self.get_function_url_config()

    def delete_function_url_config(self) -> TYPE_RESPONSE:
        """Take a URL away."""
        self._url()
        self._qualified().url = None
        return 204, {"status": 204}, ""

    def add_permission(self) -> ActionResult:  # type: ignore[override]
        """Add a statement to the policy of a qualifier."""
        policy, given = self._qualified().policy, self.json_body
        if "FunctionUrlAuthType" in given and given["Action"] != "lambda:InvokeFunctionUrl":
            raise InvalidParameterValueException(
                "FunctionUrlAuthType is only supported for lambda:InvokeFunctionUrl action"
            )
        if any(found["Sid"] == given["StatementId"] for found in policy.statements):
            raise ResourceConflictException(
                f"The statement id ({given['StatementId']}) provided already exists. Please"
                " provide a new statement id, or remove the existing statement."
            )
        statement, _ = policy.add_statement(self.body, self._qualifier())
        _complete(statement)
        return ActionResult({"Statement": json.dumps(statement)})

    def get_policy(self) -> str:
        """The policy of a qualifier."""
        return self._qualified().policy.wire_format()

    def remove_permission(self) -> TYPE_RESPONSE:
        """Remove a statement of the policy of a qualifier."""
        statement = unquote(self.path.rsplit("/", 1)[-1])
        revision = self._get_param("RevisionId") or ""
        self._qualified().policy.del_statement(statement, revision)
        return 204, {"status": 204}, ""

    def _function_name(self) -> str:
        return unquote(self.path.split("/functions/", 1)[1].split("/", 1)[0])

    def _qualifier(self) -> str | None:
        in_name = self._function_name().rpartition("function:")[2].partition(":")[2]
        return self._get_param("Qualifier") or in_name or None

    def _function(self) -> Function:
        """The unpublished function that the request is about, which keeps what is qualified."""
        found = self.backend.get_function(self._function_name())
        return cast(Function, self.backend.get_function(found.function_name, LATEST))

    def _refuse_moving(self) -> Function:
        """The function, unless Lambda is still at work with it."""
        function = self._function()
        if function.moving:
            raise ResourceConflictException(
                "The operation cannot be performed at this time. An update is in progress for"
                f" resource: {function.function_arn}"
            )
        return function

    def _versions(self) -> set[str]:
        return {str(version.version) for version in versions_of(self._function())}

    def _alias(self, qualifier: str) -> models.LambdaAlias | None:
        """The alias of that name; none if it is a version.

        Raises:
            LambdaClientError: There is neither.
        """
        name = self._function().function_name
        try:
            return self.backend.get_alias(qualifier, name)
        except UnknownAliasException:
            self.backend.get_function(name, qualifier)
            return None

    def _qualified(self) -> Qualified:
        function, qualifier = self._function(), self._qualifier()
        if qualifier:
            self._alias(qualifier)
        return function.at(qualifier)

    def _arn(self) -> str:
        return _qualified_arn(self._function(), self._qualifier())

    def _provisioned(self) -> Provisioned:
        found = self._qualified().provisioned
        if not found:
            raise ProvisionedConcurrencyConfigNotFoundException
        return found

    def _event_invoke(self) -> models.EventInvokeConfig:
        found = self._qualified().event_invoke
        if not found:
            raise UnknownEventConfig(self._arn())
        return found

    def _put_event_invoke(self, config: Json) -> ActionResult:
        function, qualifier = self._function(), self._qualifier() or LATEST
        if not config.keys() & _EVENT_INVOKE:
            raise InvalidParameterValueException(
                "You must specify at least one of error handling or destination setting."
            )
        for kind in ("OnSuccess", "OnFailure"):
            wanted = (config.get("DestinationConfig") or {}).get(kind) or {}
            if running(Functions) and wanted.get("Destination"):
                refuse_destination(wanted["Destination"], function.role)
        given = models.EventInvokeConfig(
            _qualified_arn(function, qualifier), cast(Any, utcnow()), config
        )
        self._qualified().event_invoke = given
        return ActionResult(given.response())

    def _url(self) -> Url:
        found = self._qualified().url
        if not found:
            raise GenericResourcNotFound
        return found


def _refuse_role(given: Json, role: str) -> None:
    """Refuse a role that Lambda may not act under, or under which too little may be done."""
    if not running(Functions):
        return
    try:
        require_trust(role, SERVICE)
    except RoleError as error:
        raise InvalidParameterValueException(NOT_ASSUMED) from error
    refuse_rights(given, role)


def _provisioned(function: Function) -> int:
    """How many environments of a function are kept ready."""
    found = [held.provisioned for held in function.qualified.values()]
    return sum(each.executions for each in found if each)


def _storage(function: models.LambdaFunction) -> models.LambdaStorage:
    return get_backend(function.account_id, function.region)._lambdas


def _qualified_arn(function: models.LambdaFunction, qualifier: str | None) -> str:
    return f"{function.function_arn}:{qualifier}" if qualifier else function.function_arn


def _timestamp() -> str:
    return utcnow().strftime("%Y-%m-%dT%H:%M:%S.000+0000")


def _refuse_weights(routing: Any) -> None:
    if (routing or {}).get("AdditionalVersionWeights"):
        raise InvalidParameterValueException(
            "Alias with weights can not be used with Provisioned Concurrency"
        )


def _complete(statement: Json) -> None:
    """Write a statement as AWS does, where moto leaves members of the request in it."""
    conditions = {
        "FunctionUrlAuthType": ("StringEquals", "lambda:FunctionUrlAuthType"),
        "InvokedViaFunctionUrl": ("Bool", "lambda:InvokedViaFunctionUrl"),
    }
    for member, (operator, key) in conditions.items():
        if member in statement:
            value = statement.pop(member)
            given = str(value).lower() if isinstance(value, bool) else value
            statement.setdefault("Condition", {}).setdefault(operator, {})[key] = given
    principal = statement["Principal"]
    if isinstance(principal, str) and principal != "*":
        account = re.fullmatch(r"\d{12}", principal)
        statement["Principal"] = {"AWS": f"arn:aws:iam::{principal}:root" if account else principal}


_INVOKER = {"StatementId": "probe", "Action": "lambda:InvokeFunctionUrl", "Principal": "*"}


@contextmanager
def _probe(**more: Any) -> Iterator[Any]:
    """A client of moto's Lambda, with a function and its alias `live`, both of version 1."""
    code = BytesIO()
    with ZipFile(code, "w") as archive:
        archive.writestr("probe.py", "")
    with plain_client("iam") as iam, plain_client("lambda") as client:
        iam.create_role(RoleName="probe", AssumeRolePolicyDocument="{}")
        client.create_function(
            FunctionName="probe",
            Role=ROLE,
            Runtime="python3.13",
            Handler="probe.handler",
            Code={"ZipFile": code.getvalue()},
            Publish=True,
            **more,
        )
        client.create_alias(FunctionName="probe", Name="live", FunctionVersion="1")
        yield client


def _keeps_configuration() -> bool:
    with _probe(DeadLetterConfig={"TargetArn": f"arn:aws:sqs:{REGION}:{ACCOUNT}:probe"}) as client:
        return "DeadLetterConfig" in client.get_function_configuration(FunctionName="probe")


def _keeps_logging() -> bool:
    with _probe(LoggingConfig={"LogFormat": "JSON"}) as client:
        return "LoggingConfig" in client.get_function_configuration(FunctionName="probe")


def _keeps_snap_start() -> bool:
    with _probe(SnapStart={"ApplyOn": "PublishedVersions"}) as client:
        found = client.get_function_configuration(FunctionName="probe")["SnapStart"]
        return bool(found["ApplyOn"] == "PublishedVersions")


def _updates_tracing() -> bool:
    with _probe() as client:
        answer = client.update_function_configuration(
            FunctionName="probe", TracingConfig={"Mode": "Active"}
        )
        return bool(answer["TracingConfig"]["Mode"] == "Active")


def _updates_architecture() -> bool:
    with _probe() as client:
        answer = client.update_function_code(
            FunctionName="probe", ImageUri="probe", Architectures=["arm64"]
        )
        return bool(answer["Architectures"] == ["arm64"])


def _publishes_only_changes() -> bool:
    with _probe() as client:
        client.update_function_configuration(FunctionName="probe", Timeout=3)
        return bool(client.publish_version(FunctionName="probe")["Version"] == "1")


def _invokes() -> bool:
    without_docker = patch.dict(default_user_config, {"lambda": {"use_docker": False}})
    with plain_client("lambda") as client, without_docker:
        return refuses(lambda: client.invoke(FunctionName="probe"))


def _leaves_concurrency() -> bool:
    with _probe() as client:
        return refuses(
            lambda: client.put_function_concurrency(
                FunctionName="probe", ReservedConcurrentExecutions=1000
            )
        )


def _reserves_nothing() -> bool:
    with _probe() as client:
        client.put_function_concurrency(FunctionName="probe", ReservedConcurrentExecutions=0)
        return "Concurrency" in client.get_function(FunctionName="probe")


def _qualifies_event_invoke() -> bool:
    with _probe() as client:
        answer = client.put_function_event_invoke_config(
            FunctionName="probe", Qualifier="live", MaximumRetryAttempts=0
        )
        return str(answer["FunctionArn"]).endswith(":live")


def _qualifies_url() -> bool:
    with _probe() as client:
        answer = client.create_function_url_config(
            FunctionName="probe", Qualifier="live", AuthType="AWS_IAM"
        )
        return str(answer["FunctionArn"]).endswith(":live")


def _qualifies_policy() -> bool:
    with _probe() as client:
        client.add_permission(FunctionName="probe", Qualifier="live", **_INVOKER)
        return refuses(lambda: client.get_policy(FunctionName="probe"))


def _conditions_url_permission() -> bool:
    with _probe() as client:
        answer = client.add_permission(FunctionName="probe", **_INVOKER, FunctionUrlAuthType="NONE")
        return "Condition" in json.loads(answer["Statement"])


def _refuses_url_condition_elsewhere() -> bool:
    given = {**_INVOKER, "Action": "lambda:InvokeFunction", "FunctionUrlAuthType": "NONE"}
    with _probe() as client:
        return refuses(lambda: client.add_permission(FunctionName="probe", **given))


def _refuses_same_statement() -> bool:
    with _probe() as client:
        client.add_permission(FunctionName="probe", **_INVOKER)
        return refuses(lambda: client.add_permission(FunctionName="probe", **_INVOKER))


def _flawed(where: str, effect: str, closed: Callable[[], bool]) -> Gap:
    return Gap("lambda", where, effect, closed)


def _missing(operation: str, effect: str) -> Gap:
    def answered() -> bool:
        return hasattr(responses.LambdaResponse, xform_name(operation))

    return _flawed(operation, effect, answered)


GAPS = [
    _missing("PutProvisionedConcurrencyConfig", "nothing can be kept ready: apply fails"),
    _missing("GetProvisionedConcurrencyConfig", "nothing can be kept ready: apply fails"),
    _missing("DeleteProvisionedConcurrencyConfig", "`terraform destroy` fails"),
    _missing("ListProvisionedConcurrencyConfigs", "nobody can see what is paid for"),
    _missing("GetAccountSettings", "nobody can see the account's concurrency before an apply"),
    _flawed(
        "Invoke",
        "needs Docker and others' images; without them any function answers with its event",
        _invokes,
    ),
    _flawed(
        "PutFunctionConcurrency",
        "takes what AWS refuses: nothing is left to other functions",
        _leaves_concurrency,
    ),
    _flawed("CreateFunction.DeadLetterConfig", "dropped: endless diff", _keeps_configuration),
    _flawed("CreateFunction.LoggingConfig", "dropped: endless diff", _keeps_logging),
    _flawed("CreateFunction.SnapStart", "dropped: endless diff", _keeps_snap_start),
    _flawed(
        "UpdateFunctionConfiguration.TracingConfig",
        "dropped, as are six more members: endless diff",
        _updates_tracing,
    ),
    _flawed(
        "UpdateFunctionCode.Architectures",
        "dropped: the function stays on the other architecture",
        _updates_architecture,
    ),
    _flawed(
        "PublishVersion",
        "an update that changes nothing gives a new version, which AWS does not",
        _publishes_only_changes,
    ),
    _flawed(
        "GetFunction.Concurrency",
        "a reservation of 0 is not described: endless diff",
        _reserves_nothing,
    ),
    _flawed(
        "PutFunctionEventInvokeConfig.Qualifier",
        "ignored, and a second call changes nothing: Terraform does not find it",
        _qualifies_event_invoke,
    ),
    _flawed(
        "CreateFunctionUrlConfig.Qualifier",
        "ignored: an alias has no URL of its own",
        _qualifies_url,
    ),
    _flawed(
        "AddPermission.Qualifier",
        "all versions and aliases share one policy",
        _qualifies_policy,
    ),
    _flawed(
        "AddPermission.FunctionUrlAuthType",
        "no condition in the policy: endless diff",
        _conditions_url_permission,
    ),
    _flawed(
        "AddPermission.Action",
        "a condition on the kind of URL is taken for other actions, which AWS refuses",
        _refuses_url_condition_elsewhere,
    ),
    _flawed(
        "AddPermission.StatementId",
        "one in use is taken, which AWS refuses",
        _refuses_same_statement,
    ),
    *SOURCE_GAPS,
]


def install() -> None:
    """Put the additions in moto's place."""
    models.LambdaFunction = Function  # type: ignore[misc]
    models.LambdaAlias = Alias  # type: ignore[misc]
    answer_with(urls, Answers, _PROVISIONED_CONCURRENCY, _ACCOUNT_SETTINGS)
