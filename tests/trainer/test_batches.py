import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trainer.backbones import preprocess_for
from trainer.batches import (
    FeatureSource,
    PixelSource,
    evaluation_batches,
    global_batches,
    image_weights,
    random_box,
    training_batches,
)
from trainer.config import TrainConfig
from trainer.dataset import load
from trainer.errors import UsageError

CONFIG = TrainConfig(backbone="resnet18", weights="none", image_size=32, batch_size=8, seed=3)


@pytest.fixture(scope="module")
def train_split(colours, tmp_path_factory):
    return load(colours, tmp_path_factory.mktemp("cache"), 37, "bilinear", ("train",)).splits[
        "train"
    ]


@given(st.integers(1, 300), st.integers(1, 64), st.integers(0, 3))
def test_an_epoch_shows_each_image_once(images, batch_size, epoch):
    batches = global_batches(images, replace(CONFIG, batch_size=batch_size), epoch)
    assert sorted(np.concatenate(batches)) == list(range(images))
    assert all(len(batch) == batch_size for batch in batches[:-1])


@given(st.integers(2, 300), st.integers(2, 64), st.integers(0, 3))
def test_no_batch_is_smaller_than_asked_and_each_image_is_still_shown_once(images, size, epoch):
    config = replace(CONFIG, batch_size=size)
    batches = global_batches(images, config, epoch, least=2)
    assert min(map(len, batches)) >= 2
    assert (
        np.concatenate(batches).tolist()
        == np.concatenate(global_batches(images, config, epoch)).tolist()
    )
    assert all(len(batch) == size for batch in batches[:-1])
    assert len(batches[-1]) <= size + 1


@given(st.integers(2, 60), st.integers(2, 12), st.integers(1, 5), st.integers(1, 9))
def test_no_process_and_no_part_computes_a_single_image(images, size, world, count):
    config = replace(CONFIG, batch_size=size, hflip=0.0)
    source = FeatureSource(
        [np.arange(images, dtype=np.float32)[:, None]], np.arange(images) % 3, config
    )
    seen: Counter[float] = Counter()
    shares = [
        list(training_batches(source, np.ones(images, np.float32), config, 0, 0, rank, world, 2))
        for rank in range(world)
    ]
    for batches in zip(*shares, strict=True):
        assert sum(float(batch.weights.sum()) for batch in batches) == pytest.approx(1)
        for batch in batches:
            parts = batch.split(count, least=2)
            assert len(parts) <= count
            assert min(len(part.targets) for part in parts) >= 2
            for part in parts:
                seen.update(part.inputs[part.weights > 0].flatten().tolist())
    assert seen == Counter(range(images))


def test_a_batch_size_of_one_cannot_be_normalized():
    with pytest.raises(UsageError, match=r"--batch-size 1: batch normalization .* 2 or more"):
        global_batches(10, replace(CONFIG, batch_size=1), 0, least=2)


@pytest.mark.parametrize(("weights", "helps"), [("pretrained", True), ("none", False)])
def test_a_remedy_is_named_only_where_it_helps(weights: str, helps: bool):
    with pytest.raises(UsageError) as refusal:
        global_batches(10, replace(CONFIG, batch_size=1, weights=weights), 0, least=2)
    assert ("--freeze-norm" in str(refusal.value)) == helps


def test_epochs_and_seeds_differ_in_order_and_the_same_ones_do_not():
    def order(seed: int, epoch: int) -> list[int]:
        return np.concatenate(global_batches(50, replace(CONFIG, seed=seed), epoch)).tolist()

    assert order(0, 0) == order(0, 0)
    assert len({tuple(order(seed, epoch)) for seed in range(3) for epoch in range(3)}) == 9


@given(st.integers(1, 60), st.integers(1, 12), st.integers(1, 5))
def test_processes_share_a_batch_without_overlap_and_weights_add_up_to_one(images, size, world):
    config = replace(CONFIG, batch_size=size, hflip=0.0)
    targets = np.arange(images) % 3
    source = FeatureSource([np.arange(images, dtype=np.float32)[:, None]], targets, config)
    shares = [
        list(training_batches(source, np.ones(images, np.float32), config, 0, 0, rank, world))
        for rank in range(world)
    ]
    assert len({len(share) for share in shares}) == 1  # all take part in every step
    seen: Counter[float] = Counter()
    for parts in zip(*shares, strict=True):
        assert sum(float(part.weights.sum()) for part in parts) == pytest.approx(1)
        for part in parts:
            seen.update(part.inputs[part.weights > 0].flatten().tolist())
    assert seen == Counter(range(images))


def test_a_restart_in_the_middle_of_an_epoch_sees_the_rest_of_it(train_split):
    source = PixelSource(train_split, preprocess_for(CONFIG), CONFIG)
    weights = image_weights(source.targets, CONFIG)
    whole = list(training_batches(source, weights, CONFIG, 1, 0, 0, 1))
    rest = list(training_batches(source, weights, CONFIG, 1, 3, 0, 1))
    assert len(whole) == 5
    for before, after in zip(whole[3:], rest, strict=True):
        assert torch.equal(before.inputs, after.inputs)
        assert torch.equal(before.targets, after.targets)


def test_augmentation_depends_on_image_and_epoch_not_on_its_neighbours(train_split):
    source = PixelSource(train_split, preprocess_for(CONFIG), CONFIG)
    alone = source.augmented(np.array([7]), epoch=2)[0]
    assert np.array_equal(alone, source.augmented(np.array([3, 7, 11]), epoch=2)[1])
    assert not np.array_equal(alone, source.augmented(np.array([7]), epoch=3)[0])


def test_without_flips_and_crops_training_sees_the_scaled_image(train_split):
    config = replace(CONFIG, hflip=0.0, min_scale=1.0)
    source = PixelSource(train_split, preprocess_for(config), config)
    seen = source.augmented(np.array([0]), epoch=0)
    assert seen.shape == (1, 32, 32, 3)
    assert seen.dtype == np.uint8
    assert seen.mean((0, 1, 2)).argmax() == 0  # the first class is red


def test_flips_mirror(train_split):
    never, always = (
        PixelSource(train_split, preprocess_for(CONFIG), replace(CONFIG, hflip=p)).augmented(
            np.array([4]), 0
        )
        for p in (0.0, 1.0)
    )
    assert np.array_equal(never[:, :, ::-1], always)


def test_a_thread_that_prepares_photos_starts_no_threads_of_its_own():
    # They would slow down those that compute the network. As in training, photos and batch are so
    # large that torch would share them out, if it were asked to.
    code = """
import sys
from pathlib import Path
from threading import Thread
import numpy as np, torch
from inference.preprocess import Preprocess
from trainer.batches import FeatureSource, PixelSource
from trainer.config import TrainConfig
from trainer.dataset import Split

torch.set_num_threads(4)
config = TrainConfig(weights="none", hflip=0.5)
count, indices = 64, np.arange(64)
photo = np.zeros((375, 500, 3), np.uint8)
views = [np.zeros((count, 2048), np.float32)] * 2
sources = [
    FeatureSource(views, np.zeros(count, np.int64), config),
    *(
        PixelSource(
            Split([photo] * count, np.zeros(count, np.int64), ("",) * count, ("",) * count),
            Preprocess(256, 224, interpolation, (0, 0, 0), (1, 1, 1)),
            config,
        )
        for interpolation in ("bilinear", "bicubic")
    ),
]
tasks = lambda: len(list(Path("/proc/self/task").iterdir()))
def prepare():
    for source in sources:
        before = tasks()
        source.augmented(indices, 0), source.plain(indices)
        print(tasks() - before)
    torch.zeros(2**24).neg()
    print(tasks() > before)
thread = Thread(target=prepare)
thread.start()
thread.join()
"""
    environment = os.environ | {"OMP_NUM_THREADS": "4"}
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    # The last line: an operator of torch's own would have been noticed.
    assert run.stdout.split() == ["0", "0", "0", "True"]


def test_features_come_from_the_mirrored_view_as_often_as_asked():
    targets = np.zeros(2000, np.int64)
    views = [np.zeros((2000, 1), np.float32), np.ones((2000, 1), np.float32)]
    source = FeatureSource(views, targets, replace(CONFIG, hflip=0.3))
    assert float(source.augmented(np.arange(2000), 0).mean()) == pytest.approx(0.3, abs=0.05)
    assert float(source.plain(np.arange(2000)).max()) == 0


@given(
    st.integers(1, 500), st.integers(1, 500), st.floats(0.01, 1),
    st.lists(st.floats(0, 1, exclude_max=True), min_size=4, max_size=4),
)  # fmt: skip
def test_a_crop_lies_within_its_image(height, width, min_scale, numbers):
    top, left, box_height, box_width = random_box(height, width, min_scale, np.array(numbers))
    assert 0 <= top <= top + box_height <= height
    assert 0 <= left <= left + box_width <= width
    assert box_height >= 1
    assert box_width >= 1


def test_evaluation_shows_each_image_once_over_all_processes(train_split):
    source = PixelSource(train_split, preprocess_for(CONFIG), CONFIG)
    shares = [list(evaluation_batches(source, 4, rank, world=3)) for rank in range(3)]
    targets = torch.cat([batch.targets for share in shares for batch in share])
    assert sorted(targets.tolist()) == sorted(train_split.targets.tolist())


def test_balanced_weights_give_each_class_the_same_say():
    targets = np.array([0] * 8 + [1] * 2)
    weights = image_weights(targets, replace(CONFIG, class_weights="balanced"))
    assert weights[targets == 0].sum() == pytest.approx(weights[targets == 1].sum())
    assert weights.mean() == pytest.approx(1)
