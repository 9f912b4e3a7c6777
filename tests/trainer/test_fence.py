"""A closed environment: what of the user's shell is left, and where its commands go."""

import json
import os
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from localaws.loopback import LoopbackServer, Requests
from tests.outside import Outside
from trainer import target as targets
from trainer.errors import KennelError, UsageError
from trainer.fence import Fence
from trainer.target import explained, load

MINE = {
    "HOME": "/home/me",
    "PATH": os.environ["PATH"],
    "TERRAFORM": "tofu",
    "TF_CLI_CONFIG_FILE": "/home/me/.terraformrc",
    "TF_LOG": "DEBUG",
    "TF_PLUGIN_CACHE_DIR": "/home/me/plugins",
    "TF_PLUGIN_MIRROR": "/opt/mirror",
    "TF_TOKEN_app_terraform_io": "secret",
    "TF_VAR_release": "{}",
}


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Outside]:
    made = Outside(tmp_path)
    yield made
    made.stop()


@pytest.fixture(autouse=True)
def shell(outside: Outside, tmp_path: Path) -> None:
    os.environ.clear()
    os.environ.update({**outside.hostile, **MINE, "KENNEL_OUT": str(tmp_path)})
    # Whoever runs these tests may have a localaws at the usual port.
    os.environ["LOCALAWS_PORT"] = "4588"


def fence() -> Fence:
    closed = load("local").fence
    assert closed is not None
    return closed


def test_nothing_of_the_shell_leads_elsewhere(outside: Outside) -> None:
    fence()
    assert {**os.environ, **MINE} == dict(os.environ)
    assert [name for name in outside.hostile if os.environ.get(name) == outside.hostile[name]] == []
    assert os.environ["AWS_ENDPOINT_URL"] == "http://127.0.0.1:4588"
    assert {name for name in os.environ if name.startswith(("AWS_", "TF_AWS", "OTEL"))} == {
        "AWS_ACCESS_KEY_ID",
        "AWS_CONFIG_FILE",
        "AWS_DEFAULT_REGION",
        "AWS_EC2_METADATA_DISABLED",
        "AWS_ENDPOINT_URL",
        "AWS_MAX_ATTEMPTS",
        "AWS_REGION",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SHARED_CREDENTIALS_FILE",
    }


def test_an_environment_on_aws_is_as_the_shell_says(outside: Outside) -> None:
    before = dict(os.environ)
    assert load("dev").fence is None
    assert dict(os.environ) == before


def test_a_call_that_would_leave_is_not_sent_and_is_one_line(outside: Outside) -> None:
    client = load("local").session.client("sts", endpoint_url="https://sts.eu-west-1.amazonaws.com")
    with pytest.raises(KennelError) as refused, explained():
        client.get_caller_identity()
    assert str(refused.value) == (
        "ENV=local is closed, its AWS is http://127.0.0.1:4588: a call to "
        "sts.eu-west-1.amazonaws.com was not sent"
    )
    assert outside.seen == []


def test_what_fetches_the_provider_has_the_user_s_proxies(outside: Outside) -> None:
    closed = fence()
    mine = {name: value for name, value in outside.hostile.items() if "prox" in name.lower()}
    assert closed.proxies == mine
    with closed.opened():
        assert {**os.environ, **mine} == dict(os.environ)
    assert os.environ["no_proxy"] == "*"
    assert {**closed.with_proxies(os.environ), **mine} == closed.with_proxies(os.environ)
    walled = closed.walled(os.environ)
    assert {name: walled[name] for name in walled if "prox" in name.lower()} == {
        "HTTP_PROXY": "http://127.0.0.1:9",
        "HTTPS_PROXY": "http://127.0.0.1:9",
    }


@pytest.fixture
def serve() -> Iterator[Callable[[object], str]]:
    """Answers as localaws does about its health; gives its address."""
    started = []

    def start(health: object) -> str:
        class Answering(Requests):
            def do_GET(self) -> None:
                self.answer_json(200 if self.path == "/_localaws/health" else 404, health)

        started.append(LoopbackServer(Answering))
        return f"http://{started[-1].address}"

    yield start
    for server in started:
        server.stop()


@pytest.fixture
def usual(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Takes an address for that of localaws where nothing says another one."""

    def take(endpoint: str) -> None:
        del os.environ["LOCALAWS_PORT"]
        folder = tmp_path / "terraform/environments"
        shutil.copytree(targets.ENVIRONMENTS, folder)
        closed = folder / "local.aws.toml"
        closed.write_text(closed.read_text().replace("http://127.0.0.1:4588", endpoint))
        monkeypatch.setattr(targets, "ENVIRONMENTS", folder)

    return take


def nobody() -> str:
    """An address at which nobody answers."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return f"http://127.0.0.1:{taken.getsockname()[1]}"


def test_the_localaws_that_runs_is_found(tmp_path: Path, serve: Callable[[object], str]) -> None:
    (tmp_path / "localaws").mkdir()
    told = tmp_path / "localaws/server.json"
    running = serve({"state": str(tmp_path / "localaws")})
    told.write_text(json.dumps({"endpoint": running, "pid": 1}))
    os.environ["LOCALAWS_PORT"] = "6000"
    assert fence().endpoint == "http://127.0.0.1:6000"
    os.environ["LOCALAWS_PORT"] = "0"
    assert fence().endpoint == running
    del os.environ["LOCALAWS_PORT"]
    told.write_text(json.dumps({"endpoint": "https://elsewhere.example"}))
    with pytest.raises(UsageError, match=r"https://elsewhere\.example is not on this machine"):
        fence()


@pytest.mark.parametrize("link", [False, True])
def test_one_at_the_usual_port_is_taken_if_it_is_this_folder_s(
    tmp_path: Path, link: bool, serve: Callable[[object], str], usual: Callable[[str], None]
) -> None:
    (tmp_path / "localaws").mkdir()
    running = serve({"state": str(tmp_path / "localaws")})
    usual(running)
    if link:
        (tmp_path / "link").symlink_to(tmp_path)
        os.environ["KENNEL_OUT"] = f"{tmp_path / 'link'}/"
    assert fence().endpoint == running


@pytest.mark.parametrize(
    ("health", "other"),
    [
        ({"state": "/other/build/localaws"}, "the server of /other/build/localaws"),
        ({"status": "up"}, "another server"),
        (["up"], "another server"),
        ({"state": "a\0b"}, r"the server of a\x00b"),
        ({"state": "a" * 5000}, f"the server of {'a' * 5000}"),
    ],
)
@pytest.mark.parametrize("written", [False, True])
def test_that_of_another_checkout_is_not_asked(
    tmp_path: Path,
    health: object,
    other: str,
    written: bool,
    serve: Callable[[object], str],
    usual: Callable[[str], None],
) -> None:
    running = serve(health)
    usual(running)
    if written:  # The port of one that was killed may be another one's now.
        (tmp_path / "localaws").mkdir()
        (tmp_path / "localaws/server.json").write_text(json.dumps({"endpoint": running}))
    port = int(running.rpartition(":")[2])
    with pytest.raises(KennelError) as refused:
        fence()
    assert str(refused.value) == (
        f"ENV=local: at {running} is {other}, not that of {tmp_path}/localaws: `make local-up "
        f"LOCALAWS_PORT={port + 1}`, or another free port, starts it; LOCALAWS_PORT={port} takes "
        "the other one"
    )
    os.environ["LOCALAWS_PORT"] = str(port)
    assert fence().endpoint == running


def test_where_none_was_started_the_first_call_says_so(usual: Callable[[str], None]) -> None:
    usual(nobody())
    client = load("local").session.client("sts")
    with pytest.raises(KennelError, match="`make local-up` starts localaws"), explained():
        client.get_caller_identity()


def test_a_port_at_which_nobody_answers_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    port = nobody().rpartition(":")[2]
    monkeypatch.setenv("MAKELEVEL", "1")
    monkeypatch.setenv("LOCALAWS_PORT", port)
    client = load("local").session.client("sts")
    with pytest.raises(KennelError) as refused:  # as it is, and not botocore's after many tries
        client.get_caller_identity()
    assert str(refused.value) == (
        f"ENV=local: nobody answers at http://127.0.0.1:{port}: "
        f"`make local-up LOCALAWS_PORT={port}` starts localaws"
    )


@pytest.mark.parametrize("content", [None, "{", '{"endpoint": "http://127.0.0.1:x"}', "killed"])
def test_one_that_is_down_is_not_taken_for_another(
    content: str | None, tmp_path: Path, usual: Callable[[str], None]
) -> None:
    usual(nobody())
    (tmp_path / "localaws").mkdir()
    if content:
        content = json.dumps({"endpoint": nobody()}) if content == "killed" else content
        (tmp_path / "localaws/server.json").write_text(content)
    with pytest.raises(KennelError, match=r"ENV=local: .*`make local-up"):
        fence()


@pytest.mark.parametrize("port", ["65536", "x", "80@elsewhere.example", "-1"])
def test_a_port_is_a_port(port: str) -> None:
    os.environ["LOCALAWS_PORT"] = port
    with pytest.raises(UsageError, match=f"LOCALAWS_PORT={port}: a port is a number from 1 to"):
        fence()


@pytest.mark.parametrize("endpoint", ["https://aws.example", "http://127.0.0.1@aws.example:80"])
def test_a_closed_environment_is_on_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, endpoint: str
) -> None:
    monkeypatch.setattr(targets, "ENVIRONMENTS", tmp_path)
    (tmp_path / "mine.tfvars").write_text('environment = "mine"\nregion = "us-east-1"\n')
    (tmp_path / "mine.aws.toml").write_text(
        f'endpoint = "{endpoint}"\naccess_key_id = "a"\nsecret_access_key = "b"\n'
        'port_variable = "P"\nserver_file = "s/f"\n'
    )
    with pytest.raises(UsageError, match=f"the endpoint {endpoint} is not on this machine"):
        load("mine")
