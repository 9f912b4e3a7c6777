"""A user's shell that leads everywhere but here, and what was seen of those who followed it."""

import os
import shutil
import socketserver
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from localaws.loopback import LOOPBACK
from trainer.target import ENVIRONMENTS

ROOT = Path(__file__).parents[1]

_SERVICES = ("IAM", "LAMBDA", "LOGS", "S3", "SAGEMAKER", "SAGEMAKER_RUNTIME", "SSM", "STS")
# In each Python process: whom it connects to or looks up, but for this machine.
_WATCH = """
import ipaddress, sys
def note(event, arguments):
    if event == "socket.connect":
        host = arguments[1][0] if isinstance(arguments[1], tuple) else "localhost"
    elif event == "socket.getaddrinfo":
        host = arguments[0] or "localhost"
    else:
        return
    host = host.decode() if isinstance(host, bytes) else host
    try:
        is_here = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_here = False
    if not is_here:
        with open({seen!r}, "a") as file:
            file.write(f"{{' '.join(sys.orig_argv[1:4])}}: {{event}} {{host}}\\n")
sys.addaudithook(note)
"""
_CONFIG = """
[default]
ca_bundle = /nowhere
credential_process = /bin/false
endpoint_url = {url}
region = eu-west-1
services = elsewhere
use_dualstack_endpoint = true
use_fips_endpoint = true
s3 =
  addressing_style = virtual
  use_accelerate_endpoint = true

[services elsewhere]
sts =
  endpoint_url = {url}
ssm =
  endpoint_url = {url}

[profile nobody]
sso_account_id = 210987654321
sso_region = eu-west-1
sso_role_name = nobody
sso_start_url = {url}
"""


def open_environments(folder: Path) -> Path:
    """Copy the environments, none of them closed: their commands act under the shell's own keys."""
    ignored = shutil.ignore_patterns("*.aws.toml")
    return Path(shutil.copytree(ENVIRONMENTS, folder / "environments", ignore=ignored))


class Outside:
    """The proxy, and the AWS elsewhere, that a shell names; it answers nobody.

    Attributes:
        environ: The shell's variables.
        home: The user's home.
    """

    def __init__(self, folder: Path) -> None:
        """Lay out home and shell in an empty folder, and listen."""
        self._asked: list[str] = []
        self._server = socketserver.ThreadingTCPServer((LOOPBACK, 0), self._handler())
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        url = f"http://{LOOPBACK}:{self._server.server_address[1]}"
        self._seen = folder / "seen"
        self.home = folder / "home"
        (folder / "watch").mkdir()
        (folder / "watch/sitecustomize.py").write_text(_WATCH.format(seen=str(self._seen)))
        (self.home / ".aws").mkdir(parents=True)
        (self.home / ".aws/config").write_text(_CONFIG.format(url=url))
        (self.home / ".aws/credentials").write_text(
            "[default]\naws_access_key_id = AKIAELSEWHERE\n"
        )
        self._files = self._found()
        self.hostile = {
            **{f"{name}_proxy": url for name in ("http", "https", "all", "ftp")},
            **{f"{name}_PROXY": url for name in ("HTTP", "HTTPS", "ALL")},
            "Http_Proxy": url,
            "NO_PROXY": "example.com",
            "no_proxy": "example.com",
            **{f"AWS_ENDPOINT_URL_{service}": url for service in _SERVICES},
            "AWS_ACCESS_KEY_ID": "AKIAELSEWHERE",
            "AWS_CA_BUNDLE": "/nowhere",
            "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{url}/credentials",
            "AWS_DEFAULTS_MODE": "mobile",
            "AWS_DEFAULT_PROFILE": "nobody",
            "AWS_DEFAULT_REGION": "eu-west-1",
            "AWS_EC2_METADATA_SERVICE_ENDPOINT": url,
            "AWS_ENDPOINT_URL": url,
            "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "true",
            "AWS_METADATA_URL": url,
            "AWS_PROFILE": "nobody",
            "AWS_REGION": "eu-west-1",
            "AWS_ROLE_ARN": "arn:aws:iam::210987654321:role/elsewhere",
            "AWS_S3_ENDPOINT": url,
            "AWS_SDK_UA_APP_ID": "somebody",
            "AWS_SECRET_ACCESS_KEY": "elsewhere",
            "AWS_SESSION_TOKEN": "elsewhere",
            "AWS_STS_ENDPOINT": url,
            "AWS_STS_REGIONAL_ENDPOINTS": "legacy",
            "AWS_USE_DUALSTACK_ENDPOINT": "true",
            "AWS_USE_FIPS_ENDPOINT": "true",
            "AWS_WEB_IDENTITY_TOKEN_FILE": "/etc/hostname",
            "BOTO_CONFIG": "/nowhere",
            "MLFLOW_TRACKING_URI": url,
            "OTEL_EXPORTER_OTLP_ENDPOINT": url,
            "OTEL_EXPORTER_OTLP_INSECURE": "true",
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
            "OTEL_TRACES_EXPORTER": "otlp",
            "SAGEMAKER_ADMIN_CONFIG_OVERRIDE": "/nowhere",
            "SAGEMAKER_USER_CONFIG_OVERRIDE": "/nowhere",
            "TF_AWS_STS_ENDPOINT": url,
            "TF_CLI_ARGS_init": "-backend-config=profile=nobody",
            "TF_CLI_ARGS_plan": "-var=environment=elsewhere",
            "TF_DATA_DIR": "/nowhere",
            "TF_WORKSPACE": "elsewhere",
        }
        # Whoever finds itself tested, or in a CI, may report less than it does elsewhere.
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("AWS_", "CI", "GITHUB_", "PYTEST_", "XDG_"))
        }
        self.environ = {
            **kept,
            **self.hostile,
            "CHECKPOINT_DISABLE": "",
            "HOME": str(self.home),
            "ORT_DISABLE_TELEMETRY": "",
            "PYTHONPATH": str(folder / "watch"),
        }

    def run(self, *command: str, folder: Path = ROOT, **more: str) -> str:
        """Run a module, or make, to its end; give its output, or fail with all of it."""
        if command[0] == "make":
            # It takes this from its own command line only.
            watched = f"PYTHONPATH={self.environ['PYTHONPATH']}"
            return self._run((*command, watched), folder, more)
        return self.python("-m", *command, folder=folder, **more)

    def python(self, *arguments: str, folder: Path = ROOT, **more: str) -> str:
        """The same for Python with arguments."""
        return self._run((sys.executable, *arguments), folder, more)

    def _run(self, command: Sequence[str], folder: Path, more: Mapping[str, str]) -> str:
        done = subprocess.run(
            command,
            cwd=folder,
            env={**self.environ, **more},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    @property
    def seen(self) -> list[str]:
        """What the listener was asked, whom else somebody called, and what is new in the home."""
        called = self._seen.read_text().splitlines() if self._seen.exists() else []
        return [*self._asked, *called, *sorted(self._found() - self._files)]

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _handler(self) -> type[socketserver.StreamRequestHandler]:
        asked = self._asked

        class Noting(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                asked.append(self.rfile.readline().decode(errors="replace").strip())

        return Noting

    def _found(self) -> set[str]:
        return {str(path) for path in self.home.rglob("*") if path.is_file()}
