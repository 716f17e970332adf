"""What is minimised: ERM's mean loss, and the base of every other method's loss."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from skspurious._engine._modules import forward
from skspurious._engine._runtime import Runtime


class Objective(nn.Module):
    """The loss of ERM, and the base of every other method's loss.

    A method overrides ``coefficients`` (how much each sample's loss counts) or, if it needs more
    than the losses, ``forward``, with losses from ``sample_losses``. Register what it remembers
    from step to step as a buffer: then checkpoints save it, and it is on the right device.

    A ``batch`` is a dict of tensors: "X" (or a dict of them, for a network that takes keywords),
    "y" (class codes), "group" (group codes, or None), "weight" (sample weights, or None) and
    "position" (rows of the training samples).

    Examples
    --------
    >>> from skspurious.extend import Objective
    >>> class Squared(Objective):
    ...     "The larger a loss, the more it counts."
    ...     def coefficients(self, losses, batch, runtime):
    ...         return losses * super().coefficients(losses, batch, runtime)
    """

    def __init__(self) -> None:
        super().__init__()
        self.criterion: Any = None  # the estimator's, once it trains

    def forward(self, module: nn.Module, batch: dict, runtime: Runtime) -> tuple[Tensor, ...]:
        """Scalar loss, per-sample losses (b,) and logits (b, n_classes) of one batch."""
        with runtime.autocast():
            logits = forward(module, batch["X"])
        losses = self.sample_losses(logits.float(), batch["y"])
        return self.reduce(losses, batch, runtime), losses, logits

    def sample_losses(self, logits: Tensor, y: Tensor) -> Tensor:
        """Loss of each sample (b,): the cross-entropy, or the ``criterion`` of the estimator."""
        if self.criterion is None:
            return F.cross_entropy(logits, y, reduction="none")
        return self.criterion(logits, y)

    def reduce(self, losses: Tensor, batch: dict, runtime: Runtime) -> Tensor:
        """Sum of the losses of a batch, each times its coefficient."""
        with torch.no_grad():
            coefficients = self.coefficients(losses, batch, runtime)
        return (coefficients * losses).sum()

    def coefficients(self, losses: Tensor | None, batch: dict, runtime: Runtime) -> Tensor | float:
        """Coefficient of each loss: here those of a mean over all processes, by sample weight.

        A method that does not override this may be given None as ``losses``: a mean needs none.
        """
        weight = batch["weight"]
        if weight is None:
            return 1.0 / batch["y"].shape[0]
        return weight / runtime.all_reduce(weight.sum()).clamp(min=1e-12)

    @property
    def is_convex(self) -> bool:
        """Whether a linear head is fitted by :meth:`fit_head` where no parameter says how.

        By default where the losses count as in a mean, which the base knows of itself. A method
        whose ``coefficients`` do not look at the losses may say that it is, too.
        """
        kind = type(self)
        return kind.forward is Objective.forward and kind.coefficients is Objective.coefficients

    def equal_coefficients(self, batch: dict, runtime: Runtime) -> Tensor:
        """Coefficients of all samples, in one batch, when their losses are equal."""
        weights = self.coefficients(None, batch, runtime)
        return torch.as_tensor(weights * runtime.n_processes)  # each process has all samples

    def fit_head(self, head: Any, batch: dict, share: Tensor) -> None:
        """Fit a linear head to its minimum; ``share`` is what ``equal_coefficients`` gave."""
        head.minimise(lambda losses: (share @ losses, share))

    def end_epoch(self, row: dict[str, Any]) -> None:
        """Called after each epoch with its row of the history; by default nothing happens."""

    def log(self) -> dict[str, Any]:
        """Columns to add to the epoch's row of the history, by name."""
        return {}


class WeightedLoss(Objective):
    """Mean of the losses, each times the weight of its class or group.

    Parameters
    ----------
    weight : array of shape (n_classes,) or (n_groups,)
        One weight for each class or group; their mean over the samples is 1.
    by : {"class", "group"}
        Whether ``weight`` has a value for each class or for each group.

    Examples
    --------
    >>> from skspurious.extend import WeightedLoss
    >>> WeightedLoss([0.5, 1.5], by="class").weight
    tensor([0.5000, 1.5000])
    """

    weight: Tensor

    def __init__(self, weight: Any, by: str):
        super().__init__()
        self.register_buffer("weight", torch.as_tensor(weight, dtype=torch.float32))
        self.key = "y" if by == "class" else "group"

    @property
    def is_convex(self) -> bool:
        """True, but for a loss that was made of this one."""
        kind = type(self)
        return kind.forward is Objective.forward and kind.coefficients is WeightedLoss.coefficients

    def coefficients(self, losses: Tensor | None, batch: dict, runtime: Runtime) -> Tensor | float:
        """The coefficients of the mean, times the weights."""
        return self.weight[batch[self.key]] * super().coefficients(losses, batch, runtime)
