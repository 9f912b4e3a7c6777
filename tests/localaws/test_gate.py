"""No web page and no stranger gets anything out of localaws, and whoever signs gets all of it.

The attacks are what a browser sends for a page that somebody has open.
"""

import hashlib
import http.client
import io
import json
import os
import socket
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.message import Message
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
import psutil
import pytest
from botocore.auth import S3SigV4QueryAuth, SigV4Auth, SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.exceptions import ClientError
from hypothesis import given
from hypothesis import strategies as st

from localaws.gate import page_of, stranger
from localaws.iam import signature
from localaws.iam.signature import AuthenticationError, Sent
from localaws.loopback import LoopbackServer, Requests
from tests.localaws.conftest import LocalAws
from tests.localaws.raw import Answer, send, signed
from tests.localaws.roles import create_role

BUCKET = "kennel-code"
PLANTED = b"import os"
EVIL = "https://evil.example"
PAGES = {
    "another site": {"Origin": EVIL},
    "a sandboxed frame": {"Origin": "null"},
    "a development server": {"Origin": "http://localhost:3000"},
    "an image": {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"},
    "a link": {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"},
    "a page of another port": {"Sec-Fetch-Site": "same-site"},
    "an object of a bucket": {"Sec-Fetch-Site": "same-origin"},
    "an old browser": {"Referer": f"{EVIL}/page"},
}
JSON = "application/x-amz-json-1.1"


class Account:
    """A localaws that executes, with a bucket, and a function that leaves a mark when it runs."""

    def __init__(self, folder: Path) -> None:
        self.aws = LocalAws(folder)
        self.endpoint = self.aws.endpoint
        self.port = urlsplit(self.endpoint).port
        self._mark = folder / "mark"
        self.s3 = self.aws.client("s3")
        self.s3.create_bucket(Bucket=BUCKET)
        self.s3.put_object(Bucket=BUCKET, Key="train.py", Body=b"print()")
        self.role = create_role(self.aws.client("iam"), "functions", "lambda")
        lambdas = self.aws.client("lambda")
        self.function = {
            "FunctionName": "kennel",
            "Runtime": "python3.13",
            "Handler": "main.handler",
            "Role": self.role,
            "Environment": {"Variables": {"MARK": str(self._mark)}},
        }
        lambdas.create_function(**self.function, Code={"ZipFile": self.package()})
        for number, (action, more) in enumerate(
            {
                "lambda:InvokeFunctionUrl": {"FunctionUrlAuthType": "NONE"},
                "lambda:InvokeFunction": {"InvokedViaFunctionUrl": True},
            }.items()
        ):
            lambdas.add_permission(
                FunctionName="kennel",
                StatementId=f"s{number}",
                Action=action,
                Principal="*",
                **more,
            )
        self.url = lambdas.create_function_url_config(
            FunctionName="kennel",
            AuthType="NONE",
            Cors={"AllowOrigins": ["https://friend.example"]},
        )["FunctionUrl"].rstrip("/")

    @staticmethod
    def package() -> bytes:
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as archive:
            code = "import os\ndef handler(e, c):\n    open(os.environ['MARK'], 'a').write('ran ')"
            archive.writestr("main.py", code)
        return packed.getvalue()

    @property
    def runs(self) -> int:
        """How often the function has run."""
        return len(self._mark.read_text().split()) if self._mark.exists() else 0

    def _content(self) -> Any:
        objects = self.s3.list_objects_v2(Bucket=BUCKET)["Contents"]
        made = self.aws.inventory()
        # What the function has printed is sent when there is time.
        made.pop("logs", None)
        return made, [(each["Key"], each["ETag"]) for each in objects], self.runs

    @contextmanager
    def unchanged(self) -> Iterator[None]:
        """Within the block nothing is made, changed or run."""
        before = self._content()
        yield
        assert self._content() == before

    def send(self, method: str, target: str, headers: Any = (), body: bytes = b"") -> Answer:
        return send(self.endpoint, method, target, headers, body)

    def signed(
        self,
        service: str,
        method: str,
        target: str,
        headers: Any = None,
        body: bytes = b"",
        **key: str,
    ) -> dict[str, str]:
        return signed(service, method, f"{self.endpoint}{target}", body, headers, **key)


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Account]:
    made = Account(tmp_path_factory.mktemp("gate"))
    yield made
    made.aws.stop()


def multipart(fields: Mapping[str, str], *files: bytes) -> tuple[dict[str, str], bytes]:
    parts = [(f'name="{name}"', value.encode()) for name, value in fields.items()]
    parts += [('name="file"; filename="dog 1.jpg"', data) for data in files]
    body = b"".join(
        f"--b\r\nContent-Disposition: form-data; {head}\r\n\r\n".encode() + data + b"\r\n"
        for head, data in parts
    )
    return {"Content-Type": "multipart/form-data; boundary=b"}, body + b"--b--\r\n"


def form() -> tuple[dict[str, str], bytes]:
    """A form that uploads a file, as a page can send it without asking anybody."""
    return multipart({"key": "train.py"}, PLANTED)


@pytest.mark.parametrize("page", PAGES.values(), ids=PAGES)
class TestPage:
    def test_plants_no_object_by_a_form(self, account: Account, page: dict[str, str]) -> None:
        headers, body = form()
        with account.unchanged():
            answer = account.send("POST", f"/{BUCKET}", {**headers, **page}, body)
        assert answer.status == 403
        assert "<Code>AccessDenied</Code>" in answer.text
        assert "localaws answers no web pages" in answer.text

    def test_signs_in_vain(self, account: Account, page: dict[str, str]) -> None:
        """The administrator's key is known to everybody."""
        invoke = "/2015-03-31/functions/kennel/invocations"
        headers = account.signed("lambda", "POST", invoke, page, b"{}")
        url = presigned(account, "put", BUCKET, "train.py")
        with account.unchanged():
            assert account.send("POST", invoke, headers, b"{}").status == 403
            assert account.send("PUT", url, page, PLANTED).status == 403
            assert account.send("GET", presigned(account), page).status == 403

    def test_reaches_none_of_localaws_own_pages(
        self, account: Account, page: dict[str, str]
    ) -> None:
        with account.unchanged():
            for method, target in (
                ("POST", "/moto-api/reset"),
                ("POST", "/_localaws/save"),
                ("POST", "/_localaws/interrupt?job=kennel"),
                ("GET", "/_localaws/inventory"),
            ):
                answer = account.send(method, target, page)
                assert answer.status == 403
                assert "web pages" in json.loads(answer.body)["error"]


def presigned(
    account: Account, operation: str = "get", bucket: str = BUCKET, key: str = "train.py"
) -> str:
    """Path and query of a presigned URL of S3."""
    request = AWSRequest(operation.upper(), f"{account.endpoint}/{bucket}/{key}")
    S3SigV4QueryAuth(Credentials("test", "test"), "s3", "us-east-1").add_auth(request)
    return str(request.url).removeprefix(account.endpoint)


def test_a_name_that_was_made_to_lead_here_is_refused(account: Account) -> None:
    host = {"Host": f"evil.example:{account.port}"}
    create = {**account.function, "FunctionName": "planted", "Code": {"ZipFile": "UEsFBg=="}}
    requests: list[tuple[str, str, str, dict[str, str], bytes]] = [
        ("lambda", "POST", "/2015-03-31/functions", {}, json.dumps(create).encode()),
        ("lambda", "POST", "/2015-03-31/functions/kennel/invocations", {}, b"{}"),
        (
            "ec2",
            "POST",
            "/",
            {"Content-Type": "application/x-www-form-urlencoded"},
            b"Action=RunInstances&Version=2016-11-15&ImageId=ami-1&MinCount=1&MaxCount=1",
        ),
        ("s3", "PUT", f"/{BUCKET}/train.py", {}, PLANTED),
        ("sagemaker", "POST", "/", {"X-Amz-Target": "SageMaker.ListModels"}, b"{}"),
    ]
    with account.unchanged():
        for service, method, target, headers, body in requests:
            url = f"http://{host['Host']}{target}"
            answer = account.send(method, target, signed(service, method, url, body, headers), body)
            assert answer.status == 403
            assert "127.0.0.1 and localhost only, not to &apos;evil" in answer.text.replace(
                "'", "&apos;"
            )
        for method, target in (("POST", "/moto-api/reset"), ("GET", "/_localaws/inventory")):
            assert account.send(method, target, host).status == 403


@pytest.mark.parametrize(
    "target",
    [
        "/moto-api/reset",
        "/moto-api/seed?a=1",
        "/moto-api/data.json",
        "/%6doto-api/reset",
        "/latest/meta-data/iam/security-credentials/",
        "/latest/api/token",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_motos_own_pages_are_closed(account: Account, method: str, target: str) -> None:
    with account.unchanged():
        answer = account.send(method, target, account.signed("s3", method, target))
    assert answer.status == 403
    assert "moto's own pages" in json.loads(answer.body)["error"]


def lines(port: int, head: str) -> int:
    """The status that an answer to exactly these lines has."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(head.replace("\n", "\r\n").encode("latin-1") + b"\r\n\r\n")
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        return answer.status


@pytest.mark.parametrize(
    ("head", "status"),
    [
        ("GET /_localaws/health HTTP/1.1\nHost: 127.0.0.1", 200),
        ("GET /_localaws/health HTTP/1.1\nHost: LocalHost:1", 200),
        ("GET /_localaws/health HTTP/1.1\nHost: [::1]:80", 200),
        ("GET /_localaws/health HTTP/1.1\nHost: my.bucket.localhost", 200),
        ("GET /_localaws/health HTTP/1.1\nHost: 127.0.0.1\nSec-Fetch-Site: none", 200),
        ("GET /_localaws/health HTTP/1.0", 403),
        ("GET /_localaws/health HTTP/1.1\nHost:", 403),
        ("GET /_localaws/health HTTP/1.1\nHost: 127.0.0.1\nHost: evil.example", 403),
        ("GET /_localaws/health HTTP/1.1\nHost: 127.0.0.1\nHost: 127.0.0.1", 403),
        ("GET /_localaws/health HTTP/1.1\nHost: 127.0.0.1@evil.example", 403),
        ("GET /_localaws/health HTTP/1.1\nHost: evil.example@127.0.0.1", 403),
        ("GET /_localaws/health HTTP/1.1\nHost: 127.0.0.1.evil.example", 403),
        ("GET /_localaws/health HTTP/1.1\nHost: localhost.evil.example", 403),
        ("GET /_localaws/health HTTP/1.1\nHost: evillocalhost", 403),
        ("GET /_localaws/health HTTP/1.1\nHost: localhost.", 403),
        ("GET /_localaws/health HTTP/1.1\nHost: 0.0.0.0", 403),
        ("GET /_localaws/health HTTP/1.1\nHost: 127.0.0.1:99:evil", 403),
        ("GET /_localaws/health HTTP/1.1\nHost: 127.0.0.1.nip.io", 403),
        ("GET /_localaws/health HTTP/1.1\nHost: evil\nX-Forwarded-Host: 127.0.0.1", 403),
        ("GET http://evil/_localaws/health HTTP/1.1\nHost: 127.0.0.1", 403),
        ("GET http://127.0.0.1/_localaws/health HTTP/1.1\nHost: evil", 403),
        ("GET //127.0.0.1/_localaws/health HTTP/1.1\nHost: evil", 403),
        ("OPTIONS * HTTP/1.1\nHost: 127.0.0.1", 403),
        ("GET /_localaws/health HTTP/1.1\nHost: 127.0.0.1\nOrigin: http://127.0.0.1", 403),
        ("GET /_localaws/health HTTP/1.1\nHost: 127.0.0.1\norigin:", 403),
        ("GET /_localaws/health HTTP/1.1\nHost: 127.0.0.1\nX-HTTP-Method-Override: POST", 200),
    ],
)
def test_who_is_taken_for_a_program_on_this_machine(
    account: Account, head: str, status: int
) -> None:
    assert lines(account.port or 0, head) == status


def test_a_method_cannot_be_overridden(account: Account) -> None:
    target = f"/{BUCKET}/train.py"
    override = {"X-HTTP-Method-Override": "DELETE", "X-Method-Override": "DELETE"}
    with account.unchanged():
        answer = account.send("GET", target, account.signed("s3", "GET", target, override))
    assert answer.body == b"print()"


def test_every_port_that_is_listened_on_is_closed_to_pages(account: Account) -> None:
    invoke = account.aws.client("lambda").invoke
    invoke(FunctionName="kennel")
    process = psutil.Process(json.loads((account.aws._folder / "server.json").read_text())["pid"])
    ports = {
        found.laddr.port
        for found in process.net_connections("inet")
        if found.status == psutil.CONN_LISTEN
    }
    assert {account.port, urlsplit(account.url).port} < ports, "and the runtime's API"
    with account.unchanged():
        for port in ports:
            for method in ("GET", "POST", "OPTIONS"):
                for target in ("/", "/2018-06-01/runtime/invocation/next"):
                    host = {"Host": f"evil.example:{port}"}
                    for headers in (host, PAGES["another site"], PAGES["an image"]):
                        answer = send(f"http://127.0.0.1:{port}", method, target, headers)
                        # A preflight runs nothing; what it is told invites nobody.
                        assert answer.status == 403 or method == "OPTIONS"
                        assert "Access-Control-Allow-Origin" not in answer.headers
    runtime = ports - {account.port, urlsplit(account.url).port}
    answers = [
        send(f"http://127.0.0.1:{port}", "POST", f"/2018-06-01/runtime/invocation/{guess}/{what}")
        for port in runtime
        for guess in ("1", "", "None")
        for what in ("response", "error")
    ]
    # The metadata service of instances takes no POST.
    assert {400} <= {answer.status for answer in answers} <= {400, 501}
    assert json.loads(invoke(FunctionName="kennel")["Payload"].read()) is None


class TestFunctionUrl:
    @pytest.mark.parametrize("page", PAGES.values(), ids=PAGES)
    def test_runs_for_no_page_that_it_does_not_allow(
        self, account: Account, page: dict[str, str]
    ) -> None:
        # What a function's own page asks for is its own business.
        runs = page.get("Sec-Fetch-Site") == "same-origin"
        before = account.runs
        for method in ("GET", "POST"):
            assert send(account.url, method, "/", page).status == (200 if runs else 403)
        assert account.runs == before + (2 if runs else 0)

    def test_runs_for_a_page_that_it_allows(self, account: Account) -> None:
        before = account.runs
        answer = send(account.url, "POST", "/", {"Origin": "https://friend.example"})
        assert answer.headers["Access-Control-Allow-Origin"] == "https://friend.example"
        assert send(account.url, "POST", "/", {"Origin": account.url}).status == 200
        assert send(account.url, "GET", "/").status == 200
        assert account.runs == before + 3

    def test_is_not_at_another_name(self, account: Account) -> None:
        before = account.runs
        answer = send(account.url, "POST", "/", {"Host": "evil.example"})
        assert answer.status == 403
        assert account.runs == before


class TestStranger:
    """A program that does not know a secret, and sends none of a browser's headers."""

    def test_is_told_so_in_each_services_words(self, account: Account) -> None:
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        headers, body = globals()["form"]()
        invoke = "/2015-03-31/functions/kennel/invocations"
        asked: list[tuple[str, str, Mapping[str, str], bytes, int, str]] = [
            ("POST", invoke, {}, b"{}", 403, "AccessDenied"),
            ("POST", f"/{BUCKET}", headers, body, 403, "AccessDenied"),
            ("PUT", f"/{BUCKET}/train.py", {}, PLANTED, 403, "AccessDenied"),
            ("DELETE", f"/{BUCKET}/train.py", {}, b"", 403, "AccessDenied"),
            ("GET", f"/{BUCKET}/train.py", {}, b"", 403, "AccessDenied"),
            (
                "POST",
                "/",
                {"X-Amz-Target": "SageMaker.ListModels", "Content-Type": JSON},
                b"{}",
                400,
                "MissingAuthenticationTokenException",
            ),
            (
                "POST",
                "/",
                form,
                b"Action=CreateUser&UserName=evil&Version=2010-05-08",
                403,
                "MissingAuthenticationToken",
            ),
            (
                "GET",
                "/?Action=CreateUser&UserName=evil",
                {},
                b"",
                403,
                "MissingAuthenticationToken",
            ),
            ("GET", "/iam_us-east-1/?Action=CreateUser&UserName=evil", {}, b"", 403, "Missing"),
            ("GET", "/?Action=AssumeRoleWithWebIdentity", {}, b"", 403, "AccessDenied"),
        ]
        with account.unchanged():
            for method, target, given, content, status, code in asked:
                answer = account.send(method, target, given, content)
                assert (answer.status, code in answer.text) == (status, True), answer.text

    @pytest.mark.parametrize("scheme", ["Basic dGVzdDp0ZXN0", "AWS test:c2ln", "Bearer x", "AWS4"])
    def test_signs_in_no_other_way(self, account: Account, scheme: str) -> None:
        with account.unchanged():
            target = f"/{BUCKET}/train.py"
            answer = account.send("PUT", target, {"Authorization": scheme}, PLANTED)
        assert answer.status == 400
        assert "Please use AWS4-HMAC-SHA256" in answer.text

    @pytest.mark.parametrize(
        ("key", "secret"), [("test", "wrong"), ("amazonaws", "amazonaws"), ("AKIA", "test")]
    )
    def test_does_not_guess_a_secret(self, account: Account, key: str, secret: str) -> None:
        target = f"/{BUCKET}/train.py"
        headers = account.signed("s3", "PUT", target, {}, PLANTED, key=key, secret=secret)
        with account.unchanged():
            assert account.send("PUT", target, headers, PLANTED).status == 403

    def test_gets_no_role_by_a_token_that_it_wrote(self, account: Account) -> None:
        body = (
            f"Action=AssumeRoleWithWebIdentity&RoleArn={account.role}&RoleSessionName=evil"
            "&WebIdentityToken=e30.e30.x&Version=2011-06-15"
        ).encode()
        answer = account.send(
            "POST", "/", {"Content-Type": "application/x-www-form-urlencoded"}, body
        )
        assert answer.status == 403
        assert "Not authorized to perform sts:AssumeRoleWithWebIdentity" in answer.text


class TestSignature:
    def test_is_of_one_body(self, account: Account) -> None:
        invoke = "/2015-03-31/functions/kennel/invocations"
        object_ = f"/{BUCKET}/train.py"
        with account.unchanged():
            headers = account.signed("lambda", "POST", invoke, {}, b'{"a": 1}')
            answer = account.send("POST", invoke, headers, b'{"a": 2}')
            assert answer.status == 403
            assert answer.headers["x-amzn-ErrorType"] == "InvalidSignatureException"
            headers = account.signed("s3", "PUT", object_, {}, b"print()")
            answer = account.send("PUT", object_, headers, PLANTED)
            assert answer.status == 400
            assert "XAmzContentSHA256Mismatch" in answer.text

    def test_is_of_one_target_method_and_all_of_amazons_headers(self, account: Account) -> None:
        target = f"/{BUCKET}/train.py"
        headers = account.signed("s3", "GET", target)
        with account.unchanged():
            assert account.send("DELETE", target, headers).status == 403
            assert account.send("GET", f"/{BUCKET}/other", headers).status == 403
            assert account.send("GET", f"{target}?acl", headers).status == 403
            more = {**headers, "x-amz-acl": "public-read"}
            assert "x-amz-acl" in account.send("GET", target, more).text
        assert account.send("GET", target, headers).status == 200

    @pytest.mark.parametrize(("minutes", "status"), [(-14, 200), (-16, 403), (14, 200), (16, 403)])
    def test_is_of_its_time(
        self, account: Account, monkeypatch: pytest.MonkeyPatch, minutes: int, status: int
    ) -> None:
        moment = datetime.now(UTC) + timedelta(minutes=minutes)
        monkeypatch.setattr("botocore.auth.get_current_datetime", lambda: moment)
        target = f"/{BUCKET}/train.py"
        answer = account.send("GET", target, account.signed("s3", "GET", target))
        assert answer.status == status
        assert status == 200 or "RequestTimeTooSkewed" in answer.text

    def test_in_a_url_ends(self, account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(
            "botocore.auth.get_current_datetime", lambda: datetime.now(UTC) - timedelta(minutes=61)
        )
        answer = account.send("GET", presigned(account))
        assert (answer.status, "Request has expired" in answer.text) == (403, True)
        old = account.s3.generate_presigned_url(
            "get_object", {"Bucket": BUCKET, "Key": "train.py"}, ExpiresIn=-1
        )
        answer = account.send("GET", old.removeprefix(account.endpoint))
        assert (answer.status, "Request has expired" in answer.text) == (403, True)

    def test_in_a_url_is_of_all_that_it_names(self, account: Account) -> None:
        whole = presigned(account)
        for changed in (
            whole.replace("train.py", "other.py"),
            whole.replace("Expires=3600", "Expires=3601"),
            whole + "&versionId=1",
            whole + "&X-Amz-Expires=604800",
            whole[:-1] + ("0" if whole[-1] != "0" else "1"),
        ):
            assert account.send("GET", changed).status in (400, 403)
        assert account.send("PUT", whole, {}, PLANTED).status == 403
        assert account.send("GET", whole).body == b"print()"

    @pytest.mark.parametrize("digits", [19, 5000])
    def test_in_a_url_ends_at_a_time_that_can_be_read(self, account: Account, digits: int) -> None:
        old = f"/{BUCKET}/train.py?AWSAccessKeyId=test&Signature=x&Expires={'9' * digits}"
        assert account.send("GET", old).status == 403
        long = presigned(account).replace("Expires=3600", f"Expires={'9' * digits}")
        assert account.send("GET", long).status == 400

    def test_in_a_url_counts_for_s3_only(self, account: Account) -> None:
        """moto would take such a request for one of S3, whichever service IAM was asked about."""
        url = f"{account.endpoint}/?Action=CreateUser&UserName=evil&Version=2010-05-08"
        request = AWSRequest("GET", url)
        SigV4QueryAuth(Credentials("test", "test"), "iam", "us-east-1").add_auth(request)
        with account.unchanged():
            answer = account.send("GET", str(request.url).removeprefix(account.endpoint))
        assert answer.status == 400
        assert "presigned URLs of S3 only" in answer.text

    def test_in_a_url_leads_to_s3_only(self, account: Account) -> None:
        """moto would take the first part of the path for a service."""
        target = "/iam_us-east-1/?Action=CreateUser&UserName=evil&Version=2010-05-08"
        request = AWSRequest("POST", f"{account.endpoint}{target}")
        S3SigV4QueryAuth(Credentials("test", "test"), "s3", "us-east-1").add_auth(request)
        with account.unchanged():
            account.send("POST", str(request.url).removeprefix(account.endpoint))


class TestWhoSigns:
    """What has to go on working."""

    @pytest.mark.parametrize(
        ("service", "call"),
        [
            ("sagemaker", "list_models"),
            ("lambda", "list_functions"),
            ("iam", "list_roles"),
            ("s3", "list_buckets"),
            ("kms", "list_keys"),
            ("ec2", "describe_vpcs"),
            ("cloudwatch", "list_metrics"),
        ],
    )
    def test_speaks_any_protocol(self, account: Account, service: str, call: str) -> None:
        getattr(account.aws.client(service), call)()

    def test_may_be_a_session_or_a_user(self, account: Account) -> None:
        keys = account.aws.client("sts").assume_role(
            RoleArn=account.role, RoleSessionName="session"
        )["Credentials"]

        def ask(secret: str, token: str) -> str:
            sts = boto3.client(
                "sts",
                region_name="us-east-1",
                endpoint_url=account.endpoint,
                aws_access_key_id=keys["AccessKeyId"],
                aws_secret_access_key=secret,
                aws_session_token=token,
            )
            return str(sts.get_caller_identity()["Arn"])

        assert ask(keys["SecretAccessKey"], keys["SessionToken"]).endswith("/functions/session")
        for secret, token in (("x", keys["SessionToken"]), (keys["SecretAccessKey"], "x")):
            with pytest.raises(ClientError, match=r"SignatureDoesNotMatch|InvalidClientTokenId"):
                ask(secret, token)

    @pytest.mark.parametrize("version", [None, "s3v4"])
    @pytest.mark.parametrize("style", ["path", "virtual"])
    def test_may_sign_a_url(self, account: Account, version: str | None, style: str) -> None:
        s3 = boto3.client(
            "s3",
            region_name="us-east-1",
            endpoint_url=f"http://localhost:{account.port}",
            aws_access_key_id="test",
            aws_secret_access_key="test",
            config=Config(signature_version=version, s3={"addressing_style": style}),
        )
        where = {"Bucket": BUCKET, "Key": "signed/a b+ü"}

        def ask(method: str, operation: str, body: bytes = b"", **more: str) -> Answer:
            url = urlsplit(s3.generate_presigned_url(operation, {**where, **more}))
            host = {"Host": url.netloc}
            return account.send(method, f"{url.path}?{url.query}", host, body)

        assert ask("PUT", "put_object", b"dog").status == 200
        answer = ask("GET", "get_object", ResponseContentType="image/x-dog")
        assert (answer.body, answer.headers["Content-Type"]) == (b"dog", "image/x-dog")
        assert ask("DELETE", "delete_object").status == 204

    def test_may_send_signed_chunks(self, account: Account) -> None:
        target, data = f"/{BUCKET}/chunks", [os.urandom(8192), b"the rest", b""]

        def put(data: list[bytes], sent: list[bytes]) -> Answer:
            headers = {
                "Host": urlsplit(account.endpoint).netloc,
                "Content-Encoding": "aws-chunked",
                "X-Amz-Content-SHA256": "STREAMING-AWS4-HMAC-SHA256-PAYLOAD",
                "X-Amz-Decoded-Content-Length": str(sum(map(len, data))),
            }
            request = AWSRequest("PUT", f"{account.endpoint}{target}", headers)
            signer = SigV4Auth(Credentials("test", "test"), "s3", "us-east-1")
            signer.add_auth(request)
            previous = request.headers["Authorization"].rpartition("=")[2]
            body = b""
            for chunk, instead in zip(data, sent, strict=True):
                text = "\n".join(
                    (
                        "AWS4-HMAC-SHA256-PAYLOAD",
                        request.context["timestamp"],
                        signer.credential_scope(request),
                        previous,
                        hashlib.sha256().hexdigest(),
                        hashlib.sha256(chunk).hexdigest(),
                    )
                )
                previous = signer.signature(text, request)
                body += (
                    f"{len(chunk):x};chunk-signature={previous}\r\n".encode() + instead + b"\r\n"
                )
            return account.send("PUT", target, dict(request.headers.items()), body)

        with account.unchanged():
            assert put(data, [data[0], b"the rust", b""]).status == 403
        assert put(data, data).status == 200
        assert account.s3.get_object(Bucket=BUCKET, Key="chunks")["Body"].read() == b"".join(data)
        account.s3.delete_object(Bucket=BUCKET, Key="chunks")

    def test_may_be_the_command_line(self, account: Account, tmp_path: Path) -> None:
        (tmp_path / "photo").write_bytes(b"dog")
        command = ["s3", "cp", "--only-show-errors", str(tmp_path / "photo"), f"s3://{BUCKET}/cli"]
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path),
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": account.endpoint,
        }
        aws = Path(sys.executable).with_name("aws")
        done = subprocess.run([aws, *command], env=environment, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
        assert account.s3.get_object(Bucket=BUCKET, Key="cli")["Body"].read() == b"dog"
        account.s3.delete_object(Bucket=BUCKET, Key="cli")


@pytest.mark.parametrize("version", [None, "s3v4"])
class TestSignedForm:
    """What boto3's generate_presigned_post lets others upload."""

    def fields(self, account: Account, version: str | None, seconds: int = 60) -> dict[str, str]:
        s3 = boto3.client(
            "s3",
            region_name="us-east-1",
            endpoint_url=account.endpoint,
            aws_access_key_id="test",
            aws_secret_access_key="test",
            config=Config(signature_version=version),
        )
        given = {"x-amz-meta-breed": "Beagle", "Content-Type": "image/jpeg"}
        conditions = [
            {"x-amz-meta-breed": "Beagle"},
            ["starts-with", "$Content-Type", "image/"],
            ["content-length-range", 1, 9],
        ]
        form: dict[str, str] = s3.generate_presigned_post(
            BUCKET, "form/${filename}", given, conditions, seconds
        )["fields"]
        return form

    def post(
        self, account: Account, fields: Mapping[str, str], *files: bytes, bucket: str = BUCKET
    ) -> Answer:
        return account.send("POST", f"/{bucket}", *multipart(fields, *files))

    def test_uploads_one_object(self, account: Account, version: str | None) -> None:
        answer = self.post(account, self.fields(account, version), b"dog")
        assert (answer.status, answer.text) == (204, "")
        found = account.s3.get_object(Bucket=BUCKET, Key="form/dog 1.jpg")
        assert (found["Body"].read(), found["Metadata"]) == (b"dog", {"breed": "Beagle"})
        account.s3.delete_object(Bucket=BUCKET, Key="form/dog 1.jpg")

    @pytest.mark.parametrize(
        ("changed", "code"),
        [
            ({"key": "train.py"}, "AccessDenied"),
            ({"Content-Type": "text/html"}, "AccessDenied"),
            ({"x-amz-meta-breed": "Poodle"}, "AccessDenied"),
            ({"acl": "public-read"}, "AccessDenied"),
            ({"policy": "e30="}, "SignatureDoesNotMatch"),
            ({"policy": ""}, "SignatureDoesNotMatch"),
            ({"KEY": "train.py"}, "InvalidArgument"),
            ({"file": "more"}, "InvalidArgument"),
        ],
    )
    def test_is_of_all_its_fields(
        self, account: Account, version: str | None, changed: dict[str, str], code: str
    ) -> None:
        with account.unchanged():
            answer = self.post(account, self.fields(account, version) | changed, b"dog")
        assert answer.status in (400, 403)
        assert f"<Code>{code}</Code>" in answer.text

    def test_is_of_its_signer_bucket_size_and_time(
        self, account: Account, version: str | None
    ) -> None:
        fields = self.fields(account, version)
        name = "x-amz-signature" if version else "signature"
        key = "x-amz-credential" if version else "AWSAccessKeyId"
        with account.unchanged():
            for answer, code in (
                (self.post(account, fields, b"dogs" * 9), "EntityTooLarge"),
                (self.post(account, fields), "InvalidArgument"),
                (self.post(account, fields, b"a", b"b"), "InvalidArgument"),
                (self.post(account, fields, b"dog", bucket="other"), "AccessDenied"),
                (self.post(account, self.fields(account, version, -1), b"dog"), "AccessDenied"),
                (self.post(account, fields | {name: "0" * 64}, b"dog"), "SignatureDoesNotMatch"),
                (
                    self.post(account, fields | {key: "x" + fields[key]}, b"dog"),
                    "InvalidAccessKeyId",
                ),
            ):
                assert f"<Code>{code}</Code>" in answer.text
            headers, body = multipart(fields, b"dog")
            page = headers | {"Origin": EVIL}
            assert "web pages" in account.send("POST", f"/{BUCKET}", page, body).text


@pytest.fixture
def bodies() -> Iterator[int]:
    """The port of a server like those of functions' URLs."""

    class Reading(Requests):
        def do_POST(self) -> None:
            self.answer_json(200, len(self.body()))

    server = LoopbackServer(Reading)
    yield int(server.address.rpartition(":")[2])
    server.stop()


@pytest.mark.parametrize(
    "length", ["x", "-5", "1_0", "\N{SUPERSCRIPT TWO}", "5\nContent-Length: 6"]
)
def test_the_length_of_a_body_is_a_number(account: Account, bodies: int, length: str) -> None:
    head = f"POST / HTTP/1.1\nHost: 127.0.0.1\nContent-Length: {length}"
    assert lines(account.port or 0, head) == 400
    assert lines(bodies, head) == 400


def test_a_body_in_chunks_is_not_taken_for_none(bodies: int) -> None:
    head = "POST / HTTP/1.1\nHost: 127.0.0.1\nTransfer-Encoding: chunked"
    assert lines(bodies, head) == 411
    assert lines(bodies, "POST / HTTP/1.1\nHost: 127.0.0.1") == 200


EXAMPLE = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
SCOPE = "AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request"
CHUNKS = (
    (65536, "ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648"),
    (1024, "0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497"),
    (0, "b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9"),
)


def message(headers: Mapping[str, str]) -> Message:
    made = Message()
    for name, value in headers.items():
        made[name] = value
    return made


def sent(method: str, target: str, headers: Mapping[str, str], body: bytes = b"") -> Sent:
    return Sent(method, target, message(headers), lambda: body)


def examples() -> dict[str, Sent]:
    """The examples of S3's API reference, "Authenticating Requests (AWS Signature Version 4)"."""
    empty = hashlib.sha256().hexdigest()
    names = "content-encoding;content-length;host;x-amz-content-sha256;x-amz-date"
    names += ";x-amz-decoded-content-length;x-amz-storage-class"
    seed = "4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9"
    return {
        "header": sent(
            "GET",
            "/test.txt",
            {
                "Host": "examplebucket.s3.amazonaws.com",
                "Authorization": f"AWS4-HMAC-SHA256 Credential={SCOPE},"
                "SignedHeaders=host;range;x-amz-content-sha256;x-amz-date,Signature="
                "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
                "Range": "bytes=0-9",
                "x-amz-content-sha256": empty,
                "x-amz-date": "20130524T000000Z",
            },
        ),
        "query": sent(
            "GET",
            "/test.txt?X-Amz-Algorithm=AWS4-HMAC-SHA256"
            f"&X-Amz-Credential={SCOPE.replace('/', '%2F')}&X-Amz-Date=20130524T000000Z"
            "&X-Amz-Expires=86400&X-Amz-SignedHeaders=host"
            "&X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404",
            {"Host": "examplebucket.s3.amazonaws.com"},
        ),
        "chunks": sent(
            "PUT",
            "/examplebucket/chunkObject.txt",
            {
                "Host": "s3.amazonaws.com",
                "x-amz-date": "20130524T000000Z",
                "x-amz-storage-class": "REDUCED_REDUNDANCY",
                "Authorization": f"AWS4-HMAC-SHA256 Credential={SCOPE},SignedHeaders={names},"
                f"Signature={seed}",
                "x-amz-content-sha256": "STREAMING-AWS4-HMAC-SHA256-PAYLOAD",
                "Content-Encoding": "aws-chunked",
                "x-amz-decoded-content-length": "66560",
                "Content-Length": "66824",
            },
            b"".join(
                f"{size:x};chunk-signature={signature}\r\n".encode() + b"a" * size + b"\r\n"
                for size, signature in CHUNKS
            ),
        ),
    }


@pytest.mark.parametrize("request_", examples().values(), ids=examples())
def test_amazons_own_examples_are_right(monkeypatch: pytest.MonkeyPatch, request_: Sent) -> None:
    monkeypatch.setattr(
        signature.time, "time", lambda: datetime(2013, 5, 24, tzinfo=UTC).timestamp()
    )
    found = signature.find(request_)
    assert found
    signature.check(request_, found, EXAMPLE)
    with pytest.raises(AuthenticationError, match="does not match"):
        signature.check(request_, found, EXAMPLE.lower())


NAMES = st.from_regex(r"[a-z0-9.-]{1,20}", fullmatch=True)


@given(NAMES, st.sampled_from(["", ":80", ":4588"]))
def test_a_host_is_loopback_or_is_refused(name: str, port: str) -> None:
    loopback = name in ("localhost", "127.0.0.1") or (
        name.endswith(".localhost") and all(name.split("."))
    )
    assert (not stranger("/", message({"Host": f"{name}{port}"}))) == loopback


@given(st.text(max_size=40).filter(lambda text: "\r" not in text and "\n" not in text))
def test_any_origin_is_a_page(text: str) -> None:
    headers = {"Host": "127.0.0.1", "Origin": text}
    assert stranger("/", message(headers))
    assert stranger("/", message({"Host": "127.0.0.1", "Referer": text}))
    assert page_of(message({"Sec-Fetch-Site": text}))  # "none" is not made of chance
