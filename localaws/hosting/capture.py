"""Data capture: requests and answers of an endpoint, as JSON lines in S3.

Source: "Capture data" and "View captured data" of the SageMaker developer guide.
"""

import json
import random
import threading
import uuid
from base64 import b64encode
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Exchange:
    """A request and its answer."""

    body: bytes
    content_type: str
    answer: bytes
    answer_type: str
    inference_id: str
    custom_attributes: str


class Capture:
    """Keeps sampled requests and answers until they are written."""

    def __init__(
        self, config: Mapping[str, Any], percent: int, endpoint: str, bucket: Callable[[], Any]
    ) -> None:
        """Keep nothing yet.

        Args:
            config: A `DataCaptureConfig`.
            percent: How many requests of a hundred are captured.
            endpoint: The endpoint's name.
            bucket: Gives the client of S3 that writes.
        """
        self._config = config
        self._share = percent / 100
        self._endpoint = endpoint
        self._s3 = bucket
        self._lock = threading.Lock()
        self._lines: dict[str, list[str]] = defaultdict(list)

    def add(self, variant: str, exchange: Exchange) -> None:
        """Keep a request and its answer, if chance wants it."""
        if random.random() < self._share:
            line = json.dumps(self._record(exchange))
            with self._lock:
                self._lines[variant].append(line)

    def write(self) -> None:
        """Write what is kept, one object for each variant.

        Raises:
            Exception: Whatever the client raises; what was to be written is dropped.
        """
        with self._lock:
            kept, self._lines = self._lines, defaultdict(list)
        destination = urlsplit(self._config["DestinationS3Uri"])
        prefix = "".join(f"{part}/" for part in destination.path.split("/") if part)
        key = self._config.get("KmsKeyId")
        encryption = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": key} if key else {}
        for variant, lines in kept.items():
            now = datetime.now(UTC)
            name = f"{now:%Y/%m/%d/%H/%M-%S}-{now.microsecond // 1000:03d}-{uuid.uuid4()}.jsonl"
            self._s3().put_object(
                Bucket=destination.netloc,
                Key=f"{prefix}{self._endpoint}/{variant}/{name}",
                Body="".join(f"{line}\n" for line in lines).encode(),
                **encryption,
            )

    def _record(self, exchange: Exchange) -> dict[str, Any]:
        modes = {option["CaptureMode"] for option in self._config["CaptureOptions"]}
        both = bool({"InputAndOutput"} & modes)
        data = {}
        if both or "Input" in modes:
            data["endpointInput"] = self._data("INPUT", exchange.content_type, exchange.body)
        if both or "Output" in modes:
            data["endpointOutput"] = self._data("OUTPUT", exchange.answer_type, exchange.answer)
        event: dict[str, Any] = {
            "eventId": str(uuid.uuid4()),
            "inferenceTime": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
        }
        if exchange.inference_id:
            event["inferenceId"] = exchange.inference_id
        if exchange.custom_attributes:
            event["customAttributes"] = [exchange.custom_attributes]
        return {"captureData": data, "eventMetadata": event, "eventVersion": "0"}

    def _data(self, mode: str, content_type: str, body: bytes) -> dict[str, str]:
        text, encoding = self._encoded(content_type, body)
        return {
            "observedContentType": content_type,
            "mode": mode,
            "data": text,
            "encoding": encoding,
        }

    def _encoded(self, content_type: str, body: bytes) -> tuple[str, str]:
        types = self._config.get("CaptureContentTypeHeader") or {}
        media_type = content_type.partition(";")[0].strip().lower()
        for encoding in ("CSV", "JSON"):
            if media_type in types.get(f"{encoding.capitalize()}ContentTypes", []):
                try:
                    return body.decode(), encoding
                except UnicodeDecodeError:
                    break
        return b64encode(body).decode(), "BASE64"
