"""SageMaker's runtime: requests reach the endpoints that localaws runs."""

import json
from collections.abc import Mapping
from urllib.parse import urlsplit

from moto.core.request import Request
from moto.sagemakerruntime import urls
from urllib3 import HTTPHeaderDict

from localaws.additions import Gap
from localaws.additions._moto import plain_client, refuses
from localaws.execution import running
from localaws.hosting.endpoints import Endpoints, InvocationError, endpoint_name
from localaws.operations import RefusedError

Answer = tuple[int, Mapping[str, str], bytes]
"""Status, headers and body."""

_INVOCATIONS = "{0}/endpoints/(?P<name>[^/]+)/invocations$"


def _invoke_endpoint(request: Request, url: str, headers: Mapping[str, str]) -> Answer:
    """Answer `InvokeEndpoint`."""
    endpoints = running(Endpoints)
    if not endpoints:
        raise RefusedError("it keeps records only, so no endpoint serves")
    name, body = endpoint_name(urlsplit(url).path), request.get_data()
    try:
        with endpoints.execution.waiting():
            answered = endpoints.invoke(name, body, HTTPHeaderDict(request.headers.items()))
    except InvocationError as error:
        content = json.dumps(error.content).encode()
        kind = {"Content-Type": "application/json", "x-amzn-ErrorType": error.kind}
        return error.status, kind, content
    return 200, answered.headers, answered.body


def _endpoint_has_to_exist() -> bool:
    with plain_client("sagemaker-runtime") as client:
        return refuses(lambda: client.invoke_endpoint(EndpointName="probe", Body=b"probe"))


GAPS = [
    Gap(
        "sagemaker-runtime",
        "InvokeEndpoint",
        "nothing is served: canned text, for endpoints that do not exist too",
        _endpoint_has_to_exist,
    )
]


def install() -> None:
    """Put the additions in moto's place."""
    urls.url_paths[_INVOCATIONS] = _invoke_endpoint
