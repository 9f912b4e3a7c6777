"""The page that leads to all others, over what runs of any name and state have left."""

import json
import os
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote_to_bytes

import pytest

from trainer import index
from trainer.errors import KennelError
from trainer.pages import WAY_BACK

FIGURES = {"split": "test", "images": 1269, "top1": 0.978, "top1_interval": [0.955, 0.993]}


def make_run(output: Path, name: str, figures: object = FIGURES) -> Path:
    run = output / name
    for place, content in {
        "tune/search.html": "",
        "tune-job/search.html": "",
        "training/learning_curves.svg": "",
        "evaluation/evaluation.html": "",
        "evaluation/evaluation.json": json.dumps(figures),
        "served/evaluation.html": "",
        "served/evaluation.json": json.dumps(figures | {"top1": 0.5} if figures else None),
        "package.json": json.dumps({"precision": "int8", "git_commit": "0123456789abcdef"}),
    }.items():
        (run / place).parent.mkdir(parents=True, exist_ok=True)
        (run / place).write_text(content)
    return run


class Page(HTMLParser):
    def __init__(self, html: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.tags: set[str] = set()
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.addresses += [str(value) for name, value in attrs if name in ("href", "src")]

    def handle_data(self, data: str) -> None:
        self.text += data


def read(output: Path) -> Page:
    page = Page(index.write(output).read_text())
    for address in page.addresses:
        assert (os.fsencode(output) + b"/" + unquote_to_bytes(address)) in {
            os.fsencode(path) for path in output.rglob("*")
        }
    return page


def test_a_run_is_shown_with_its_pages_and_its_accuracy(tmp_path: Path):
    make_run(tmp_path, "my-pets-efficientnet_lite0-none")
    report = tmp_path / "data/my-pets/dataset_report.json"
    report.parent.mkdir(parents=True)
    report.write_text("{}")
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo/report.html").write_text("")
    page = read(tmp_path)
    assert len(page.addresses) == 8
    assert "data/my-pets/dataset_report.json" in page.addresses
    text = " ".join(page.text.split())
    assert "Top-1 as trained97.8 % 95.5 % to 99.3 %, 1,269 test photos" in text
    assert "Top-1 as served (int8)50.0 %" in text
    assert "commit 0123456789ab" in text


@pytest.mark.parametrize(
    "name",
    ["<script>alert(1)<script>", "a b#c?d%20&e", "ключ-🐶", "'\"", os.fsdecode(b"caf\xe9")],
)
def test_any_name_makes_sound_links(tmp_path: Path, name: str):
    try:
        make_run(tmp_path, f"{name}-resnet18-all")
    except OSError:
        pytest.skip("this file system takes no such name")
    page = read(tmp_path)
    assert len(page.addresses) == 6
    assert "script" not in page.tags
    assert os.fsencode(name).decode(errors="replace") in page.text


@pytest.mark.parametrize("figures", [None, [], {}, FIGURES | {"top1_interval": None}])
def test_a_damaged_figure_leaves_the_links(tmp_path: Path, figures: object):
    run = make_run(tmp_path, "digits-resnet18-all")
    for folder in ("evaluation", "served"):
        (run / folder / "evaluation.json").write_text(json.dumps(figures))
    (run / "package.json").write_text("{")
    page = read(tmp_path)
    assert page.text.count("not evaluated here: make evaluate") == 2
    assert "not measured" not in page.text
    assert len(page.addresses) == 6


def test_the_newest_run_is_first_and_other_folders_are_none(tmp_path: Path):
    for age, name in enumerate(("newest", "middle", "oldest")):
        run = make_run(tmp_path, f"{name}-resnet18-all")
        for path in run.rglob("*"):
            os.utime(path, (1e9 - age, 1e9 - age))
    (tmp_path / "cache").mkdir()
    page = index.write(tmp_path).read_text()
    assert re.findall(r"<bdi>(\w+)-", page) == ["newest", "middle", "oldest"]


def test_no_run_is_said_and_a_missing_folder_is_one_line(tmp_path: Path):
    assert "No run yet" in index.write(tmp_path).read_text()
    with pytest.raises(KennelError, match="cannot write"):
        index.write(tmp_path / "absent")


def test_where_models_of_jobs_are_is_said(tmp_path: Path):
    text = " ".join(read(tmp_path).text.split())
    assert "0 runs on this machine" in text
    assert "A model that a job trained lies in the bucket: make jobs lists it" in text


def test_one_of_a_kind_is_told_in_the_singular(tmp_path: Path):
    make_run(tmp_path, "pets-resnet18-all", FIGURES | {"images": 1})
    text = " ".join(read(tmp_path).text.split())
    assert "1 run on this machine" in text
    assert text.count(", 1 test photo ") + text.count(", 1 test photoTop-1") == 2


@pytest.mark.parametrize(
    ("folder", "leads_back"),
    [
        ("out/pets-resnet18-all/tune", True),
        ("out/pets-resnet18-all", False),
        ("out/localaws/jobs/it/output", False),
        ("elsewhere/pets/tune", False),
    ],
)
def test_a_page_leads_back_only_to_an_index_that_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str, leads_back: bool
):
    monkeypatch.chdir(tmp_path)
    page = f"<main>{WAY_BACK}</main>"
    monkeypatch.delenv("KENNEL_OUT", raising=False)
    assert index.with_way_back(page, Path(folder)) == page
    monkeypatch.setenv("KENNEL_OUT", "out")
    told = index.with_way_back(page, tmp_path / folder)
    assert ('<a href="../../index.html">all pages</a>' in told) == leads_back
    assert told == page or leads_back
    assert index.with_way_back(page, Path(folder), tmp_path / "other") == page
