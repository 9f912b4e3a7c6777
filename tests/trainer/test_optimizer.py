"""Our optimizers do what torch's classes do, step by step and after a restart."""

import copy
from typing import Any

import pytest
import torch

from trainer.optimizer import SGD, AdamW, Optimizer

RATES = (0.1, 0.05, 0.2, 0.01)


def network() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3))


def steps(trained: torch.nn.Module, optimizer: Any, rates: tuple[float, ...]) -> torch.Tensor:
    """Take steps, and give all weights."""
    for number, rate in enumerate(rates):
        torch.manual_seed(number)
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.zero_grad()
        trained(torch.randn(8, 4)).square().sum().backward()
        optimizer.step()
    return torch.cat([parameter.detach().flatten() for parameter in trained.parameters()])


def ours(kind: str, trained: torch.nn.Module) -> Optimizer:
    groups = [{"params": list(module.parameters())} for module in trained.children()]
    return AdamW(groups, 0.1) if kind == "adamw" else SGD(groups, 0.9, 0.1)


@pytest.mark.parametrize("kind", ["adamw", "sgd"])
def test_weights_are_those_of_torchs_own(kind: str) -> None:
    mine, theirs = network(), network()
    torchs: torch.optim.Optimizer = (
        torch.optim.AdamW(theirs.parameters(), weight_decay=0.1)
        if kind == "adamw"
        else torch.optim.SGD(theirs.parameters(), momentum=0.9, weight_decay=0.1)
    )
    assert torch.equal(steps(mine, ours(kind, mine), RATES), steps(theirs, torchs, RATES))


@pytest.mark.parametrize("kind", ["adamw", "sgd"])
def test_it_goes_on_from_what_it_kept(kind: str) -> None:
    whole = network()
    first, more = ours(kind, whole), ours(kind, whole)
    more.load_state_dict(copy.deepcopy(first.state_dict()))  # nothing, before the first step
    steps(whole, more, RATES[:2])
    resumed = copy.deepcopy(whole)
    again = ours(kind, resumed)
    again.load_state_dict(copy.deepcopy(more.state_dict()))
    assert torch.equal(steps(whole, more, RATES[2:]), steps(resumed, again, RATES[2:]))
