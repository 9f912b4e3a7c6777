"""HTTP requests as the services in front of a function put them into events.

These are function URLs and HTTP APIs (payload formats 1.0 and 2.0), REST APIs with their test
console, load balancers (multi-value headers or not) and VPC Lattice.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

METHODS = "OPTIONS, POST"
"""What a request's method may be, as the Allow header says it."""


@dataclass(frozen=True)
class HttpRequest:
    """One request."""

    method: str
    """Upper case; POST if the event names none."""
    headers: Mapping[str, str]
    """By their names in lower case."""
    body: object
    """Text, or what a mapping template of an API made of it; None for no body."""
    is_base64: bool
    """Whether `body` is text in base64."""
    is_balanced: bool
    """Whether it comes from a load balancer."""
    has_multi_values: bool
    """Whether its headers have lists of values, so that those of the answer must."""

    @classmethod
    def in_event(cls, event: object) -> "HttpRequest | None":
        """The request in `event`; None for another kind of event."""
        if not isinstance(event, Mapping) or not _is_http(event):
            return None
        context = _mapping(event.get("requestContext"))
        methods = (
            _mapping(context.get("http")).get("method"),
            event.get("httpMethod"),
            event.get("method"),
        )
        return cls(
            method=next((name.upper() for name in methods if isinstance(name, str)), "POST"),
            headers=_headers(event),
            body=event.get("body"),
            is_base64=_is_true(event.get("isBase64Encoded", event.get("is_base64_encoded"))),
            is_balanced="elb" in context,
            has_multi_values=isinstance(event.get("multiValueHeaders"), Mapping),
        )

    @property
    def content_type(self) -> str:
        """The body's media type without parameters; empty if none is named.

        A header that came twice is one with a comma.
        """
        return re.split("[;,]", self.headers.get("content-type", ""))[0].strip().lower()

    @property
    def is_health_check(self) -> bool:
        """Whether a load balancer asks whether the function is well."""
        return self.is_balanced and self.headers.get("user-agent", "").startswith(
            "ELB-HealthChecker/"
        )

    def answered(self, answer: dict[str, Any]) -> dict[str, Any]:
        """`answer` (`statusCode`, `headers`, `body`) as the service wants it that sent this."""
        if not self.is_balanced:
            return answer
        status = HTTPStatus(answer["statusCode"])
        answer = {
            **answer,
            "statusDescription": f"{status.value} {status.phrase}",
            "isBase64Encoded": False,
        }
        if self.has_multi_values:
            answer["multiValueHeaders"] = {k: [v] for k, v in answer["headers"].items()}
        return answer


def _is_http(event: Mapping[object, object]) -> bool:
    if "requestContext" in event or "httpMethod" in event:
        return True
    return "body" in event and "url" not in event and "image" not in event


def _headers(event: Mapping[object, object]) -> dict[str, str]:
    headers = {}
    for field in ("multiValueHeaders", "headers"):
        for name, value in _mapping(event.get(field)).items():
            values = value if isinstance(value, list) else [value]
            if values and isinstance(values[0], str):
                headers[str(name).lower()] = values[0]
    return headers


def _is_true(value: object) -> bool:
    """Whether a flag is set; mapping templates and events written by hand have it as text, too."""
    return str(value).lower() in ("true", "1")


def _mapping(value: object) -> Mapping[Any, Any]:
    return value if isinstance(value, Mapping) else {}
