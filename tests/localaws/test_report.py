"""The demonstration's page."""

import base64
import io
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from localaws.report import SHOWN_PIXELS, Answered, ScalingTrace, clock, render, ticks

STEP = {"name": "make the bucket", "started": 0.0, "seconds": 1.0, "state": "done", "log": "a.log"}
REPORT: dict[str, Any] = {
    "dataset": {"name": "dogs", "classes": 7, "train": 1, "valid": 1, "test": 1},
    "made": {"date": "2026-11-30 07:00", "commit": "3cad71c"},
    "tuning": {"trials": 2, "best": {"batch_size": 128, "dropout": 0.1077}, "seconds": 1.0},
    "training": {"epochs": 1, "seconds": 1.0, "images_per_second": 10.0},
    "evaluation": {"top1": 1.0, "top5": 0.987, "ece": 0.0},
    "package": {"precision": "int8", "bytes": 1, "top1_served": 1.0},
    "endpoint": {"p50_ms": 1.0, "p99_ms": 2.0, "requests_per_second": 3.0},
    "lambda": {
        "statusCode": 200,
        "label": "dog",
        "expected": "dog",
        "cold_start_ms": 300.0,
        "zip_bytes": 1,
    },
    "terraform": {"resources": 70, "endpoint_replaced": False, "left_after_destroy": []},
    "release": {"requests": 10, "failed": 0},
    "rollback": {
        "endpoint_stayed": True,
        "reason": "the capacity is gone",
        "verify_failed": ["configuration"],
    },
    "verify": {"passed": True, "checks": 7},
    "cost": {
        "usd": 0.0612,
        "lines": [{"name": "search job", "usd": 0.0034}],
        "usd_a_month": {"foundation": 8.72, "serving": 101.0},
    },
    "failure": None,
    "faults": [],
    "timeline": [STEP],
    "seconds_total": 10.0,
}
ALWAYS = ("dataset", "made", "failure", "faults", "timeline", "seconds_total")


class Page(HTMLParser):
    """What a page says, and what it points to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.source = text
        self.said = ""
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self._is_hidden = False
        self.feed(text)
        self.said = " ".join(self.said.split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._is_hidden = tag == "style"

    def handle_endtag(self, tag: str) -> None:
        self._is_hidden = False

    def handle_data(self, data: str) -> None:
        if not self._is_hidden:
            self.said += data


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "7.dog" / "photo"
    path.parent.mkdir()
    Image.new("RGB", (2000, 1000)).save(path, "JPEG")
    return path


def page(
    report: dict[str, Any],
    answers: list[Answered] | None = None,
    lone_ms: tuple[float, ...] = (1.0, 2.0, 3.0),
    trace: ScalingTrace | None = None,
    pages: dict[str, Path] | None = None,
) -> Page:
    return Page(render(report, answers or [], lone_ms, trace, 20, pages or {}))


def test_it_tells_all_and_needs_nothing_from_outside(tmp_path: Path, photo: Path) -> None:
    (tmp_path / "curves.svg").write_text("<?xml?><svg><title>Losses</title></svg>")
    (tmp_path / "evaluation.html").write_text("<p>Confusion matrix</p>")
    made = page(
        REPORT,
        [Answered(photo, "dog", "cat", 0.5)],
        trace=ScalingTrace([0.0, 1.0], [1, 3], [0, 75]),
        pages={"curves": tmp_path / "curves.svg", "evaluation": tmp_path / "evaluation.html"},
    )
    for told in (
        "is dog",
        "the capacity is gone",
        "make the bucket",
        "shaded: 75 clients",
        "2026-11-30 07:00, commit 3cad71c",
        "batch size 128",
        "dropout 0.1077",
        "0.06 USD",
        "search job 0.003 USD",
        "9 USD a month (foundation) and 101 USD a month (serving)",
        "top-5 98.7 %",
        "Losses",
    ):
        assert told in re.sub(r"(?<=[a-z])(?=\d)", " ", made.said) or told in made.said, told
    assert "Confusion matrix" in made.source
    for tag, attributes in made.tags:
        assert tag not in ("link", "script")
        for name in ("src", "href", "xlink:href"):
            assert (attributes.get(name) or "data:").startswith("data:")
    assert "url(" not in made.source
    assert "@import" not in made.source


def test_photos_are_no_larger_than_they_are_shown(photo: Path) -> None:
    kind, _, content = Answered(photo, "dog", "dog", 1.0).picture.partition(",")
    assert kind == "data:image/webp;base64"
    with Image.open(io.BytesIO(base64.b64decode(content))) as shown:
        assert shown.size == (SHOWN_PIXELS, SHOWN_PIXELS // 2)


@pytest.mark.parametrize("missing", [name for name in REPORT if name not in ALWAYS])
def test_what_was_not_reached_is_left_out(missing: str) -> None:
    """A demonstration finds the members of its report in their order, and may end at any."""
    members = [name for name in REPORT if name not in ALWAYS]
    reached = members[: members.index(missing)]
    page({name: REPORT[name] for name in (*ALWAYS, *reached)}, lone_ms=())


def test_what_is_found_one_by_one_is_told_as_far_as_it_goes() -> None:
    report = {**{name: REPORT[name] for name in ALWAYS}, "terraform": {"resources": 70}}
    assert "70 resources." in page({**report, "dataset": {"name": "dogs"}}).said


def test_bad_weather_is_told_with_what_it_did() -> None:
    told = {"weather": "storm", "seed": 3, "happened": {"lost": 5, "throttled": 17}}
    steps = [STEP, {**STEP, "repeats": 2}, {**STEP, "repeats": 1}]
    made = page({**REPORT, "weather": told, "timeline": steps})
    said = "Weather: storm, seed 3; lost 5; throttled 17; commands given again 3"
    assert said in " ".join(made.said.split())
    fair = page({**REPORT, "weather": {"weather": "fair", "seed": 0, "happened": {}}})
    assert "Weather" not in fair.said


def test_a_failure_stands_at_the_top_with_its_logs() -> None:
    failure = {"step": "train", "error": "make train: <boom>", "logs": ["logs/train.log"]}
    steps = [STEP, {**STEP, "name": "train", "state": "failed"}]
    made = page({**REPORT, "failure": failure, "timeline": steps})
    assert "It ended early: train" in made.said
    assert "make train: <boom>" in made.said
    assert "logs/train.log" in made.said
    assert "train (failed)" in made.said
    assert "It ended early" not in page(REPORT).said


def test_faults_are_told() -> None:
    assert (
        "the broken model is in service"
        in page({**REPORT, "faults": ["the broken model is in service"]}).said
    )


@pytest.mark.parametrize(("classes", "is_told"), [(3, False), (5, False), (6, True)])
def test_top_five_of_five_classes_says_nothing(classes: int, is_told: bool) -> None:
    made = page({**REPORT, "dataset": {**REPORT["dataset"], "classes": classes}})
    assert ("top-5" in made.said) == is_told


def test_names_are_text_whatever_they_hold(photo: Path) -> None:
    long = "West_Highland_White_Terrier_and_all_of_its_many_cousins"
    names = ["<b>&'\"</b>", "كلب_كبير", long, "a" * 200]
    for name in names:
        answer = {**REPORT["lambda"], "label": name, "expected": name}
        made = page(
            {**REPORT, "lambda": answer, "dataset": {**REPORT["dataset"], "name": name}},
            [Answered(photo, name, name, 0.5), Answered(photo, name, "cat", 0.5)],
        )
        assert made.said.count(name.replace("_", " ")) >= 3
        # It is cut where it is too long, and whole on pointing at it.
        label = next(a for tag, a in made.tags if tag == "b" and "name" in (a.get("class") or ""))
        assert label["title"] == name.replace("_", " ")
        assert ("long" in (label["class"] or "")) == (len(name) > 14)
        assert label["dir"] == "auto"


def test_the_timeline_has_an_axis_and_shows_what_overlaps() -> None:
    steps = [
        {**STEP, "name": "first", "started": 0.0, "seconds": 100.0},
        {**STEP, "name": "second", "started": 50.0, "seconds": 150.0},
    ]
    made = page({**REPORT, "timeline": steps, "seconds_total": 200.0})
    assert "0:00" in made.said
    assert "3:00" in made.said
    assert "left: 0.00%; width: 50.00%" in made.source
    assert "left: 25.00%; width: 75.00%" in made.source


def test_an_axis_has_round_times() -> None:
    assert ticks(10) == [0, 2, 4, 6, 8, 10]
    assert ticks(423) == [0, 60, 120, 180, 240, 300, 360, 420]
    assert len(ticks(10_000)) <= 9
    assert ticks(0.3) == [0]
    assert clock(425.9) == "7:05"


def test_the_trace_is_a_step_line_to_scale() -> None:
    trace = ScalingTrace()
    for seconds, instances in ((0, 1), (5, 3), (10, 1)):
        trace.add(seconds, instances, 0)
    assert trace.peak == 3
    assert trace.path(trace.instances, 100, 30) == "M0.0,20.0H50.0V0.0H100.0V20.0"
    assert trace.path(trace.clients, 100, 30) == "M0.0,30.0H50.0V30.0H100.0V30.0"
