"""Decode, preprocess and int8 inference alone: what a server without HTTP would reach.

One process, no queue, no answers. Two layouts, of which the better is the bound: threads that each
do whole photos with a thread of the model, and one thread that lets the model use all.
"""

import argparse
import json
import os
import threading
import time
from pathlib import Path

from inference.archive import open_model
from inference.memory import keep_small_blocks
from inference.predictor import Predictor
from inference.preprocess import load_image


def photos_a_second(model: Path, folder: Path, workers: int, threads: int, seconds: float) -> float:
    """Count the photos that `workers` threads classify, each with `threads` of the model."""
    opened = open_model(model)
    bodies = [path.read_bytes() for path in sorted(folder.iterdir())]
    counts = [0] * workers
    warm = threading.Barrier(workers + 1)
    end = threading.Event()

    def work(place: int) -> None:
        predictor = Predictor(opened, threads)

        def classify(body: bytes) -> None:
            predictor.probabilities(load_image(body, opened.preprocess)[None])

        for body in bodies[:8]:
            classify(body)
        warm.wait()
        while not end.is_set():
            classify(bodies[counts[place] % len(bodies)])
            counts[place] += 1

    pool = [threading.Thread(target=work, args=(place,)) for place in range(workers)]
    for thread in pool:
        thread.start()
    warm.wait()
    started = time.perf_counter()
    time.sleep(seconds)
    end.set()
    for thread in pool:
        thread.join()
    return sum(counts) / (time.perf_counter() - started)


def main() -> None:
    """Measure both layouts and print the photos a second of each as JSON."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seconds", type=float, default=5.0)
    options = parser.parse_args()
    keep_small_blocks()
    cores = len(os.sched_getaffinity(0))
    layouts = {f"{cores} x 1": (cores, 1), f"1 x {cores}": (1, cores)}
    found = {
        name: photos_a_second(options.model, options.folder, *layout, options.seconds)
        for name, layout in layouts.items()
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
