import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from inference.archive import ArchiveError
from inference.handler import input_fn, model_fn, output_fn, predict_fn

if TYPE_CHECKING:
    from conftest import Pictures


@pytest.mark.parametrize("path", ["model", "model.tar.gz"])
@pytest.mark.parametrize(("colour", "label"), [("red", "Red"), ("blue", "Blue")])
def test_the_four_functions_answer_as_the_endpoint(
    archive: Path, picture: "Pictures", path: str, colour: str, label: str
) -> None:
    model = model_fn(str(archive.parent / path))
    prediction = predict_fn(input_fn(picture(colour), "image/jpeg"), model)
    body, content_type = output_fn(prediction, "application/json")
    answer = json.loads(body)
    assert content_type == "application/json"
    assert answer["predictions"][0]["label"] == label
    assert len(answer["predictions"]) == 3
    assert answer["model"] == {"name": model.model.name, "digest": model.model.digest}


def test_wrong_input_is_a_value_error(archive: Path) -> None:
    with pytest.raises(ValueError, match="Content-Type"):
        input_fn(b"{}", "application/json")
    with pytest.raises(ValueError, match="not a JPEG, PNG or WebP"):
        predict_fn(b"no image", model_fn(str(archive)))


@pytest.mark.parametrize("accept", ["*/*", "application/*", "text/html, Application/JSON;q=0.5"])
def test_json_is_what_the_client_accepts(accept: str) -> None:
    assert output_fn({"predictions": []}, accept) == ('{"predictions": []}', "application/json")


@pytest.mark.parametrize("accept", ["text/csv", "application/x-npy", ""])
def test_a_client_that_accepts_no_json_is_told(accept: str) -> None:
    with pytest.raises(ValueError, match="Accept"):
        output_fn({}, accept)


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArchiveError):
        model_fn(str(tmp_path))
