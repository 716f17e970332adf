"""Accelerated proximal gradient steps on logistic heads: the inner loop of their solver."""

import torch
from torch import Tensor

__all__ = ["AcceleratedSteps", "LogisticProblem"]

# Iterations between two looks at the optimality conditions.
_CHECK_EVERY = 10
# By this the assumed curvature falls after every step that was short enough.
_RELAX = 0.95


class LogisticProblem:
    """The heads' objectives. All heads are the columns of one matrix: samples come first.

    Parameters
    ----------
    X : tensor of shape (n_samples, n_features)
        Features.
    target : tensor of shape (n_samples, n_rows)
        One column for each row of a head.
    scale : tensor of shape (n_samples, n_heads)
        C times the weights of the samples.
    penalty : {"l1", "l2"}
        Penalty of the weights.
    offset : tensor of shape (n_samples, n_heads, n_rows), default=None
        What the logits are where all weights are 0; None is 0.
    unit : tensor of shape (n_heads,), default=None
        What a violation is measured in: for L1 the slope of the penalty, which is 1; for L2 the
        largest gradient at zero weights. None computes it.

    Examples
    --------
    >>> import torch
    >>> from skspurious.functional._proximal_steps import LogisticProblem
    >>> X, target = torch.tensor([[-1.0], [1.0]]), torch.tensor([[0.0], [1.0]])
    >>> problem = LogisticProblem(X, target, torch.ones(2, 1), "l2")
    >>> W = torch.zeros(2, 1, 1)  # of one feature and the intercept
    >>> problem.gradient(problem.residual(problem.logits(W))).flatten().tolist()
    [-1.0, 0.0]
    """

    def __init__(
        self,
        X: Tensor,
        target: Tensor,
        scale: Tensor,
        penalty: str,
        offset: Tensor | None = None,
        unit: Tensor | None = None,
    ):
        self.X, self.target, self.scale = X, target, scale
        self.penalty, self.offset = penalty, offset
        self.unit = self._unit() if unit is None else unit

    def take(self, head: Tensor, feature: Tensor) -> "LogisticProblem":
        """Some of the heads, on some of the features."""
        X = self.X if len(feature) == self.X.shape[1] else self.X.index_select(1, feature)
        scale, unit, offset = self.scale, self.unit, self.offset
        if len(head) < len(unit):
            scale, unit = scale[:, head], unit[head]
            offset = None if offset is None else offset[:, head]
        return LogisticProblem(X, self.target, scale, self.penalty, offset, unit)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of the weights: (n_features + 1, n_heads, n_rows), the last is the intercept."""
        return self.X.shape[1] + 1, self.scale.shape[1], self.target.shape[1]

    def to(self, dtype: torch.dtype) -> "LogisticProblem":
        """The same in another precision."""
        X, target, scale, unit = (v.to(dtype) for v in (self.X, self.target, self.scale, self.unit))
        offset = None if self.offset is None else self.offset.to(dtype)
        return LogisticProblem(X, target, scale, self.penalty, offset, unit)

    def rounding(self) -> float:
        """About how far single precision may move a violation."""
        spread = self.X.square().T @ self.scale.square()
        return torch.finfo(torch.float32).eps * float((spread.sqrt() / self.unit).amax())

    def logits(self, W: Tensor) -> Tensor:
        """Logits (n_samples, n_heads, n_rows) of weights (n_features + 1, n_heads, n_rows)."""
        # Thin products are several times as fast with the few columns as rows.
        F = (W[:-1].flatten(1).T.contiguous() @ self.X.T).T
        F = F.reshape(len(self.X), *W.shape[1:]) + W[-1]
        return F if self.offset is None else F + self.offset

    def residual(self, F: Tensor) -> Tensor:
        """Derivative of the loss by the logits, of the shape of F."""
        if F.shape[2] == 1:
            p = F.sigmoid()
        else:  # over a dimension of few numbers it is several times as fast with that one first
            p = F.movedim(2, 0).contiguous().softmax(0).movedim(0, 2)
        return self.scale[:, :, None] * (p - self.target[:, None])

    def gradient(self, residual: Tensor) -> Tensor:
        """Derivative by weights and intercept, (n_features + 1, n_heads, n_rows)."""
        G = (residual.flatten(1).T.contiguous() @ self.X).T.reshape(-1, *residual.shape[1:])
        return torch.cat([G, residual.sum(0, keepdim=True)])

    def mean_curvature(self) -> Tensor:
        """Mean of the diagonal of the Hessian's bound, (n_heads,)."""
        norm = 1 + torch.linalg.vecdot(self.X, self.X)
        return 0.25 * (norm @ self.scale) / self.shape[0]

    def shrink(self, W: Tensor, step: Tensor) -> Tensor:
        """Proximal step of the penalty; the intercept, the last feature, has none."""
        step = step[:, None]
        if self.penalty == "l1":
            w = W[:-1].sign() * (W[:-1].abs() - step).clamp(min=0)
        else:
            w = W[:-1] / (1 + step)
        return torch.cat([w, W[-1:]])

    def deviation(self, W: Tensor, F: Tensor) -> Tensor:
        """Distance of each weight from its optimality condition, of the shape of W."""
        G = self.gradient(self.residual(F))
        g, w = G[:-1], W[:-1]
        if self.penalty == "l1":
            at_zero = (g.abs() - 1).clamp(min=0)
            deviation = torch.where(w == 0, at_zero, (g + w.sign()).abs())
        else:
            deviation = (g + w).abs()
        return torch.cat([deviation, G[-1:].abs()])

    def _unit(self) -> Tensor:
        if self.penalty == "l1":
            return torch.ones_like(self.scale[0])
        zero = self.scale.new_zeros(*self.scale.shape, self.target.shape[1])
        return self.gradient(self.residual(zero)).abs().amax((0, 2)).clamp(min=1e-12)


class AcceleratedSteps:
    """Weights of the heads, with their momentum and their steps.

    Parameters
    ----------
    problem : LogisticProblem
        What is minimised.
    W : tensor of shape (n_features + 1, n_heads, n_rows)
        Where to start; the last is the intercept.
    curvature : tensor of shape (n_heads,)
        The inverse of the first step. Steps too long are found and taken back.

    Examples
    --------
    >>> import torch
    >>> from skspurious.functional._proximal_steps import AcceleratedSteps, LogisticProblem
    >>> X, target = torch.tensor([[-1.0], [1.0]]), torch.tensor([[0.0], [1.0]])
    >>> problem = LogisticProblem(X, target, torch.full((2, 1), 3.0), "l1")
    >>> steps = AcceleratedSteps(problem, torch.zeros(2, 1, 1), problem.mean_curvature())
    >>> n_iter = steps.run(problem, tol=1e-4, max_iter=100)
    >>> round(steps.W[0].exp().item(), 2)  # 2 * 3 / (1 + exp(w)) is the slope of the penalty
    5.0
    """

    def __init__(self, problem: LogisticProblem, W: Tensor, curvature: Tensor):
        self.W = self.W_old = W
        self.F = self.F_old = problem.logits(W)
        self.curvature = curvature
        self.t = torch.ones_like(curvature)  # 1 has no momentum

    def run(self, problem: LogisticProblem, tol: Tensor | float, max_iter: int) -> Tensor:
        """Steps, at least one, until no head violates its conditions by more.

        A head that is done leaves: it is not moved any more while the others go on.

        Returns
        -------
        n_iter : tensor of shape (n_heads,), int64
            Iterations of each head.
        """
        every = torch.arange(problem.X.shape[1], device=problem.X.device)
        left = torch.arange(len(self.t), device=every.device)
        n_iter, W, curvature = torch.zeros_like(left), self.W.clone(), self.curvature.clone()
        for iteration in range(1, max_iter + 1):
            self.step(problem)
            if iteration % _CHECK_EVERY and iteration < max_iter:
                continue
            deviation = problem.deviation(self.W, self.F).amax((0, 2))
            is_done = (deviation <= tol * problem.unit) | (iteration == max_iter)
            if is_done.any():
                done, stay = is_done.nonzero().flatten(), (~is_done).nonzero().flatten()
                W[:, left[done]], curvature[left[done]] = self.W[:, done], self.curvature[done]
                n_iter[left[done]] = iteration
                left, problem = left[stay], problem.take(stay, every)
                self._keep(stay)
            if len(left) == 0:
                break
        self.W, self.curvature = W, curvature
        return n_iter

    def _keep(self, head: Tensor) -> None:
        """Go on with some of the heads."""
        for name in ("W", "W_old", "F", "F_old"):
            setattr(self, name, getattr(self, name).index_select(1, head))
        self.curvature, self.t = self.curvature[head], self.t[head]

    def step(self, problem: LogisticProblem) -> None:
        """One accelerated proximal step; a head whose step was too long stays where it is."""
        t = 0.5 * (1 + (1 + 4 * self.t.square()).sqrt())
        momentum = ((self.t - 1) / t)[:, None]
        Y = self.W + momentum * (self.W - self.W_old)
        FY = self.F + momentum * (self.F - self.F_old)  # logits are linear in the weights
        residual = problem.residual(FY)
        length = 1 / self.curvature
        W = problem.shrink(Y - length[:, None] * problem.gradient(residual), length)
        F = problem.logits(W)
        # The step is short enough where the gradient changes by at most `curvature` times it.
        moved = (W - Y).square().sum((0, 2))
        bent = ((problem.residual(F) - residual) * (F - FY)).sum((0, 2))
        is_short = bent <= self.curvature * moved
        is_uphill = ((Y - W) * (W - self.W)).sum((0, 2)) > 0
        accept = is_short[:, None]
        self.W_old = torch.where(accept, self.W, self.W_old)
        self.F_old = torch.where(accept, self.F, self.F_old)
        self.W, self.F = torch.where(accept, W, self.W), torch.where(accept, F, self.F)
        self.t = torch.where(is_short, torch.where(is_uphill, 1.0, t), self.t)
        needed = bent / moved.clamp(min=torch.finfo(moved.dtype).tiny)
        self.curvature = torch.where(
            is_short, _RELAX * self.curvature, torch.maximum(2 * self.curvature, needed)
        )
