"""Writes the inputs and outputs of modules and stacks into their READMEs.

The sources are read line by line, which `terraform fmt` makes safe: a block begins and ends at the
margin, and its arguments two spaces in.
"""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from terraform.cli.paths import TERRAFORM
from trainer.errors import KennelError
from trainer.files import write_text_atomic

BEGIN, END = "<!-- BEGIN_TF_DOCS -->", "<!-- END_TF_DOCS -->"

_BLOCK = re.compile(r'^(variable|output) "([^"]+)" \{\n(.*?)^\}$', re.MULTILINE | re.DOTALL)
_ARGUMENT = re.compile(r"^  (\w+) += (.*?)(?=^  \w+ +[={]|\Z)", re.MULTILINE | re.DOTALL)
_HEREDOC = re.compile(r"<<-?(\w+)\n(.*)\n\s*\1", re.DOTALL)
_COMMENT = re.compile(r"^\s*#.*\n|\s+# .*$", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A variable or an output.

    Attributes:
        kind: `variable` or `output`.
        name: Its name.
        arguments: Its arguments' texts by name, as they stand.
    """

    kind: str
    name: str
    arguments: dict[str, str]

    @property
    def description(self) -> str:
        """The description's text, on one line."""
        text = self.arguments["description"].strip()
        heredoc = _HEREDOC.fullmatch(text)
        return " ".join(heredoc[2].split()) if heredoc else str(json.loads(text))

    def one_line(self, argument: str) -> str:
        """An argument's text on one line, with the commas that line ends stood for."""
        joined = ""
        for line in _COMMENT.sub("", self.arguments[argument]).splitlines():
            part = re.sub(r" +=", " =", line.strip())
            if not joined:
                joined = part
            elif part.startswith((")", "]")):
                joined = joined.removesuffix(",") + part
            elif joined.endswith(("(", "[")):
                joined += part
            elif joined.endswith(("{", ",")) or part.startswith("}"):
                joined += f" {part}"
            elif part:
                joined += f", {part}"
        return joined


def folders() -> list[Path]:
    """Every module and stack."""
    return sorted(
        path.parent
        for kind in ("modules", "stacks")
        for path in (TERRAFORM / kind).glob("*/versions.tf")
    )


def blocks(folder: Path) -> list[Block]:
    """The variables and outputs of a module, in the order of its files."""
    return [
        Block(kind, name, dict(_ARGUMENT.findall(body)))
        for path in (folder / "variables.tf", folder / "outputs.tf")
        if path.exists()
        for kind, name, body in _BLOCK.findall(path.read_text())
    ]


def stale() -> Iterator[Path]:
    """READMEs whose tables are not what the sources say."""
    for folder in folders():
        path = folder / "README.md"
        if path.read_text() != _filled(path, folder):
            yield path


def write() -> None:
    """Bring all tables up to date.

    Raises:
        KennelError: A README lacks the two markers.
    """
    for path in list(stale()):
        write_text_atomic(path, _filled(path, path.parent))


def _filled(path: Path, folder: Path) -> str:
    before, begin, rest = path.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise KennelError(f"{path}: has no lines {BEGIN} and {END}; add them where the tables go")
    return f"{before}{BEGIN}\n{_tables(blocks(folder))}{END}{after}"


def _tables(found: list[Block]) -> str:
    inputs = [
        (
            f"`{block.name}`",
            block.description,
            f"`{block.one_line('type')}`",
            f"`{block.one_line('default')}`" if "default" in block.arguments else "required",
        )
        for block in found
        if block.kind == "variable"
    ]
    outputs = [(f"`{block.name}`", block.description) for block in found if block.kind == "output"]
    return (
        f"## Inputs\n\n{_table(('Name', 'Description', 'Type', 'Default'), inputs)}\n"
        f"## Outputs\n\n{_table(('Name', 'Description'), outputs)}"
    )


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    if not rows:
        return "None.\n"
    lines = [head, tuple("---" for _ in head), *rows]
    return "".join(
        f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines
    )
