"""XRM's rule: a sample takes the label that a model which has not seen it would give it."""

import torch
from torch import Tensor

__all__ = ["fit_linear_twins", "flip_labels", "flip_probability", "twin_weights"]


def flip_probability(confidence: Tensor, n_classes: int) -> Tensor:
    """Probability that a label flips to the class that the held-out model predicts.

    ``(p_max - 1 / C) * C / (C - 1)``: 0 where the model is at chance, 1 where it is certain.

    Parameters
    ----------
    confidence : tensor of shape (n_samples,)
        Largest class probability of the held-out model (p_max).
    n_classes : int
        Number of classes (C).

    Returns
    -------
    probability : tensor of shape (n_samples,)

    Examples
    --------
    >>> flip_probability(torch.tensor([0.5, 0.75, 1.0]), 2)
    tensor([0.0000, 0.5000, 1.0000])
    """
    return ((confidence * n_classes - 1.0) / (n_classes - 1.0)).clamp(0.0, 1.0)


def flip_labels(label: Tensor, held_out_logits: Tensor, draws: Tensor) -> Tensor:
    """Labels after one look of the held-out model.

    Parameters
    ----------
    label : tensor of shape (n_samples,), int64
        Labels as they are now.
    held_out_logits : tensor of shape (n_samples, n_classes)
        Logits of the model that was not trained on the sample.
    draws : tensor of shape (n_samples,)
        Uniform random numbers in [0, 1); a label flips where the draw is below its probability.

    Returns
    -------
    label : tensor of shape (n_samples,), int64

    Examples
    --------
    >>> logits = torch.tensor([[0.0, 9.0], [0.0, 9.0], [0.0, 0.0]])
    >>> flip_labels(torch.zeros(3, dtype=torch.int64), logits, torch.tensor([0.5, 0.9999, 0.0]))
    tensor([1, 0, 0])
    """
    confidence, predicted = held_out_logits.softmax(dim=1).max(dim=1)
    is_flipped = draws < flip_probability(confidence, held_out_logits.shape[1])
    return torch.where(is_flipped, predicted, label)


def twin_weights(y: Tensor, half: Tensor, n_classes: int) -> Tensor:
    """Weight of every sample: in each half the classes count the same, and the mean is 1.

    They are those of the true labels: a row that flips to a rare class does not gain weight by it.

    Parameters
    ----------
    y : tensor of shape (n_samples,), int64
        Classes 0 to n_classes-1.
    half : tensor of shape (n_samples,), int64
        Which of the twins, 0 or 1, is trained on a sample.
    n_classes : int
        Number of classes.

    Returns
    -------
    weight : tensor of shape (n_samples,), float32

    Examples
    --------
    >>> twin_weights(torch.tensor([0, 0, 0, 1, 0, 1]), torch.tensor([0, 0, 0, 0, 1, 1]), 2)
    tensor([0.6667, 0.6667, 0.6667, 2.0000, 1.0000, 1.0000])
    """
    cell = half * n_classes + y
    count = torch.bincount(cell, minlength=2 * n_classes).view(2, n_classes)
    n_present = (count > 0).sum(dim=1, keepdim=True)
    weight = count.sum(dim=1, keepdim=True) / (n_present * count.clamp(min=1))
    return weight.flatten()[cell]


def fit_linear_twins(
    X: Tensor,
    y: Tensor,
    half: Tensor,
    n_classes: int,
    *,
    lr: float = 0.01,
    momentum: float = 0.9,
    n_steps: int = 300,
    batch_size: int = 1024,
    flips: bool = True,
    random_state: int = 0,
) -> tuple[Tensor, Tensor, Tensor]:
    """Two linear heads, each trained on a half of the rows, that learn each other's mistakes.

    Parameters
    ----------
    X : tensor of shape (n_samples, n_features)
        The rows, standardised.
    y : tensor of shape (n_samples,), int64
        Classes 0 to n_classes-1.
    half : tensor of shape (n_samples,), int64
        Which of the twins, 0 or 1, is trained on a row; the other one judges it.
    n_classes : int
        Number of classes.
    lr : float, default=0.01
        Learning rate of stochastic gradient descent.
    momentum : float, default=0.9
        Its momentum.
    n_steps : int, default=300
        Number of steps.
    batch_size : int, default=1024
        Rows of a step, of both halves.
    flips : bool, default=True
        Whether labels flip.
    random_state : int, default=0
        Seed of batches and flips.

    Returns
    -------
    coef : tensor of shape (2, n_features, n_classes)
    intercept : tensor of shape (2, n_classes)
        Logits of twin k are ``X @ coef[k] + intercept[k]``.
    label : tensor of shape (n_samples,), int64
        Labels after the flips.

    Examples
    --------
    >>> X = torch.tensor([[-1.0], [1.0], [-1.2], [1.2]])
    >>> y, half = torch.tensor([0, 1, 0, 1]), torch.tensor([0, 0, 1, 1])
    >>> coef, intercept, label = fit_linear_twins(X, y, half, 2)
    >>> (X[:2] @ coef[1] + intercept[1]).argmax(dim=1)
    tensor([0, 1])
    """
    generator = torch.Generator().manual_seed(random_state)
    n, size = len(X), min(batch_size, len(X))
    weight = twin_weights(y, half, n_classes).to(X)
    coef = X.new_zeros(X.shape[1], 2 * n_classes)  # at chance: nothing flips at first
    intercept = X.new_zeros(2 * n_classes)
    velocity = torch.zeros_like(coef), torch.zeros_like(intercept)
    label = y.clone()
    for _ in range(n_steps):
        at = torch.randperm(n, generator=generator)[:size].to(X.device)
        draws = torch.rand(size, generator=generator).to(X)
        rows, own, target = X[at], half[at], label[at]
        logits = torch.addmm(intercept, rows, coef).view(size, 2, n_classes)
        held_in = torch.where(own[:, None] == 0, logits[:, 0], logits[:, 1])
        held_out = torch.where(own[:, None] == 0, logits[:, 1], logits[:, 0])
        # Gradient of the class-balanced cross-entropy of every row's own twin.
        error = held_in.softmax(dim=1) - torch.nn.functional.one_hot(target, n_classes)
        error = error * (2.0 / size * weight[at])[:, None]
        gradient = torch.stack([error * (own == k)[:, None] for k in (0, 1)], dim=1).flatten(1)
        velocity[0].mul_(momentum).addmm_(rows.T, gradient)
        velocity[1].mul_(momentum).add_(gradient.sum(dim=0))
        coef.sub_(velocity[0], alpha=lr)
        intercept.sub_(velocity[1], alpha=lr)
        if flips:
            label[at] = flip_labels(target, held_out, draws)
    coef = coef.view(-1, 2, n_classes).transpose(0, 1)
    return coef, intercept.view(2, n_classes), label
