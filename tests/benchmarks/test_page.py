import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.benchmarks import harness, page
from tests.benchmarks.harness import absolute, compare, record

LOAD = {
    "closed": [
        {"clients": clients, "per_second": 50.0, "p50_ms": 5.0, "p99_ms": 9.0} for clients in (1, 8)
    ],
    "open": [{"rate": 30.0, "per_second": 30.0, "p50_ms": 5.0, "p99_ms": 9.0}],
}


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of results: two benchmarks, and a table that is none."""
    monkeypatch.setattr(harness, "RESULTS", tmp_path)
    monkeypatch.setattr(page, "RESULTS", tmp_path)
    throughput = compare(
        "throughput", "1/s", [500, 520], [100, 110], "TorchServe <b>", ">= 6", "more", "8 & more"
    )
    record(
        "serving",
        "python -m tests.benchmarks.serving --quick",
        [throughput, absolute("p99", "ms", [1234.5], "< 2000")],
        quick=True,
        curves={"ResNet-50": {"Kennel": LOAD, "TorchServe": LOAD}},
    )
    record(
        "growth",
        "python -m tests.benchmarks.growth",
        [],
        sizes=[{"photos": 1080, "seconds": 10.0, "peak_mib": 900.0}],
        server=[[0.0, 148.0], [60.0, 148.5]],
    )
    (tmp_path / "upload.json").write_text(json.dumps({"runs": []}))
    return tmp_path


def test_the_table_says_what_was_measured_and_whether_it_holds(results: Path) -> None:
    assert page.markdown(page.read(results)).splitlines()[2:] == [
        "| throughput, 1/s | 510 (500 to 520) | 105 (100 to 110), TorchServe <b> | 4.86 | >= 6 "
        "| **missed** |",
        "| p99, ms | 1,234 |  |  | < 2000 | holds |",
    ]


def test_the_page_stands_alone_and_says_in_words_what_colours_say(
    results: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["page"])
    page.main()
    assert capsys.readouterr().out.strip() == str(results / "index.html")
    text = (results / "index.html").read_text()
    assert "1 of 2 targets hold" in text
    assert "4.86 &times; missed" in text
    assert "TorchServe &lt;b&gt;" in text
    assert "8 &amp; more" in text
    assert text.count("A quick run") == 1
    for name in ("python -m tests.benchmarks.growth", "Under load: ResNet-50", "Memory of the"):
        assert name in text
    assert not any(load in text for load in ("<script", "<link", "<img", "@import", 'src="'))


def test_bars_of_a_pair_have_one_scale(results: Path) -> None:
    _, serving = page.read(results)
    ours, peer = page.bars(serving.entries[0])
    assert (ours.label, ours.most, peer.label) == ("Kennel", 1.0, "TorchServe <b>")
    assert peer.median == pytest.approx(105 / 520)
    ours, wanted = page.bars(serving.entries[1])
    assert (wanted.label, wanted.figure.median) == ("wanted", 2000)
    assert ours.median == pytest.approx(1234.5 / 2000)


def test_pictures_have_all_that_was_measured(results: Path) -> None:
    growth, serving = page.read(results)
    assert list(growth.pictures) == [
        "Training by the number of photos",
        "Memory of the server under load",
    ]
    (curves,) = serving.pictures.values()
    words = "".join(ElementTree.fromstring(curves).itertext())
    for word in ("Kennel", "TorchServe", "clients, closed loop", "requests/s, Poisson", "p99, ms"):
        assert word in words


def test_without_results_it_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page, "RESULTS", tmp_path)
    monkeypatch.setattr("sys.argv", ["page"])
    with pytest.raises(SystemExit, match=r"^error: .*run make bench"):
        page.main()
