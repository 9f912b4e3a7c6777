"""What Terraform is run with in a closed environment, whatever the user's shell says."""

import shutil
from pathlib import Path

from tests.outside import ROOT, Outside
from tests.terraform.checkout import make_checkout
from tests.terraform.conftest import LocalAws

RECORDING = """
env > "{folder}/$1"
case "$1" in
  version) echo "Terraform v1.12.0"; echo "on linux_amd64";;
esac
"""


def test_only_what_fetches_the_provider_has_the_user_s_proxies(
    localaws: LocalAws, tmp_path: Path
) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "said").mkdir()
    outside = Outside(tmp_path / "outside")
    checkout = make_checkout(tmp_path / "checkout")
    for path in (ROOT / "terraform/environments").glob("local.*"):
        shutil.copy(path, checkout.folder / "terraform/environments")
    fake = checkout.program("recording", RECORDING.format(folder=tmp_path / "said"))
    # A user's own configuration that says where providers come from: the registry is not asked.
    configuration = tmp_path / "terraformrc"
    configuration.write_text("provider_installation {\n  direct {}\n}\n")

    def run(*arguments: str) -> None:
        outside.run(
            *("terraform.cli", *arguments, "--env", "local"),
            folder=checkout.folder,
            LOCALAWS_PORT=localaws.port,
            TERRAFORM=str(fake),
            TF_CLI_CONFIG_FILE=str(configuration),
            TF_VAR_mine="kept",
            TF_VAR_project="another",
        )

    def given(command: str) -> dict[str, str]:
        lines = (tmp_path / "said" / command).read_text().splitlines()
        return dict(line.split("=", 1) for line in lines)

    run("bootstrap")
    run("plan", "foundation")
    init, plan = given("init"), given("plan")
    same = {name for name, value in outside.hostile.items() if init.get(name) == value}
    assert same == {name for name in outside.hostile if name.lower().endswith("_proxy")}
    assert {name for name, value in outside.hostile.items() if plan.get(name) == value} == set()
    # Go asks no proxy for this machine; for all else there is one that does not answer.
    proxies = {name: plan[name] for name in plan if name.lower().endswith("_proxy")}
    assert set(proxies) == {"HTTP_PROXY", "HTTPS_PROXY"}
    assert set(proxies.values()) == {"http://127.0.0.1:9"}
    for environ in (init, plan):
        assert environ["AWS_ENDPOINT_URL"] == localaws.endpoint
        assert environ["CHECKPOINT_DISABLE"] == "1"
        assert environ["TF_VAR_mine"] == "kept"
        assert environ["TF_VAR_project"] == "kennel"
        assert environ["TF_DATA_DIR"].startswith(str(checkout.folder))
        assert not {"TF_WORKSPACE", "TF_CLI_ARGS_init", "TF_CLI_ARGS_plan"} & set(environ)
    assert outside.seen == []
    outside.stop()
