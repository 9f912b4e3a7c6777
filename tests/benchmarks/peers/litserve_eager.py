"""LitServe with batching: up to 8 photos, a batch waits 10 ms at most.

Source: LitServe's documentation, "Batching" and "Image classification".
"""

import sys
from pathlib import Path
from typing import Any

import litserve  # type: ignore[import-not-found]
import torch
from fastapi import UploadFile
from serving_eager import load  # type: ignore[import-not-found]
from torch import Tensor


class Classifier(litserve.LitAPI):  # type: ignore[misc]
    def setup(self, device: str) -> None:
        self.model = load(Path(sys.argv[1]))

    def decode_request(self, request: UploadFile) -> Tensor:
        pixels: Tensor = self.model.read(request.file.read())
        return pixels

    def batch(self, inputs: list[Tensor]) -> Tensor:
        return torch.stack(inputs)

    def predict(self, images: Tensor) -> Tensor:
        probabilities: Tensor = self.model.probabilities(images)
        return probabilities

    def encode_response(self, probabilities: Tensor) -> dict[str, Any]:
        answer: dict[str, Any] = self.model.answer(probabilities)
        return answer


def main() -> None:
    port, workers = int(sys.argv[2]), int(sys.argv[3])
    api = Classifier(max_batch_size=8, batch_timeout=0.01)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=workers)
    server.run(host="127.0.0.1", port=port, num_api_servers=1, generate_client_file=False)


if __name__ == "__main__":
    main()
