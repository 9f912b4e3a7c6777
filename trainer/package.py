"""Turn a trained model into the archive that is served, or check such an archive.

    python -m trainer.package --model MODEL --data DIR --output build/model.tar.gz
    python -m trainer.package --check build/model.tar.gz

The network is exported to ONNX, compared with PyTorch, and quantized to int8 if that keeps its
answers on `valid/`; `package.json` beside the archive says what was tried and what came of it.
"""

import argparse
import os
from pathlib import Path

import numpy as np

from inference.archive import ArchiveError, open_model
from inference.predictor import Predictor
from trainer.errors import ArgumentParser, KennelError, run_command
from trainer.names import shown

CALIBRATION_IMAGES = 200
PRECISIONS = ("auto", "fp32", "int8")


def check(archive: Path) -> str:
    """Verify an archive, load it and run one image.

    Returns:
        One line: name, digest, precision.

    Raises:
        KennelError: The archive is damaged, or its network answers no probabilities.
    """
    try:
        model = open_model(archive)
        predictor = Predictor(model)
    except ArchiveError as error:
        raise KennelError(str(error)) from error
    side = model.preprocess.crop
    gradient = np.linspace(0, 255, side * side * 3).astype(np.uint8).reshape(1, side, side, 3)
    total = float(predictor.probabilities(gradient).sum())
    if not abs(total - 1.0) <= 1e-3:  # written so that NaN fails too
        raise KennelError(f"{archive}: the probabilities of an image add up to {total}, not to 1")
    return f"name={model.name} digest={model.digest} precision={model.manifest['precision']}"


def _parse() -> argparse.Namespace:
    parser = ArgumentParser(
        prog="python -m trainer.package", description="Write or check the archive that is served."
    )
    parser.add_argument("--check", type=Path, metavar="ARCHIVE", help="verify an archive, and stop")
    parser.add_argument("--model", type=Path, metavar="FOLDER", help="what trainer.train wrote")
    parser.add_argument("--data", type=Path, metavar="DIR", help="the data it was trained on")
    parser.add_argument("--output", type=Path, metavar="FILE", help="model.tar.gz to write")
    cache = os.environ.get("KENNEL_CACHE", "build/cache")
    parser.add_argument("--cache-dir", type=Path, default=cache, metavar="DIR")
    parser.add_argument("--precision", choices=PRECISIONS, default="auto")
    parser.add_argument(
        "--calibration-images", type=int, default=CALIBRATION_IMAGES, metavar="COUNT"
    )
    options = parser.parse_args()
    if not options.check and not (options.model and options.data and options.output):
        parser.error("give --model, --data and --output, or --check")
    if options.calibration_images < 1:
        parser.error("--calibration-images takes a count of 1 or more")
    return options


def main() -> None:
    """Write or check an archive."""
    options = _parse()
    if options.check:
        print(check(options.check))
        return
    # Imported here since it takes torch, and --check runs where only the server's packages are.
    from trainer.done import packed
    from trainer.packaging import package
    from trainer.progress import say_result

    report = package(
        options.model,
        options.data,
        options.output,
        options.cache_dir,
        options.precision,
        options.calibration_images,
    )
    say_result(
        map(shown, packed(options.output, report)),
        f"archive={options.output} name={report['name']} precision={report['precision']} "
        f"bytes={report['bytes']} top1_valid_fp32={report['top1_valid_fp32']:.4f} "
        f"top1_valid_served={report['top1_valid_served']:.4f} agreement={report['agreement']:.4f}",
    )


if __name__ == "__main__":
    run_command(main)
