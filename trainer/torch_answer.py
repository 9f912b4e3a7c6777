"""A trained model as a function from pixels to probabilities, computed by PyTorch."""

import numpy as np
import torch

from inference.predictor import Probabilities
from inference.preprocess import Pixels
from trainer.backbones import LoadedModel, normalize
from trainer.predictions import Answer


def with_torch(model: LoadedModel) -> Answer:
    """Give the function from pixels to probabilities, computed in float32."""
    classifier = model.classifier.to(memory_format=torch.channels_last)

    @torch.inference_mode()
    def answer(pixels: Pixels) -> Probabilities:
        logits = classifier(normalize(torch.from_numpy(pixels), model.preprocess))
        return np.asarray(logits.softmax(dim=1).numpy())

    return answer
