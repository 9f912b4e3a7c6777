"""What the serving peers share: the same weights as a torch module, torchvision's transform.

Runs in a peer's environment, with nothing of this project in it. Source: torchvision's "Models and
pre-trained weights", on inference.
"""

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision import transforms
from torchvision.models import resnet50


@dataclass(frozen=True)
class Eager:
    """A network in float32, run operator by operator."""

    network: nn.Module
    transform: transforms.Compose
    labels: list[str]

    def read(self, body: bytes) -> Tensor:
        """Give the network's input [3, S, S] of a photo's file."""
        pixels: Tensor = self.transform(Image.open(io.BytesIO(body)).convert("RGB"))
        return pixels

    @torch.inference_mode()
    def probabilities(self, images: Tensor) -> Tensor:
        """Give the probabilities [N, classes] of images [N, 3, S, S]."""
        answer: Tensor = self.network(images).softmax(dim=1)
        return answer

    def answer(self, probabilities: Tensor) -> dict[str, Any]:
        """Give one image's five best classes, best first."""
        best = probabilities.topk(min(5, len(self.labels)))
        found = zip(best.values.tolist(), best.indices.tolist(), strict=True)
        return {"predictions": [{"label": self.labels[i], "probability": p} for p, i in found]}

    def classify(self, body: bytes) -> dict[str, Any]:
        """Answer one photo's file."""
        return self.answer(self.probabilities(self.read(body).unsqueeze(0))[0])


def load(folder: Path) -> Eager:
    """Load the network of an unpacked model."""
    labels = json.loads((folder / "labels.json").read_text())
    preprocess = json.loads((folder / "preprocess.json").read_text())
    name = json.loads((folder / "config.json").read_text())["backbone"]
    state = load_file(folder / "weights.safetensors")
    if name == "resnet50":
        network: nn.Module = resnet50(num_classes=len(labels))
        prefixes = {"backbone.": "", "head.": "fc."}
    else:
        from efficientnet_lite_pytorch import EfficientNet

        network = EfficientNet.from_name(name.replace("_", "-"), num_classes=len(labels))
        prefixes = {"backbone.network.": "", "head.": "_fc."}
    for old, new in prefixes.items():
        state = {new + k.removeprefix(old) if k.startswith(old) else k: v for k, v in state.items()}
    network.load_state_dict(state)
    return Eager(network.eval(), _transform(preprocess), labels)


def _transform(preprocess: dict[str, Any]) -> transforms.Compose:
    interpolation = transforms.InterpolationMode(preprocess["interpolation"])
    return transforms.Compose(
        [
            transforms.Resize(preprocess["resize"], interpolation),
            transforms.CenterCrop(preprocess["crop"]),
            transforms.ToTensor(),
            transforms.Normalize(preprocess["mean"], preprocess["std"]),
        ]
    )
