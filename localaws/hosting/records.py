"""An endpoint's record among moto's objects: what it serves, and what it is to serve.

Whoever calls this outside of a request does so inside `execution.changing()`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from moto.core.utils import utcnow
from moto.sagemaker import models

Variant = dict[str, Any]
"""What `DescribeEndpoint` says of a variant."""


@dataclass
class Release:
    """A configuration with all that it names, which may be deleted while an endpoint serves it.

    Attributes:
        config: The endpoint configuration.
        model_of: The models of its variants, by name.
        variants: Its variants, as `DescribeEndpoint` describes them.
        shadows: Its shadow variants, likewise.
        capture: Its data capture, likewise.
        deployment: How it is brought into service, a `DeploymentConfig`.
        started: When.
    """

    config: models.FakeEndpointConfig
    model_of: Mapping[str, models.Model]
    variants: list[Variant]
    shadows: list[Variant]
    capture: dict[str, Any] | None
    deployment: Mapping[str, Any]
    started: datetime = field(default_factory=utcnow)

    @property
    def name(self) -> str:
        """The configuration's name."""
        return self.config.endpoint_config_name

    def settings(self, variant: Variant) -> Mapping[str, Any]:
        """What the configuration says of a variant, a `ProductionVariant`."""
        shadows = vars(self.config).get("shadow_production_variants") or []
        given: list[Mapping[str, Any]] = [*self.config.production_variants, *shadows]
        return next(each for each in given if each["VariantName"] == variant["VariantName"])

    def model(self, variant: Variant) -> models.Model:
        """The model of a variant."""
        return self.model_of[self.settings(variant)["ModelName"]]


def release(
    backend: models.SageMakerModelBackend,
    config: models.FakeEndpointConfig,
    deployment: Mapping[str, Any] | None,
    former: Release | None = None,
    retained: Iterable[str] = (),
) -> Release:
    """What an endpoint is to serve.

    Args:
        backend: Where the models of the configuration are.
        config: The configuration.
        deployment: How to bring it into service; None for SageMaker's default.
        former: What the endpoint serves now.
        retained: What stays as it is in variants of the same name: `DesiredInstanceCount`,
            `DesiredWeight`, `DataCaptureConfig`.

    Raises:
        ValidationError: A model of the configuration was deleted.
    """
    shadows = vars(config).get("shadow_production_variants") or []
    backend.validate_production_variants([*config.production_variants, *shadows])
    running = {variant["VariantName"]: variant for variant in former.variants} if former else {}
    keeps_capture = former is not None and "DataCaptureConfig" in retained
    return Release(
        config=config,
        model_of={
            given["ModelName"]: backend._models[given["ModelName"]]
            for given in [*config.production_variants, *shadows]
        },
        variants=[
            _described(backend, given, running.get(given["VariantName"], {}), retained)
            for given in config.production_variants
        ],
        shadows=[_described(backend, given) for given in shadows],
        capture=former.capture if former and keeps_capture else _capture(config),
        deployment=deployment or {},
    )


def begin(endpoint: models.FakeEndpoint, pending: Release, status: str) -> None:
    """An endpoint is to serve something; until it does, it serves what it served."""
    vars(endpoint).update(
        endpoint_status=status,
        # Until a new endpoint serves something, its configuration is the one that it is to serve.
        endpoint_config_name=(served(endpoint) or pending).name,
        last_modified_time=utcnow(),
        pending=pending,
    )


def finish(endpoint: models.FakeEndpoint) -> None:
    """An endpoint serves what it was to serve."""
    release = pending(endpoint)
    assert release  # noqa: S101 (tells the type)
    for variant in [*release.variants, *release.shadows]:
        if "DesiredInstanceCount" in variant:
            variant["CurrentInstanceCount"] = variant["DesiredInstanceCount"]
    vars(endpoint).update(
        async_inference_config=release.config.async_inference_config,
        data_capture_config=release.capture,
        endpoint_config_name=release.name,
        pending=None,
        production_variants=release.variants,
        served=release,
        shadow_production_variants=release.shadows or None,
    )
    settle(endpoint)


def give_up(endpoint: models.FakeEndpoint, reason: str) -> None:
    """An endpoint goes on with what it served, or has failed where that is nothing."""
    vars(endpoint).update(pending=None)
    settle(endpoint, reason)


def roll_back(endpoint: models.FakeEndpoint, reason: str) -> None:
    """An endpoint is going back to what it served."""
    vars(endpoint).update(endpoint_status="RollingBack", failure_reason=reason)


def fail(endpoint: models.FakeEndpoint, reason: str) -> None:
    """An endpoint does not serve any more."""
    vars(endpoint).update(served=None)
    give_up(endpoint, reason)


def settle(endpoint: models.FakeEndpoint, reason: str | None = None) -> None:
    """A change of an endpoint is over; it failed if there is a reason."""
    vars(endpoint).update(
        endpoint_status="InService" if served(endpoint) else "Failed",
        failure_reason=reason,
        last_modified_time=utcnow(),
    )


def served(endpoint: models.FakeEndpoint) -> Release | None:
    """What an endpoint serves."""
    found: Release | None = vars(endpoint).get("served")
    return found


def pending(endpoint: models.FakeEndpoint) -> Release | None:
    """What an endpoint is to serve."""
    found: Release | None = vars(endpoint).get("pending")
    return found


def summary(release: Release) -> dict[str, Any]:
    """A `PendingDeploymentSummary`."""
    return {
        "EndpointConfigName": release.name,
        "ProductionVariants": [_with_type(release, variant) for variant in release.variants],
        "ShadowProductionVariants": [_with_type(release, variant) for variant in release.shadows],
        "StartTime": release.started,
    }


def _with_type(release: Release, variant: Variant) -> Variant:
    settings = release.settings(variant)
    return {**variant, **{k: settings[k] for k in ("InstanceType",) if k in settings}}


def _described(
    backend: models.SageMakerModelBackend,
    given: Mapping[str, Any],
    former: Mapping[str, Any] | None = None,
    retained: Iterable[str] = (),
) -> Variant:
    desired = {
        "InstanceCount": given.get("InitialInstanceCount"),
        "ServerlessConfig": given.get("ServerlessConfig"),
        "Weight": given.get("InitialVariantWeight", 1.0),
    }
    for name in retained:
        if former and name in former:
            desired[name.removeprefix("Desired")] = former[name]
    counts = {
        f"{when}{name}": value
        for name, value in desired.items()
        for when in ("Current", "Desired")
        if value is not None
    }
    if "CurrentInstanceCount" in counts:
        counts["CurrentInstanceCount"] = 0
    kept = ("ManagedInstanceScaling", "RoutingConfig", "VariantName")
    return {
        **{name: given[name] for name in kept if name in given},
        **counts,
        "DeployedImages": [
            {"SpecifiedImage": image, "ResolvedImage": image, "ResolutionTime": utcnow()}
            for image in _images(backend._models[given["ModelName"]])
        ],
    }


def containers(model: models.Model) -> list[dict[str, Any]]:
    """A model's container definitions."""
    return [model.primary_container] if model.primary_container else model.containers or []


def _images(model: models.Model) -> list[str]:
    return [container["Image"] for container in containers(model) if "Image" in container]


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
