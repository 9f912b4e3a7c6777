"""What the serving benchmark serves and asks: models, photos to send, and the right answers.

It lies in `build/bench/serving/<backbone>`; remove it to make it again. EfficientNet-Lite0 has its
pretrained weights and a head trained on the photos, as `make train package` does. ResNet-50 has no
weights without a network: it is random, int8 by the first recipe, and only its speed is of use.

Of pictures that a frozen EfficientNet tells apart badly (digits), int8 may change too many answers.
The model is served in float32 then, and its name says so.
"""

import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx
from PIL import Image, ImageOps

from inference.archive import open_model
from inference.preprocess import load_image
from tests.archives import write_manifest
from tests.benchmarks.harness import RESULTS, timed
from trainer.backbones import build_classifier, load_model, preprocess_for
from trainer.config import TrainConfig
from trainer.dataset import Dataset, scan
from trainer.onnx_export import export
from trainer.quantize import quantize, recipes_for
from trainer.train import write_model

NAMES = {"efficientnet_lite0": "EfficientNet-Lite0", "resnet50": "ResNet-50"}
TRAINED = "efficientnet_lite0"
BODY_SIDES = (500, 375)
BODIES = 64


@dataclass(frozen=True)
class Model:
    """A model, and what it is asked.

    Attributes:
        name: For people.
        folder: The unpacked archive.
        bodies: JPEG files that make up the load.
        tests: Test photos and their labels; none where answers mean nothing.
    """

    name: str
    folder: Path
    bodies: Path
    tests: tuple[tuple[Path, str], ...]


def make(backbone: str, photos: Path) -> Model:
    """Make a model of photos (a data folder), unless it is there."""
    folder = RESULTS / "serving" / backbone
    archive, bodies = folder / "archive", folder / "bodies"
    found = scan(photos)
    tests = [photos / file for file in found.files["test"]]
    if not archive.exists():
        shutil.rmtree(folder, ignore_errors=True)
        print(f"making {NAMES[backbone]}", flush=True)
        _scale(tests, bodies)
        if backbone == TRAINED:
            _train(backbone, photos, folder, archive)
        else:
            _draw(backbone, photos, bodies, archive)
    labels = dict(zip(found.classes, found.labels, strict=True))
    named = tuple((photo, labels[photo.parent.name]) for photo in tests)
    name, precision = NAMES[backbone], open_model(archive).manifest["precision"]
    if precision != "int8":
        name = f"{name} in {precision}"
    return Model(name, archive, bodies, named if backbone == TRAINED else ())


def _scale(photos: Sequence[Path], folder: Path) -> None:
    """Write `BODIES` of the photos in the size that is sent."""
    folder.mkdir(parents=True)
    for number, photo in enumerate(photos[:: max(1, len(photos) // BODIES)][:BODIES]):
        body = ImageOps.fit(Image.open(photo).convert("RGB"), BODY_SIDES)
        body.save(folder / f"{number:03}.jpg", quality=90)


def _train(backbone: str, photos: Path, folder: Path, archive: Path) -> None:
    """Train a head and package the model."""
    trained, packed = folder / "trained", folder / "model.tar.gz"
    train = {
        "--backbone": backbone,
        "--unfreeze": "none",
        "--model-dir": trained,
        "--output-dir": folder / "output",
        "--checkpoint-dir": folder / "checkpoints",
    }
    package = {"--precision": "auto", "--model": trained, "--output": packed}
    common = {"--data": photos, "--cache-dir": RESULTS / "serving/cache"}
    for module, flags in (("trainer.train", train), ("trainer.package", package)):
        arguments = (str(word) for flag in (common | flags).items() for word in flag)
        timed([sys.executable, "-m", module, *arguments])
    shutil.copytree(open_model(packed).folder, archive)


def _draw(backbone: str, photos: Path, bodies: Path, archive: Path) -> None:
    """Draw random weights and write what an archive of them unpacks to."""
    config = TrainConfig(backbone=backbone, weights="none")
    preprocess, found = preprocess_for(config), scan(photos)
    classifier = build_classifier(config, len(found.classes))
    data = Dataset(photos, found.classes, found.labels, {})
    drawn = archive.with_name("drawn")
    write_model(drawn, classifier, config, data, preprocess, {})
    images = [load_image(body.read_bytes(), preprocess) for body in sorted(bodies.iterdir())]
    exported = export(load_model(drawn))
    network = quantize(exported, recipes_for(exported)[0], images)
    onnx.save(network, drawn / "model.onnx")
    write_manifest(drawn, backbone=backbone, precision="int8")
    drawn.rename(archive)
