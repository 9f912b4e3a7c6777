import json
from typing import Any

import pytest

from localaws.hosting.capture import Capture, Exchange

CONFIG: dict[str, Any] = {
    "DestinationS3Uri": "s3://kennel/capture/",
    "CaptureOptions": [{"CaptureMode": "InputAndOutput"}],
    "CaptureContentTypeHeader": {
        "CsvContentTypes": ["text/csv"],
        "JsonContentTypes": ["application/json"],
    },
}


class S3:
    """Keeps what is put, or fails."""

    def __init__(self, fails: bool = False) -> None:
        self.put: list[dict[str, Any]] = []
        self._fails = fails

    def put_object(self, **given: Any) -> None:
        if self._fails:
            raise ConnectionError
        self.put.append(given)


def exchange(body: bytes = b"1,2", content_type: str = "text/csv", **more: str) -> Exchange:
    given = {"inference_id": "", "custom_attributes": "", **more}
    return Exchange(body, content_type, b"{}", "application/json; charset=utf-8", **given)


def lines(s3: S3) -> list[dict[str, Any]]:
    return [json.loads(line) for put in s3.put for line in put["Body"].splitlines()]


def test_a_batch_is_one_object_for_each_variant() -> None:
    s3 = S3()
    capture = Capture({**CONFIG, "KmsKeyId": "key"}, 100, "kennel", lambda: s3)
    for variant in ("main", "main", "other"):
        capture.add(variant, exchange())
    capture.write()
    assert [put["Key"].split("/")[:3] for put in s3.put] == [
        ["capture", "kennel", "main"],
        ["capture", "kennel", "other"],
    ]
    assert [len(put["Body"].splitlines()) for put in s3.put] == [2, 1]
    assert {(put["Bucket"], put["SSEKMSKeyId"]) for put in s3.put} == {("kennel", "key")}
    capture.write()
    assert len(s3.put) == 2


@pytest.mark.parametrize(
    ("body", "content_type", "expected"),
    [
        (b"1,2", "text/csv", ("1,2", "CSV")),
        (b"{}", "Application/JSON; charset=utf-8", ("{}", "JSON")),
        (b"\xff", "text/csv", ("/w==", "BASE64")),
        (b"1", "text/plain", ("MQ==", "BASE64")),
    ],
)
def test_how_a_body_is_written(body: bytes, content_type: str, expected: tuple[str, str]) -> None:
    s3 = S3()
    capture = Capture(CONFIG, 100, "kennel", lambda: s3)
    capture.add("main", exchange(body, content_type, inference_id="i", custom_attributes="c"))
    capture.write()
    (line,) = lines(s3)
    found = line["captureData"]["endpointInput"]
    assert (found["data"], found["encoding"]) == expected
    assert line["captureData"]["endpointOutput"]["encoding"] == "JSON"
    assert line["eventMetadata"].items() >= {"inferenceId": "i", "customAttributes": ["c"]}.items()


def test_only_what_is_wanted_is_kept() -> None:
    s3 = S3()
    for percent, mode in ((0, "Input"), (100, "Input"), (100, "Output")):
        config = {**CONFIG, "CaptureOptions": [{"CaptureMode": mode}]}
        capture = Capture(config, percent, "kennel", lambda: s3)
        capture.add("main", exchange())
        capture.write()
    assert [list(line["captureData"]) for line in lines(s3)] == [
        ["endpointInput"],
        ["endpointOutput"],
    ]


def test_what_cannot_be_written_is_not_kept_for_ever() -> None:
    s3 = S3(fails=True)
    capture = Capture(CONFIG, 100, "kennel", lambda: s3)
    capture.add("main", exchange())
    with pytest.raises(ConnectionError):
        capture.write()
    capture.write()
