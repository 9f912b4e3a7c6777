"""The AWS provider is found, wherever it is, and nobody's own configuration is overruled."""

import json
import ssl
import subprocess
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import trustme

from terraform.cli import binary
from terraform.cli.provider import mirrored_releases, usual_folders
from tests.terraform.checkout import Checkout, make_checkout

ENVIRONMENT = """
import json
from terraform.cli import environment
from trainer.errors import run_command
run_command(lambda: print(json.dumps(environment())))
"""
IMPLIED = "home/.terraform.d/plugins"
PLATFORM = "linux_amd64"
# Nothing listens there, so that no registry answers.
NOWHERE = "http://127.0.0.1:9"

REQUIRED = """
terraform {{
  required_providers {{
    aws = {{
      source  = "{host}/hashicorp/aws"
      version = ">= 5.100, < 7.0"
    }}
  }}
}}
"""
MIRRORING = """
provider_installation {
  filesystem_mirror {
    path = "/srv/mirror"
  }
}
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    """Without a registry, and with a Terraform for one platform whatever runs the tests."""
    made = make_checkout(tmp_path / "checkout", {"HTTPS_PROXY": NOWHERE})
    made.program("terraform", f"echo 'Terraform v1.12.0'; echo 'on {PLATFORM}'")
    return made


def unpacked(folder: Path, version: str = "5.100.0", system: str = PLATFORM) -> Path:
    """Put a provider into a mirror, as a folder."""
    home = folder / "registry.terraform.io/hashicorp/aws" / version / system
    home.mkdir(parents=True)
    (home / f"terraform-provider-aws_v{version}_x5").touch()
    return folder


def packed(folder: Path, version: str = "6.28.0", system: str = PLATFORM) -> Path:
    """Put a provider into a mirror, as a zip."""
    home = folder / "registry.terraform.io/hashicorp/aws"
    home.mkdir(parents=True, exist_ok=True)
    name = f"terraform-provider-aws_{version}_{system}.zip"
    with zipfile.ZipFile(home / name, "w") as archive:
        archive.writestr(f"terraform-provider-aws_v{version}_x5", b"")
    return folder


def environment(checkout: Checkout, **changes: str | None) -> dict[str, str]:
    finished = checkout.python("-c", ENVIRONMENT, **changes)
    assert finished.returncode == 0, finished.stderr
    return json.loads(finished.stdout)


def mirror(environ: dict[str, str]) -> str:
    """The mirror that the command-line configuration names for the provider."""
    text = Path(environ["TF_CLI_CONFIG_FILE"]).read_text()
    assert text.count('["registry.terraform.io/hashicorp/aws"]') == 2
    return text.split('path    = "')[1].split('"')[0]


@pytest.mark.parametrize("layout", [unpacked, packed])
@pytest.mark.parametrize(
    "place", [IMPLIED, "home/.local/share/terraform/plugins", "data/terraform/plugins"]
)
def test_a_mirror_in_a_usual_place_is_found(checkout: Checkout, layout: Any, place: str) -> None:
    folder = layout(checkout.folder / place)
    found = environment(checkout, XDG_DATA_DIRS=f"/nowhere:{checkout.folder / 'data'}")
    assert mirror(found) == str(folder)


def test_a_mirror_among_add_on_software_is_found(tmp_path: Path) -> None:
    folder = unpacked(tmp_path / "opt" / "plugins")
    (tmp_path / "opt" / "other").mkdir()
    found = [path for path in usual_folders({}, tmp_path) if mirrored_releases(path, PLATFORM)]
    assert folder in found


def test_what_the_modules_refuse_is_no_mirror(checkout: Checkout) -> None:
    first = checkout.folder / IMPLIED
    unpacked(first, "5.99.0")
    packed(first, "7.0.0")
    packed(first, "6.0.0-beta1")
    packed(first, "6.28.0", "darwin_arm64")
    (first / f"registry.terraform.io/hashicorp/aws/6.1.0/{PLATFORM}").mkdir(parents=True)
    second = packed(checkout.folder / "home/.local/share/terraform/plugins")
    assert mirror(environment(checkout)) == str(second)


def test_a_named_mirror_comes_first(checkout: Checkout, registry: dict[str, str]) -> None:
    unpacked(checkout.folder / IMPLIED)
    named = unpacked(checkout.folder / "my mirror")
    found = environment(checkout, TF_PLUGIN_MIRROR="my mirror", **registry)
    assert mirror(found) == str(named)


def test_a_named_mirror_without_the_provider_is_an_error(checkout: Checkout) -> None:
    unpacked(checkout.folder / IMPLIED)
    (checkout.folder / "empty").mkdir()
    finished = checkout.python("-c", ENVIRONMENT, TF_PLUGIN_MIRROR="empty")
    assert finished.returncode == 1
    assert finished.stderr.startswith("error: TF_PLUGIN_MIRROR=empty: ")
    assert "terraform providers mirror empty" in finished.stderr


def test_without_registry_and_mirror_there_is_one_message(checkout: Checkout) -> None:
    # Looks nowhere but in the home folder, whatever the machine that runs the tests carries.
    narrow = "import terraform.cli.provider as p; from pathlib import Path\n"
    narrow += "usual = p.usual_folders; p.usual_folders = lambda e: usual(e, Path('/none'))\n"
    finished = checkout.python("-c", narrow + ENVIRONMENT)
    assert finished.returncode == 1
    assert finished.stderr.count("\n") == 1
    for part in (
        "error: the provider hashicorp/aws >= 5.100, < 7.0 for linux_amd64 is nowhere",
        "https://registry.terraform.io does not answer",
        str(checkout.folder / IMPLIED),
        "TF_PLUGIN_MIRROR",
    ):
        assert part in finished.stderr


def test_the_registry_is_asked_before_a_mirror_is_used(
    checkout: Checkout, registry: dict[str, str]
) -> None:
    unpacked(checkout.folder / IMPLIED)
    found = environment(checkout, **registry)
    assert "TF_CLI_CONFIG_FILE" not in found
    assert Path(found["TF_PLUGIN_CACHE_DIR"]).is_dir()


def test_opentofu_asks_its_own_registry_and_gets_links(
    checkout: Checkout, registry: dict[str, str]
) -> None:
    folder = unpacked(checkout.folder / IMPLIED)
    checkout.program("terraform", f"echo 'OpenTofu v1.11.0'; echo 'on {PLATFORM}'")
    # What answers has the certificate of Terraform's registry, so it does not count.
    found = environment(checkout, **registry)
    link = checkout.folder / "build/terraform/mirror/registry.opentofu.org/hashicorp/aws/5.100.0"
    assert Path(found["TF_CLI_CONFIG_FILE"]).read_text().count("registry.opentofu.org") == 2
    assert (link / PLATFORM).readlink().is_relative_to(folder)


@pytest.mark.parametrize("given", ["TF_CLI_CONFIG_FILE", "home"])
def test_the_users_own_installation_is_left_alone(checkout: Checkout, given: str) -> None:
    unpacked(checkout.folder / IMPLIED)
    own = checkout.folder / ("own.tfrc" if given != "home" else "home/.terraformrc")
    own.write_text(MIRRORING)
    named = str(own) if given != "home" else None
    found = environment(checkout, TF_CLI_CONFIG_FILE=named)
    assert found.get("TF_CLI_CONFIG_FILE") == named


def test_the_users_cache_and_settings_are_left_alone(
    checkout: Checkout, registry: dict[str, str]
) -> None:
    own = checkout.folder / "own.tfrc"
    own.write_text('plugin_cache_dir = "/srv/cache"\n')
    found = environment(checkout, TF_CLI_CONFIG_FILE=str(own), **registry)
    assert found["TF_CLI_CONFIG_FILE"] == str(own)
    assert "TF_PLUGIN_CACHE_DIR" not in found


# A name that is too long fails as a folder does that may not be entered, for root as well.
@pytest.mark.parametrize("name", ["missing.tfrc", "x" * 300])
def test_a_configuration_that_cannot_be_opened_is_forgotten(
    checkout: Checkout, registry: dict[str, str], name: str
) -> None:
    missing = str(checkout.folder / name)
    assert "TF_CLI_CONFIG_FILE" not in environment(checkout, TF_CLI_CONFIG_FILE=missing, **registry)
    folder = unpacked(checkout.folder / IMPLIED)
    found = environment(checkout, TF_CLI_CONFIG_FILE=missing)
    assert mirror(found) == str(folder)


def test_what_is_up_to_date_is_not_written_again(checkout: Checkout) -> None:
    unpacked(checkout.folder / IMPLIED)
    path = Path(environment(checkout)["TF_CLI_CONFIG_FILE"])
    before = path.stat()
    assert environment(checkout)["TF_CLI_CONFIG_FILE"] == str(path)
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_terraform_takes_the_provider_from_the_links(
    tmp_path: Path, terraform_environment: dict[str, str]
) -> None:
    """What OpenTofu does with its own registry's name, done by Terraform with that name."""
    terraform = binary.resolve()

    def run(folder: str, host: str, environ: dict[str, str]) -> Path:
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "main.tf").write_text(REQUIRED.format(host=host))
        for command in ("init", "validate"):
            subprocess.run(
                [terraform.path, command], cwd=tmp_path / folder, env=environ, check=True
            )
        return tmp_path / folder / ".terraform/providers"

    # What `init` leaves is laid out as a mirror is.
    installed = run("terraform", "registry.terraform.io", terraform_environment)
    checkout = make_checkout(tmp_path / "checkout", {"TF_PLUGIN_MIRROR": str(installed)})
    checkout.program("tofu", f"echo 'OpenTofu v1.11.0'; echo 'on {terraform.platform}'")
    run("tofu", "registry.opentofu.org", environment(checkout, TERRAFORM="tofu"))


class Registry(BaseHTTPRequestHandler):
    """A proxy behind which there is only a registry: all tunnels lead to it."""

    def do_CONNECT(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.flush()
        try:
            self.connection = self.server.context.wrap_socket(self.connection, server_side=True)
        except ssl.SSLError:
            self.close_connection = True
            return
        self.rfile, self.wfile = self.connection.makefile("rb"), self.connection.makefile("wb")
        self.handle_one_request()
        self.wfile.flush()
        self.close_connection = True

    def do_GET(self) -> None:
        body = b'{"providers.v1": "/v1/providers/"}'
        found = self.path == "/.well-known/terraform.json"
        self.send_response(200 if found else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[dict[str, str]]:
    """A registry that answers, behind a proxy: the variables that lead to it."""
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("registry.terraform.io").configure_cert(context)
    bundle = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(bundle)
    with ThreadingHTTPServer(("127.0.0.1", 0), Registry) as server:
        server.context = context
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield {
            "HTTPS_PROXY": f"http://127.0.0.1:{server.server_port}",
            "SSL_CERT_FILE": str(bundle),
        }
        server.shutdown()
