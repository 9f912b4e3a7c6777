"""Evaluation: figures against hand-made and independent ones, and the command on real models."""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from html import escape
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from inference.archive import describe_files, write_archive
from tests.trainer.shard_folders import make_shards
from trainer.backbones import load_model
from trainer.config import TrainConfig
from trainer.dataset import Split, load
from trainer.errors import KennelError, UsageError
from trainer.evaluate import evaluate
from trainer.evaluation_page import render
from trainer.files import write_json_atomic
from trainer.metrics import (
    Summary,
    negative_log_likelihood,
    reliability,
    share_interval,
    summarize,
    top_confusions,
)
from trainer.onnx_export import export
from trainer.predictions import accuracy, hits
from trainer.ranks import alone
from trainer.shards import MANIFEST
from trainer.train import Folders, train

ROOT = Path(__file__).parents[2]
HEAD = TrainConfig(backbone="efficientnet_lite0", image_size=32, batch_size=10, epochs=4)
KEYS = {
    *("split", "images", "top1", "top5", "ece", "nll", "top1_interval"),
    *("classes", "confusion", "top_confusions"),
}

# Four images of three classes: right, right, wrong (class 2 taken for 0), right.
PROBABILITIES = np.float32([[0.9, 0.1, 0.0], [0.2, 0.5, 0.3], [0.6, 0.3, 0.1], [0.25, 0.15, 0.6]])
TARGETS = np.array([0, 1, 2, 2])


@st.composite
def answers(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities [N, C], float32, and targets [N]."""
    images, classes = draw(st.integers(1, 40)), draw(st.integers(2, 8))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    sharpness = draw(st.sampled_from([0.0, 1.0, 8.0, 100.0]))
    logits = sharpness * random.normal(size=(images, classes))
    rows = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities = (rows / rows.sum(axis=1, keepdims=True)).astype(np.float32)
    return probabilities, random.integers(0, classes, images)


def test_figures_of_a_small_case_are_those_computed_by_hand():
    summary = summarize("test", PROBABILITIES, TARGETS, ["a", "b", "c"])
    assert set(summary) == KEYS
    assert (summary["split"], summary["images"]) == ("test", 4)
    assert (summary["top1"], summary["top5"]) == (0.75, 1.0)
    assert summary["confusion"] == [[1, 0, 0], [0, 1, 0], [1, 0, 1]]
    assert summary["nll"] == pytest.approx(-np.log([0.9, 0.5, 0.1, 0.6]).mean(), rel=1e-6)
    # Confidences 0.9, 0.5 and 0.6 (wrong), 0.6 lie in three bins; those of 0.6 are half right.
    assert summary["ece"] == pytest.approx((0.1 + 0.5 + 2 * abs(0.6 - 0.5)) / 4, rel=1e-6)
    assert summary["classes"] == [
        {"label": "a", "precision": 0.5, "recall": 1.0, "f1": pytest.approx(2 / 3), "support": 1},
        {"label": "b", "precision": 1.0, "recall": 1.0, "f1": 1.0, "support": 1},
        {"label": "c", "precision": 1.0, "recall": 0.5, "f1": pytest.approx(2 / 3), "support": 2},
    ]
    assert summary["top_confusions"] == [{"true": "c", "predicted": "a", "count": 1, "share": 0.5}]


@given(answers())
def test_the_calibration_error_is_that_of_a_plain_loop(case: tuple[np.ndarray, np.ndarray]):
    probabilities, targets = case
    expected = 0.0
    for number in range(15):
        inside = [
            (float(row.max()), row.argmax() == target)
            for row, target in zip(probabilities, targets, strict=True)
            if number / 15 < float(row.max()) <= (number + 1) / 15
        ]
        if inside:
            confidence, right = (sum(values) / len(inside) for values in zip(*inside, strict=True))
            expected += len(inside) / len(targets) * abs(confidence - right)
    found = reliability(probabilities, targets)
    assert found.error == pytest.approx(expected, abs=1e-9)
    assert found.counts.sum() == len(targets)


@given(answers())
def test_the_classes_of_a_summary_add_up(case: tuple[np.ndarray, np.ndarray]):
    probabilities, targets = case
    labels = [f"class {index}" for index in range(probabilities.shape[1])]
    summary = summarize("test", probabilities, targets, labels)
    confusion = np.array(summary["confusion"])
    assert confusion.sum() == summary["images"]
    assert np.trace(confusion) / len(targets) == pytest.approx(summary["top1"])
    assert [scores["support"] for scores in summary["classes"]] == confusion.sum(axis=1).tolist()
    assert summary["top1"] <= summary["top5"] <= 1
    low, high = summary["top1_interval"]
    assert 0 <= low <= summary["top1"] <= high <= 1
    json.dumps(summary, allow_nan=False)


def test_top_5_counts_the_five_most_probable_and_breaks_ties_by_index():
    probabilities = np.full((8, 8), 1 / 8, np.float32)
    assert hits(probabilities, np.arange(8), k=5).tolist() == [True] * 5 + [False] * 3
    assert accuracy(probabilities, np.arange(8)) == 1 / 8


def test_an_underflowed_probability_costs_much_but_not_infinitely_much():
    (loss,) = negative_log_likelihood(np.float32([[1.0, 0.0]]), np.array([1]))
    assert loss == pytest.approx(-np.log(np.finfo(np.float32).tiny))


def test_confusions_are_named_largest_first_and_never_the_diagonal():
    confusion = np.array([[9, 1, 0], [4, 5, 1], [0, 0, 3]])
    found = top_confusions(confusion, ["a", "b", "c"], limit=2)
    assert [(pair["true"], pair["predicted"], pair["count"]) for pair in found] == [
        ("b", "a", 4),
        ("a", "b", 1),
    ]
    assert found[0]["share"] == 0.4


def test_the_interval_is_close_to_the_normal_one_and_always_the_same():
    outcomes = np.arange(400) % 10 != 0
    low, high = share_interval(outcomes)
    width = 1.96 * (0.9 * 0.1 / 400) ** 0.5
    assert (low, high) == pytest.approx((0.9 - width, 0.9 + width), abs=0.005)
    assert share_interval(outcomes) == (low, high)


@pytest.mark.parametrize("images", [1, 220])
def test_a_spotless_result_still_has_an_interval_of_some_width(images: int):
    low, high = share_interval(np.ones(images, bool))
    assert low == pytest.approx(0.025 ** (1 / images))
    assert high == 1.0
    assert share_interval(np.zeros(images, bool)) == pytest.approx((0.0, 1 - low))


class Resources(HTMLParser):
    """Collects what a page would load, and its text."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.tags: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.addresses += [str(value) for name, value in attrs if name in ("src", "href", "srcset")]

    def handle_data(self, data: str) -> None:
        self.text += data


def read_page(html: str) -> Resources:
    page = Resources()
    page.feed(html)
    assert all(address.startswith("data:image/jpeg;base64,") for address in page.addresses)
    assert not re.search(r"url\(|@import|https?:", html)
    assert page.tags.isdisjoint({"script", "link", "iframe", "object", "embed"})
    return page


@pytest.fixture(scope="module")
def workspace(colours: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a trained `model/`, its float32 archive `model.tar.gz` and the `cache/`."""
    root = tmp_path_factory.mktemp("workspace")
    places = (root / name for name in ("model", "output", "checkpoints", "cache"))
    train(HEAD, Folders(colours, *places, features=None), alone())
    stage = root / "stage"
    stage.mkdir()
    for file in (root / "model").iterdir():
        (stage / file.name).write_bytes(file.read_bytes())
    network = export(load_model(root / "model"))
    (stage / "model.onnx").write_bytes(network.SerializeToString())
    manifest = {"format": 1, "backbone": HEAD.backbone, "precision": "fp32"}
    write_json_atomic(stage / "manifest.json", manifest | {"files": describe_files(stage)})
    write_archive(stage, root / "model.tar.gz")
    return root


def test_a_folder_and_its_archive_get_the_same_figures(
    workspace: Path, colours: Path, tmp_path: Path
):
    store = workspace / "cache"
    trained = evaluate(workspace / "model", colours, tmp_path / "trained", store)
    output = tmp_path / "served"
    arguments = ["--model", workspace / "model.tar.gz", "--data", colours, "--output", output]
    done = subprocess.run(
        [sys.executable, "-m", "trainer.evaluate", *map(str, arguments), "--cache-dir", str(store)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    served: Summary = json.loads((output / "evaluation.json").read_text())
    assert json.loads((tmp_path / "trained" / "evaluation.json").read_text()) == trained
    assert served["confusion"] == trained["confusion"]
    assert served["nll"] == pytest.approx(trained["nll"], abs=1e-5)
    assert set(served) == KEYS
    assert f"top1={served['top1']:.4f} " in done.stdout
    assert re.search(
        r"^test/ has 11 photos, so that the true top-1 may be anything from \d+ to "
        r"\d+ %: add some$",
        done.stderr,
        re.MULTILINE,
    )
    assert done.stdout.startswith("as served (fp32): split=test images=11 top1=")
    assert "top5=" not in done.stdout  # of three classes it says nothing
    assert done.stdout.endswith(f"page={output}/evaluation.html\n")

    html = (output / "evaluation.html").read_text()
    assert f"{colours.name} / test, as served" in html
    page = read_page(html)
    mistakes = round((1 - served["top1"]) * served["images"])
    assert len(page.addresses) == mistakes > 0
    assert "ONNX Runtime, fp32" in page.text


def test_a_mistake_whose_name_is_no_text_ends_nothing(
    workspace: Path, colours: Path, tmp_path: Path
):
    data = shutil.copytree(colours, tmp_path / "data")
    for place, photo in enumerate((data / "test/1.red").iterdir()):  # mistakes, for they are red
        photo.rename(data / "test/2.green" / os.fsdecode(b"r\xf6t\n%d.png" % place))
    evaluate(workspace / "model", data, tmp_path / "out", workspace / "cache")
    assert "test/2.green/r\ufffdt" in (tmp_path / "out/evaluation.html").read_text()


def test_only_the_split_asked_for_is_opened(workspace: Path, colours: Path, tmp_path: Path, opened):
    summary = evaluate(workspace / "model", colours, tmp_path, workspace / "cache", "valid")
    assert (summary["split"], summary["images"]) == ("valid", 13)
    assert not opened.below(colours / "test")


def test_a_model_of_other_classes_is_refused_by_name(
    workspace: Path, colours: Path, tmp_path: Path, save_photo
):
    data = tmp_path / "data"
    for split in ("train", "test"):
        for number, name in enumerate(("1.red", "2.green", "4.white", "5.black")):
            save_photo(data / split / name / "a.png", seed=number)
    with pytest.raises(UsageError, match=r"lacks 3\.blue and .* not know 4\.white, 5\.black"):
        evaluate(workspace / "model", data, tmp_path / "output", workspace / "cache")
    assert not (tmp_path / "output").exists()


def test_what_is_no_model_is_refused(workspace: Path, colours: Path, tmp_path: Path):
    store = workspace / "cache"
    with pytest.raises(UsageError, match="no such model folder or archive"):
        evaluate(tmp_path / "absent", colours, tmp_path, store)
    damaged = tmp_path / "model.tar.gz"
    damaged.write_bytes((workspace / "model.tar.gz").read_bytes()[:-1000])
    with pytest.raises(KennelError, match=re.escape(str(damaged))):
        evaluate(damaged, colours, tmp_path, store)


def test_results_that_cannot_be_written_are_reported(
    workspace: Path, colours: Path, tmp_path: Path
):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(KennelError, match="cannot write to"):
        evaluate(workspace / "model", colours, tmp_path / "file", workspace / "cache")


@settings(max_examples=20)
@given(
    label=st.text(st.characters(exclude_categories=["C"]), min_size=1), classes=st.integers(2, 50)
)
def test_any_label_and_number_of_classes_make_a_sound_page(
    tmp_path_factory: pytest.TempPathFactory, label: str, classes: int
):
    root = tmp_path_factory.mktemp("page")
    for number in range(2):
        for split in ("train", "test"):
            folder = root / split / f"{number}.class"
            folder.mkdir(parents=True)
            Image.new("RGB", (40, 40), (90 * number, 0, 0)).save(folder / "<photo>&.png")
    split = load(root, root / "cache", 36, "bilinear", ("test",)).splits["test"]
    labels = [f"<b>{label}</b>", *(f"class {index}" for index in range(1, classes))]
    random = np.random.default_rng(0).random((2, classes)).astype(np.float32)
    probabilities = random / random.sum(axis=1, keepdims=True)
    summary = summarize("test", probabilities, split.targets, labels)
    page = read_page(render("a & b", "<i>", summary, split, probabilities, 32, labels))
    assert f"<b>{label.replace('_', ' ')}</b>" in page.text


def test_a_spotless_result_makes_a_page_without_mistakes(colours: Path, tmp_path: Path):
    split = load(colours, tmp_path, 36, "bilinear", ("test",)).splits["test"]
    probabilities = np.eye(3, dtype=np.float32)[split.targets]
    labels = ["red", "green", "blue"]
    summary = summarize("test", probabilities, split.targets, labels)
    page = read_page(render("model", "data", summary, split, probabilities, 32, labels))
    assert page.addresses == []
    assert page.text.count("every image was classified rightly") == 2


@pytest.mark.parametrize(
    ("wrong", "told", "of_them"),
    [
        (1, "3 classes, 1 mistake<", "The only wrong prediction."),
        (2, "3 classes, 2 mistakes<", "The 2 wrong predictions that the model was surest of."),
        (30, "3 classes, 30 mistakes<", "The 24 wrong predictions that the model was surest of, "),
    ],
)
def test_mistakes_are_counted_in_words_that_fit(wrong: int, told: str, of_them: str):
    targets = np.zeros(31, int)
    predicted = np.arange(31) < wrong
    probabilities = np.eye(3, dtype=np.float32)[predicted.astype(int)]
    summary = summarize("test", probabilities, targets, ["a", "b", "c"])
    photo = np.zeros((40, 40, 3), np.uint8)
    split = Split([photo] * 31, targets, ("a.png",) * 31, ("",) * 31)  # type: ignore[arg-type]
    html = render("model", "data", summary, split, probabilities, 32, ["a", "b", "c"])
    assert told in html
    assert of_them in html
    assert "bars on the dashed line: confidence equals accuracy." in html


def test_the_page_of_a_job_names_the_data_set_and_leads_nowhere(
    workspace: Path, colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    channel = tmp_path / "training"
    manifest = replace(make_shards(colours, channel), source={"source": {"folder": "/my/pets"}})
    (channel / MANIFEST).write_text(manifest.to_text())
    monkeypatch.delenv("KENNEL_OUT", raising=False)
    evaluate(workspace / "model", channel, tmp_path / "job/out", workspace / "cache")
    page = (tmp_path / "job/out/evaluation.html").read_text()
    assert '<p class="muted">pets / test, as trained' in page
    assert "href" not in page
    monkeypatch.setenv("KENNEL_OUT", str(tmp_path))
    evaluate(workspace / "model", colours, tmp_path / "run/evaluation", workspace / "cache")
    page = (tmp_path / "run/evaluation/evaluation.html").read_text()
    assert '<a href="../../index.html">all pages</a>' in page


LONG = "Chesapeake_Bay_retriever_of_the_longest_name_that_a_folder_has"


@pytest.mark.parametrize("classes", [2, 3, 10, 40, 133, 1000])
def test_names_are_whole_and_the_page_stays_light_for_any_number_of_classes(classes: int):
    labels = [LONG, "<script>x</script>", "כלב_רועה", "🐶"][:classes]
    labels += [f"class {number}" for number in range(len(labels), classes)]
    random = np.random.default_rng(0)
    targets = random.integers(0, classes, 3 * classes)
    probabilities = random.random((3 * classes, classes)).astype(np.float32)
    probabilities[np.arange(len(targets)), targets] += 0.9
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    summary = summarize("test", probabilities, targets, labels)
    photo = np.zeros((40, 40, 3), np.uint8)
    split = Split(
        [photo] * len(targets),  # type: ignore[arg-type]
        targets,
        ("a.png",) * len(targets),
        ("",) * len(targets),
    )
    html = render("model", "data", summary, split, probabilities, 32, labels)
    page = read_page(html)
    assert len(html) < 1_000_000
    assert not re.search(r'(width|height)="-', html)
    assert ("Top-5" in page.text) == (classes > 5)
    matrix = re.search(r'<table class="matrix".*?</table>', html, re.DOTALL)
    assert bool(matrix) == (classes <= 40)
    if matrix:  # as the title of its row and of its column
        for label in labels:
            shown = escape(label.replace("_", " "))
            assert matrix[0].count(f"<bdi>{shown}</bdi>") == 2
