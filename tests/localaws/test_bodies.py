"""Bodies that do not say what their protocol asks are refused in AWS's words, without an effect."""

import base64
import gzip
import json
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from moto.core.parse import PROTOCOL_PARSERS
from moto.core.request import Request
from moto.core.utils import get_service_model

from localaws.bodies import RefusedError, read
from localaws.calls import form_of, identify
from tests.localaws.conftest import LocalAws
from tests.localaws.raw import Answer, send, signed

JSON = "application/x-amz-json-1.1"
FORM = "application/x-www-form-urlencoded"
XML = "application/xml"
MODEL = {"X-Amz-Target": "SageMaker.CreateModel", "Content-Type": JSON}
PARAMETER = {"X-Amz-Target": "AmazonSSM.PutParameter", "Content-Type": JSON}
FUNCTIONS = "/2015-03-31/functions"
ROLE = "arn:aws:iam::123456789012:role/probe"
FUNCTION = {"FunctionName": "bad", "Role": ROLE, "Code": {"ZipFile": "UEs="}}


def ask(
    aws: LocalAws, service: str, body: bytes, headers: dict[str, str], method: str, target: str
) -> Answer:
    url = f"{aws.endpoint}{target}"
    return send(aws.endpoint, method, target, signed(service, method, url, body, headers), body)


# Whatever the operation would be: no JSON, another encoding, no object, deeper than anybody goes.
UNREADABLE = [
    b"{{{",
    b"\xff\xfe{}",
    b"\x80",
    b'"text"',
    b"[]",
    b"3",
    b"[" * 100_000,
    b'{"a": NaN}',
    b'{"ModelName": "m",}',
    gzip.compress(b"{}"),
]


@pytest.mark.parametrize("body", UNREADABLE, ids=range(len(UNREADABLE)))
@pytest.mark.parametrize("headers", [MODEL, PARAMETER])
def test_json_that_is_none(aws: LocalAws, headers: dict[str, str], body: bytes) -> None:
    service = "sagemaker" if headers is MODEL else "ssm"
    answer = ask(aws, service, body, headers, "POST", "/")
    told = json.loads(answer.body)
    assert (answer.status, told["__type"]) == (400, "SerializationException")
    assert "Traceback" not in answer.text


@pytest.mark.parametrize(
    ("given", "code", "message"),
    [
        ({"ModelName": 3}, "SerializationException", "NUMBER_VALUE"),
        ({"ModelName": ["m"]}, "SerializationException", "Start of list"),
        ({"ModelName": {"a": 1}}, "SerializationException", "Start of structure"),
        ({"ModelName": "m", "Containers": {}}, "SerializationException", "Start of structure"),
        ({"ModelName": "m", "PrimaryContainer": "x"}, "SerializationException", "STRING_VALUE"),
        ({"ModelName": "m", "Tags": [3]}, "SerializationException", "NUMBER_VALUE"),
        ({"ModelName": "m", "EnableNetworkIsolation": "yes"}, "SerializationException", "Boolean"),
        ({"ModelName": "\ud800"}, "SerializationException", "cannot be read"),
        ({}, "ValidationException", "Value null at 'modelName'"),
        ({"ModelName": None}, "ValidationException", "Value null at 'modelName'"),
        ({"ModelName": "m", "Tags": [{}]}, "ValidationException", "'tags.1.member.key'"),
    ],
)
def test_members_of_another_type_and_missing_ones(
    aws: LocalAws, given: dict[str, Any], code: str, message: str
) -> None:
    answer = ask(aws, "sagemaker", json.dumps(given).encode(), MODEL, "POST", "/")
    told = json.loads(answer.body)
    assert (answer.status, told["__type"]) == (400, code)
    assert message in told["message"]
    assert aws.client("sagemaker").list_models()["Models"] == []


def test_what_the_model_does_not_know_is_passed_over(aws: LocalAws) -> None:
    body = json.dumps({"Name": "/bodies", "Value": "v", "Type": "String", "Unknown": {"a": 1}})
    assert ask(aws, "ssm", body.encode(), PARAMETER, "POST", "/").status == 200
    aws.client("ssm").delete_parameter(Name="/bodies")


@pytest.mark.parametrize(
    "changed",
    [
        {"X-Amz-Target": "SageMaker.CreateDog"},
        {"X-Amz-Target": "Kennel.CreateModel"},
        {"X-Amz-Target": "AmazonSSM.PutParameter"},
        {"X-Amz-Target": ""},
        {"Content-Type": "text/plain"},
    ],
    ids=str,
)
def test_operations_that_a_json_service_does_not_have(
    aws: LocalAws, changed: dict[str, str]
) -> None:
    body = b'{"ModelName": "m"}'
    answer = ask(aws, "sagemaker", body, {**MODEL, **changed}, "POST", "/")
    assert (answer.status, json.loads(answer.body)["__type"]) == (400, "UnknownOperationException")


@pytest.mark.parametrize(
    ("service", "form", "code"),
    [
        ("iam", {"Action": "CreateDog", "Version": "2010-05-08"}, "InvalidAction"),
        ("iam", {"RoleName": "r"}, "MissingAction"),
        ("iam", {}, "MissingAction"),
        ("iam", {"Action": "CreateRole", "RoleName": "r"}, "ValidationError"),
        ("iam", {"Action": "ListRoles", "MaxItems": "many"}, "MalformedInput"),
        ("iam", {"Action": "CreateUser", "UserName": b"\xff"}, "MalformedInput"),
        ("ec2", {"Action": "CreateDog"}, "InvalidAction"),
        ("ec2", {"Action": "RunInstances", "MinCount": "1"}, "MissingParameter"),
        ("ec2", {"Action": "StopInstances"}, "InvalidParameterCombination"),
        ("ec2", {"Action": "TerminateInstances"}, "InvalidParameterCombination"),
        (
            "ec2",
            {"Action": "RunInstances", "MinCount": "one", "MaxCount": "1"},
            "InvalidParameterValue",
        ),
    ],
)
def test_forms(aws: LocalAws, service: str, form: dict[str, Any], code: str) -> None:
    body = urlencode(form).encode()
    answer = ask(aws, service, body, {"Content-Type": FORM}, "POST", "/")
    assert answer.status == 400
    assert f"<Code>{code}</Code>" in answer.text


def test_tags_name_what_they_are_for_as_ec2_does(aws: LocalAws) -> None:
    body = urlencode({"Action": "CreateTags", "Tag.1.Key": "dog"}).encode()
    answer = ask(aws, "ec2", body, {"Content-Type": FORM}, "POST", "/")
    assert "must contain the parameter resourceIdSet" in answer.text


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"{{{", "InvalidRequestContentException"),
        (b"[]", "SerializationException"),
        (b"", "ValidationException"),
        (json.dumps({**FUNCTION, "Timeout": "3"}).encode(), "SerializationException"),
        (json.dumps({**FUNCTION, "Timeout": 2**31}).encode(), "SerializationException"),
        (json.dumps({**FUNCTION, "Code": {"ZipFile": "%%"}}).encode(), "SerializationException"),
        (json.dumps({"FunctionName": "bad"}).encode(), "ValidationException"),
    ],
)
def test_rest_json(aws: LocalAws, body: bytes, code: str) -> None:
    headers = {"Content-Type": "application/json"}
    answer = ask(aws, "lambda", body, headers, "POST", FUNCTIONS)
    assert (answer.status, json.loads(answer.body)["__type"]) == (400, code)
    assert aws.client("lambda").list_functions()["Functions"] == []


VERSIONING = "/bodies?versioning"


@pytest.mark.parametrize(
    ("target", "body", "code"),
    [
        (VERSIONING, b"<Versioning", "MalformedXML"),
        (VERSIONING, b"\xff", "MalformedXML"),
        (VERSIONING, b"<Tagging/>", "MalformedXML"),
        (
            VERSIONING,
            b"<VersioningConfiguration><Status>On</Status></VersioningConfiguration>",
            "MalformedXML",
        ),
        (VERSIONING, b"", "MissingRequestBodyError"),
        ("/bodies?tagging", b"<Tagging><TagSet><Tag/></TagSet></Tagging>", "MalformedXML"),
        ("/bodies?policy", b"{{{", "MalformedPolicy"),
    ],
)
def test_xml(aws: LocalAws, target: str, body: bytes, code: str) -> None:
    s3 = aws.client("s3")
    s3.create_bucket(Bucket="bodies")
    try:
        answer = ask(aws, "s3", body, {"Content-Type": XML}, "PUT", target)
        assert answer.status == 400
        assert f"<Code>{code}</Code>" in answer.text
        assert "Status" not in s3.get_bucket_versioning(Bucket="bodies")
    finally:
        s3.delete_bucket(Bucket="bodies")


def test_a_body_that_says_it_is_packed(aws: LocalAws) -> None:
    content = {**PARAMETER, "Content-Encoding": "gzip"}
    answer = ask(aws, "ssm", b'{"Name": "/packed"}', content, "POST", "/")
    assert (answer.status, json.loads(answer.body)["__type"]) == (400, "SerializationException")


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
# Operations with each kind of member, and members of them that the bodies are likely to hit.
TARGETS = {
    "sagemaker": ("SageMaker.CreateTrainingJob", "sagemaker"),
    "logs": ("Logs_20140328.PutLogEvents", "logs"),
    "kms": ("TrentService.Encrypt", "kms"),
    "budgets": ("AWSBudgetServiceGateway.CreateBudget", "budgets"),
}


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_what_passes_can_be_read(data: st.DataObject) -> None:
    """Nothing breaks the checks, and what they let pass does not break moto's reading of it."""
    target, service = TARGETS[data.draw(st.sampled_from(sorted(TARGETS)))]
    model = get_service_model(service).operation_model(target.rpartition(".")[2])
    names = st.sampled_from(sorted(model.input_shape.members))
    body = data.draw(
        st.binary(max_size=20)
        | JSON_VALUES.map(lambda value: json.dumps(value).encode())
        | st.dictionaries(names, JSON_VALUES).map(lambda value: json.dumps(value).encode())
    )
    scope = f"Credential=test/20260101/us-east-1/{service}/aws4_request"
    request: Any = Request.from_values(
        method="POST",
        data=body,
        headers={
            "Authorization": f"AWS4-HMAC-SHA256 {scope}, SignedHeaders=host",
            "X-Amz-Target": target,
            "Content-Type": JSON,
        },
    )
    call = identify(request, form_of(JSON, body))
    answer = None
    try:
        told = read(call, request)
    except RefusedError as error:
        answer = error.answer
    if answer is None:
        sent: Any = {"body": body, "headers": request.headers, "url_params": {}, "values": {}}
        assert PROTOCOL_PARSERS["json"](model).parse(sent) == told
    else:
        assert answer.status_code in {400, 413}
        assert json.loads(answer.get_data())["__type"]


@settings(max_examples=30, deadline=None)
@given(st.binary(min_size=1))
def test_blobs_are_in_base64(content: bytes) -> None:
    def is_read(blob: str) -> bool:
        body = json.dumps({"KeyId": "k", "Plaintext": blob}).encode()
        scope = "Credential=test/20260101/us-east-1/kms/aws4_request"
        headers = {
            "Authorization": f"AWS4-HMAC-SHA256 {scope}, SignedHeaders=host",
            "X-Amz-Target": "TrentService.Encrypt",
            "Content-Type": JSON,
        }
        request: Any = Request.from_values(method="POST", data=body, headers=headers)
        try:
            return bool(read(identify(request, {}), request)["Plaintext"] == content)
        except RefusedError:
            return False

    encoded = base64.b64encode(content).decode()
    assert is_read(encoded)
    assert not is_read(f"{encoded}%")
