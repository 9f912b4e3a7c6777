"""AdamW and SGD by torch's own functions.

The classes of torch.optim load torch's compiler when they are made, which takes every training and
every search 1.5 s.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim.adamw import adamw
from torch.optim.sgd import sgd

BETAS = (0.9, 0.999)
EPSILON = 1e-8


class Optimizer:
    """What both have: parameters in groups, and tensors kept for each of them.

    Attributes:
        param_groups: Each with `params`, and with `lr`, its learning rate, before a step.
    """

    def __init__(self, groups: Sequence[dict[str, Any]], weight_decay: float) -> None:
        """Keep nothing yet.

        Args:
            groups: Mappings with `params`, the tensors to optimize.
            weight_decay: Of all of them.
        """
        self.param_groups = list(groups)
        self.weight_decay = weight_decay
        self._kept: list[list[Tensor]] = []

    def zero_grad(self) -> None:
        """Drop the gradients."""
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """Update all parameters by their gradients, which all have."""
        if not self._kept:
            self._kept = [self._begin(group["params"]) for group in self.param_groups]
        for group, kept in zip(self.param_groups, self._kept, strict=True):
            gradients = [parameter.grad for parameter in group["params"]]
            self._update(group["params"], gradients, kept, group["lr"])

    def state_dict(self) -> dict[str, Any]:
        """What must be kept to go on; nothing before the first step."""
        return {"kept": self._kept}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there."""
        self._kept = [
            # Counts of steps are scalars, which torch reads on the CPU.
            [tensor.to(group["params"][0].device) if tensor.dim() else tensor for tensor in tensors]
            for group, tensors in zip(self.param_groups, state["kept"], strict=False)
        ]

    def _begin(self, parameters: list[Tensor]) -> list[Tensor]:
        raise NotImplementedError

    def _update(
        self, parameters: list[Tensor], gradients: list[Tensor], kept: list[Tensor], rate: float
    ) -> None:
        raise NotImplementedError


class AdamW(Optimizer):
    """Adam with decoupled weight decay. Source: Loshchilov and Hutter (2019)."""

    def _begin(self, parameters: list[Tensor]) -> list[Tensor]:
        moments = [torch.zeros_like(parameter) for _ in range(2) for parameter in parameters]
        return [*moments, *(torch.tensor(0.0) for _ in parameters)]

    def _update(
        self, parameters: list[Tensor], gradients: list[Tensor], kept: list[Tensor], rate: float
    ) -> None:
        count = len(parameters)
        adamw(
            parameters,
            gradients,
            kept[:count],
            kept[count : 2 * count],
            [],
            kept[2 * count :],
            amsgrad=False,
            beta1=BETAS[0],
            beta2=BETAS[1],
            lr=rate,
            weight_decay=self.weight_decay,
            eps=EPSILON,
            maximize=False,
        )


class SGD(Optimizer):
    """Stochastic gradient descent with momentum."""

    def __init__(
        self, groups: Sequence[dict[str, Any]], momentum: float, weight_decay: float
    ) -> None:
        """See `Optimizer`; momentum 0 is plain descent."""
        super().__init__(groups, weight_decay)
        self.momentum = momentum

    def _begin(self, parameters: list[Tensor]) -> list[Tensor]:
        return [torch.zeros_like(parameter) for parameter in parameters]

    def _update(
        self, parameters: list[Tensor], gradients: list[Tensor], kept: list[Tensor], rate: float
    ) -> None:
        sgd(
            parameters,
            gradients,
            list(kept),
            weight_decay=self.weight_decay,
            momentum=self.momentum,
            lr=rate,
            dampening=0.0,
            nesterov=False,
            maximize=False,
        )
