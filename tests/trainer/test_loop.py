from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from trainer.backbones import Classifier
from trainer.batches import Batch, FeatureSource, evaluation_batches
from trainer.config import TrainConfig
from trainer.loop import (
    evaluate,
    learning_rate_factor,
    make_optimizer,
    should_stop,
    train_steps,
    training_losses,
)
from trainer.ranks import Ranks

CONFIG = TrainConfig(dropout=0.0, epochs=2, batch_size=6)
HERE = Ranks(0, 1, 0, torch.device("cpu"))


def batch(images: int = 6) -> Batch:
    random = torch.Generator().manual_seed(1)
    return Batch(
        torch.randn(images, 5, generator=random),
        torch.arange(images) % 3,
        torch.full((images,), 1 / images),
    )


def head(config: TrainConfig = CONFIG) -> Classifier:
    torch.manual_seed(0)
    return Classifier(nn.Identity(), 5, 3, config.dropout)


def weights_after(config: TrainConfig, steps: int = 3) -> torch.Tensor:
    classifier = head(config)
    optimizer = make_optimizer(classifier, config)
    for _ in train_steps(
        classifier, [batch()] * steps, optimizer, config, HERE, False, 0, 0, steps
    ):
        pass
    return classifier.head.weight.detach()


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_accumulation_changes_memory_not_the_step(optimizer):
    config = replace(CONFIG, optimizer=optimizer)
    in_parts = replace(config, grad_accumulation=4)
    assert torch.allclose(weights_after(config), weights_after(in_parts), atol=1e-6)
    assert not torch.allclose(weights_after(config), head().head.weight)


def test_a_step_descends_the_mean_loss_of_its_images():
    config = replace(CONFIG, optimizer="sgd", momentum=0.0, weight_decay=0.0, warmup_fraction=0.0)
    reference = head()
    loss = F.cross_entropy(reference(batch().inputs), batch().targets)
    loss.backward()
    expected = reference.head.weight - config.head_learning_rate * reference.head.weight.grad
    assert torch.allclose(weights_after(config, steps=1), expected, atol=1e-7)


def test_images_without_weight_teach_nothing_and_are_not_counted():
    classifier = head()
    nothing = replace(batch(), weights=torch.zeros(6))
    before = classifier.head.weight.clone()
    config = replace(CONFIG, optimizer="sgd", weight_decay=0.0)
    totals = list(
        train_steps(
            classifier, [nothing], make_optimizer(classifier, config), config, HERE, False, 0, 0, 1
        )
    )
    assert torch.equal(classifier.head.weight, before)
    assert totals[0].tolist() == [0.0, 0.0]


def test_dropout_draws_the_same_after_a_restart():
    config = replace(CONFIG, dropout=0.5)
    whole = weights_after(config, steps=4)
    classifier = head(config)
    optimizer = make_optimizer(classifier, config)
    for first in (0, 2):
        torch.rand(7)  # whatever else drew numbers meanwhile
        for _ in train_steps(
            classifier, [batch()] * 2, optimizer, config, HERE, False, 0, first, 4
        ):
            pass
    assert torch.equal(classifier.head.weight, whole)


@given(st.integers(1, 500), st.floats(0, 0.9))
def test_the_learning_rate_rises_to_its_peak_and_falls_to_zero(steps, warmup_fraction):
    factors = [learning_rate_factor(step, steps, warmup_fraction) for step in range(steps)]
    peak = round(warmup_fraction * steps)
    assert all(0 < factor <= 1 for factor in factors)
    assert factors[:peak] == sorted(factors[:peak])
    assert factors[peak:] == sorted(factors[peak:], reverse=True)
    if peak < steps:
        assert factors[peak] == 1


def test_mixup_blends_the_losses_of_both_targets():
    config, classifier = replace(CONFIG, mixup=0.4), head()
    torch.manual_seed(3)
    share = float(torch.distributions.Beta(0.4, 0.4).sample())
    torch.manual_seed(3)
    mixed = training_losses(classifier, batch(), config, False)
    inputs, targets = batch().inputs, batch().targets
    logits = classifier(share * inputs + (1 - share) * inputs.roll(1, 0))
    soft = share * F.one_hot(targets, 3) + (1 - share) * F.one_hot(targets.roll(1, 0), 3)
    assert torch.allclose(mixed, F.cross_entropy(logits, soft, reduction="none"), atol=1e-6)


def test_evaluation_is_the_mean_over_images_whatever_the_batches():
    source = FeatureSource([batch(11).inputs.numpy()], (np.arange(11) % 3), CONFIG)
    classifier = head().eval()
    for size in (1, 4, 11):
        result = evaluate(classifier, evaluation_batches(source, size), HERE, False)
        logits = classifier(batch(11).inputs).detach()
        assert result.loss == pytest.approx(
            float(F.cross_entropy(logits, batch(11).targets)), rel=1e-5
        )
        assert result.accuracy == pytest.approx(
            float((logits.argmax(1) == batch(11).targets).float().mean())
        )


@pytest.mark.parametrize(
    ("losses", "patience", "stops"),
    [
        ([], 2, False), ([1.0], 2, False), ([1.0, 2.0], 2, False), ([1.0, 2.0, 3.0], 2, True),
        ([3.0, 2.0, 1.0], 2, False), ([1.0, 2.0, 0.9, 1.0], 2, False), ([1.0] * 9, 0, False),
    ],
)  # fmt: skip
def test_training_stops_when_patience_ends(losses, patience, stops):
    assert should_stop(losses, patience) is stops
