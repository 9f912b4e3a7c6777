"""The course script: transfer learning as most people first write it.

After PyTorch's "Transfer Learning for Computer Vision Tutorial" and the dog breed exercises like
it: ImageFolder, PIL transforms, a DataLoader as it comes, Adam, fp32.
"""

from torch.optim import Adam
from torchvision import transforms
from torchvision.datasets import ImageFolder

from tests.benchmarks.peers import task


def main() -> None:
    """Run the command line."""
    given = task.options()
    to_input = [
        transforms.ToTensor(),
        transforms.Normalize(*task.NORMALIZATION[given.network]),
    ]
    augmented = [transforms.RandomResizedCrop(task.SIDE), transforms.RandomHorizontalFlip()]
    plain = [transforms.Resize(256), transforms.CenterCrop(task.SIDE)]
    task.run(
        given,
        ImageFolder(given.data / "train", transforms.Compose([*augmented, *to_input])),
        ImageFolder(given.data / "valid", transforms.Compose([*plain, *to_input])),
        workers=0,
        learning_rates=(1e-4, 1e-1),
        optimizer=lambda parameters, rate: Adam(parameters, lr=rate),
    )


if __name__ == "__main__":
    main()
