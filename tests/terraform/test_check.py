"""The sources' check finds what is badly written and what Terraform would not take."""

from pathlib import Path

import pytest

from tests.terraform.checkout import Checkout, make_checkout


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    made = make_checkout(tmp_path / "checkout")
    # Stacks without a provider, which takes seconds to start.
    for stack in ("foundation", "serving"):
        (made.folder / f"terraform/stacks/{stack}/main.tf").write_text('output "a" { value = 1 }\n')
    example = made.folder / "terraform/modules/one/examples/basic/main.tf"
    example.parent.mkdir(parents=True)
    example.write_text('module "one" {\n  source = "../.."\n\n  size = 1\n}\n')
    (made.folder / "terraform/modules/one/main.tf").write_text('variable "size" {}\n')
    return made


def test_what_is_right_passes(checkout: Checkout) -> None:
    checked = checkout.run("check")
    assert checked.returncode == 0, checked.stderr
    assert not list(checkout.folder.rglob("terraform/**/.terraform"))


@pytest.mark.parametrize(
    ("path", "text", "said"),
    [
        ("modules/one/main.tf", 'variable "size" {\n    type=number\n}\n', "+  type = number"),
        ("modules/one/main.tf", 'variable "length" {}\n', '"size" is not expected here'),
        ("modules/one/examples/basic/main.tf", "resource {}\n", "must have 2 labels"),
        ("stacks/serving/main.tf", 'output "a" { value = var.a }\n', "undeclared input variable"),
    ],
)
def test_what_is_wrong_is_shown(checkout: Checkout, path: str, text: str, said: str) -> None:
    (checkout.folder / "terraform" / path).write_text(text)
    checked = checkout.run("check")
    assert checked.returncode == 1
    assert "error: `terraform" in checked.stderr
    assert said in checked.stderr
