"""Every module and stack documents itself, and its README says what its sources say."""

import re
from pathlib import Path

import hcl2
import pytest

from terraform.cli import docs
from terraform.cli.paths import TERRAFORM
from tests.terraform.checkout import Checkout, make_checkout

MODULES = sorted(path.parent for path in TERRAFORM.glob("modules/*/versions.tf"))
STACKS = sorted(path.parent for path in TERRAFORM.glob("stacks/*/versions.tf"))
BOTH = pytest.mark.parametrize("folder", [*MODULES, *STACKS], ids=lambda path: path.name)
EACH_MODULE = pytest.mark.parametrize("module", MODULES, ids=lambda path: path.name)

VARIABLES = """\
variable "size" {
  type = object({
    # Not told.
    limits = optional(map(list(number)), {})
    name   = string # nor this
    pair = optional(object({
      left  = string
      right = optional(string, "a | b")
    }))
  })
  description = "Size in \\"inches\\"."
  nullable    = false

  validation {
    condition     = var.size.name != ""
    error_message = "size.name must not be empty."
  }
}

variable "tags" {
  type        = list(string)
  description = <<-EOT
    Tags,
    one by one.
  EOT
  default = [
    "one",
    "two",
  ]
}
"""
OUTPUTS = """\
output "arn" {
  description = "Its ARN."
  value       = "arn"
}
"""
TABLES = """\
# A module
<!-- BEGIN_TF_DOCS -->
## Inputs

| Name | Description | Type | Default |
| --- | --- | --- | --- |
| `size` | Size in "inches". | `object({ limits = optional(map(list(number)), {}), name = string, \
pair = optional(object({ left = string, right = optional(string, "a \\| b") })) })` | required |
| `tags` | Tags, one by one. | `list(string)` | `["one", "two"]` |

## Outputs

| Name | Description |
| --- | --- |
| `arn` | Its ARN. |
<!-- END_TF_DOCS -->
The end.
"""


def parsed(folder: Path, kind: str) -> dict[str, dict[str, object]]:
    """The variables or outputs of a module by name, as another parser reads them."""
    path = folder / f"{kind}s.tf"
    blocks = hcl2.loads(path.read_text())[kind] if path.exists() else []
    return {name.strip('"'): body for block in blocks for name, body in block.items()}


@BOTH
def test_the_readme_is_up_to_date(folder: Path) -> None:
    assert (folder / "README.md").is_file()
    assert folder / "README.md" not in list(docs.stale()), "`make docs` brings it up to date"


@BOTH
@pytest.mark.parametrize("kind", ["variable", "output"])
def test_all_are_found_in_order_and_described(folder: Path, kind: str) -> None:
    expected = parsed(folder, kind)
    found = [block for block in docs.blocks(folder) if block.kind == kind]
    assert [block.name for block in found] == sorted(expected)
    needed = {"description", "type"} if kind == "variable" else {"description"}
    for block in found:
        assert needed <= block.arguments.keys(), block.name
        assert block.description, block.name
        assert ("default" in block.arguments) == ("default" in expected[block.name])


@EACH_MODULE
def test_the_readme_s_usage_is_the_example(module: Path) -> None:
    readme = (module / "README.md").read_text()
    assert "\n## Usage\n" in readme
    (usage, *_) = re.findall(r"^```hcl\n(.*?)^```$", readme, re.MULTILINE | re.DOTALL)
    assert usage in (module / "examples/basic/main.tf").read_text()
    assert f'module "{module.name}"' in usage


@EACH_MODULE
def test_the_module_has_the_standard_structure(module: Path) -> None:
    names = {path.name for path in module.iterdir()}
    assert {"main.tf", "variables.tf", "outputs.tf", "versions.tf", "README.md"} <= names
    for path in module.glob("*.tf"):
        if path.name not in ("variables.tf", "outputs.tf"):
            assert not re.search(r"^(variable|output) ", path.read_text(), re.MULTILINE), path


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    made = make_checkout(tmp_path / "checkout")
    module = made.folder / "terraform/modules/one"
    module.mkdir(parents=True)
    for name, text in {
        "versions.tf": "",
        "variables.tf": VARIABLES,
        "outputs.tf": OUTPUTS,
        "README.md": "# A module\n<!-- BEGIN_TF_DOCS -->\n<!-- END_TF_DOCS -->\nThe end.\n",
    }.items():
        (module / name).write_text(text)
    return made


def test_the_tables_are_written_between_the_markers(checkout: Checkout) -> None:
    readme = checkout.folder / "terraform/modules/one/README.md"
    refused = checkout.run("docs", "--check")
    assert refused.returncode == 1
    assert f"error: out of date: {readme}; `make docs`" in refused.stderr
    assert checkout.run("docs").returncode == 0
    assert readme.read_text() == TABLES
    assert checkout.run("docs", "--check").returncode == 0


def test_a_readme_without_markers_is_an_error(checkout: Checkout) -> None:
    readme = checkout.folder / "terraform/modules/one/README.md"
    readme.write_text("# A module\n")
    refused = checkout.run("docs")
    assert refused.returncode == 1
    assert "has no lines <!-- BEGIN_TF_DOCS -->" in refused.stderr
    assert readme.read_text() == "# A module\n"
