"""torchvision's reference style, with a search around it.

After `references/classification/` of pytorch/vision: transforms v2 on PIL images, reading in
worker processes, SGD with momentum and weight decay, fp32.
"""

import torch
from torch.optim import SGD
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from tests.benchmarks.peers import task


def main() -> None:
    """Run the command line."""
    given = task.options()
    to_input = [
        v2.PILToTensor(),
        v2.ToDtype(torch.float, scale=True),
        v2.Normalize(*task.NORMALIZATION[given.network]),
        v2.ToPureTensor(),
    ]
    augmented = [v2.RandomResizedCrop(task.SIDE), v2.RandomHorizontalFlip()]
    plain = [v2.Resize(256), v2.CenterCrop(task.SIDE)]
    task.run(
        given,
        ImageFolder(given.data / "train", v2.Compose([*augmented, *to_input])),
        ImageFolder(given.data / "valid", v2.Compose([*plain, *to_input])),
        workers=2,
        learning_rates=(1e-3, 1.0),
        optimizer=lambda parameters, rate: SGD(
            parameters, lr=rate, momentum=0.9, weight_decay=1e-4
        ),
    )


if __name__ == "__main__":
    main()
