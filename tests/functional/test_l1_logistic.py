"""Logistic heads: against scikit-learn, by their optimality conditions, by hand."""

import numpy as np
import pytest
import sklearn
import torch
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.linear_model import LogisticRegression

from skspurious.functional import fit_l1_logistic
from skspurious.functional._proximal_steps import AcceleratedSteps, LogisticProblem

fidelity = pytest.mark.fidelity


def _data(n_classes=2, n_samples=80, n_features=12, seed=0):
    """Overlapping classes on a few of the features."""
    rng = np.random.default_rng(seed)
    y = np.arange(n_samples) % n_classes
    X = rng.normal(size=(n_samples, n_features))
    X[:, :n_classes] += 1.5 * np.eye(n_classes)[y]
    X = (X - X.mean(0)) / X.std(0)
    return torch.from_numpy(X), torch.from_numpy(y)


def _reference_objective(W, b, X, y, C, weight=None, penalty="l1"):
    """The objective, sample by sample, for a head of one row (two classes) or of more."""
    W, b, X, y = (np.asarray(v) for v in (W, b, X, y))
    total = np.abs(W).sum() if penalty == "l1" else 0.5 * (W**2).sum()
    for i, (x, label) in enumerate(zip(X, y)):
        f = [w @ x + c for w, c in zip(W, b)]
        if len(f) == 1:
            f = [0.0, f[0]]
        loss = np.log(np.exp(f).sum()) - f[label]
        total += C * loss * (1 if weight is None else weight[i])
    return total


def _sklearn(X, y, C, penalty, n_classes):
    if n_classes == 2 and penalty == "l1":  # liblinear; the large scaling frees the intercept
        solver = {"solver": "liblinear", "intercept_scaling": 1e4}
    else:
        solver = {"solver": "saga" if penalty == "l1" else "newton-cg"}
    if tuple(map(int, sklearn.__version__.split(".")[:2])) < (1, 8):
        solver["penalty"] = penalty
    else:
        solver["l1_ratio"] = 1 if penalty == "l1" else 0
    model = LogisticRegression(C=C, tol=1e-9, max_iter=100_000, random_state=0, **solver)
    return model.fit(X.numpy(), y.numpy())


# --------------------------------------------------------------------------------------
# By hand, and against scikit-learn


@fidelity
def test_one_feature_by_hand():
    # x = -1, 1 with classes 0, 1: minimise |w| + 2 C log(1 + exp(-w)), so that
    # 2 C / (1 + exp(w)) = 1, w = log(2 C - 1); the intercept is 0 by symmetry.
    X, y = torch.tensor([[-1.0], [1.0]], dtype=torch.float64), torch.tensor([0, 1])
    heads = fit_l1_logistic(X, y, C=3.0, n_classes=2, tol=1e-10)
    assert_allclose(heads.coef, np.log([[[5.0]]]), rtol=1e-8)
    assert_allclose(heads.intercept, 0, atol=1e-9)
    assert fit_l1_logistic(X, y, C=1.0, n_classes=2).coef.item() == 0  # from 2 C <= 2 on


@fidelity
@pytest.mark.parametrize("penalty", ["l1", "l2"])
@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("C", [0.1, 1.0])
def test_solution_is_that_of_scikit_learn(penalty, n_classes, C):
    X, y = _data(n_classes)
    heads = fit_l1_logistic(X, y, C=C, n_classes=n_classes, penalty=penalty, tol=1e-9)
    model = _sklearn(X, y, C, penalty, n_classes)
    coef, intercept = heads.coef[0].numpy(), heads.intercept[0].numpy()
    assert_allclose(coef, model.coef_, atol=2e-4)
    if n_classes > 2:  # a common shift of the intercepts changes nothing
        intercept, free = intercept - intercept.mean(), model.intercept_ - model.intercept_.mean()
    else:
        free = model.intercept_
    assert_allclose(intercept, free, atol=2e-3)
    ours = _reference_objective(coef, intercept, X, y, C, penalty=penalty)
    theirs = _reference_objective(model.coef_, model.intercept_, X, y, C, penalty=penalty)
    assert ours <= theirs + 1e-9


@fidelity
@pytest.mark.parametrize("C", [0.2, 1.0])
def test_solution_is_that_of_saga_with_more_features_than_samples(C):
    """Three classes that can be told apart. Weights may differ along flat directions."""
    X, y = _data(3, n_samples=30, n_features=50)
    heads = fit_l1_logistic(X, y, C=C, n_classes=3, tol=1e-7, max_iter=100_000)
    model = _sklearn(X, y, C, "l1", 3)
    coef, intercept = heads.coef[0].numpy(), heads.intercept[0].numpy()
    assert 0 < (coef != 0).sum() < 60
    ours = _reference_objective(coef, intercept, X, y, C)
    theirs = _reference_objective(model.coef_, model.intercept_, X, y, C)
    assert_allclose(ours, theirs, rtol=1e-6)
    logits = X.numpy() @ coef.T + intercept
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    assert_allclose(p, model.predict_proba(X.numpy()), atol=1e-3)


def test_two_rows_of_half_the_head_have_the_objective_of_one():
    """Rows -w/2 and w/2 have the logits and the L1 norm of w: the same objective."""
    X, y = _data()
    one = fit_l1_logistic(X, y, C=0.5, n_classes=2, tol=1e-8)
    w = one.coef[0, 0].numpy()
    rows = np.stack([-w, w]) / 2
    half = one.intercept[0, 0].item() / 2
    objective = _reference_objective(rows, [-half, half], X, y, 0.5)
    assert_allclose(objective, _reference_objective(w[None], [2 * half], X, y, 0.5))


# --------------------------------------------------------------------------------------
# Optimality


@fidelity
@pytest.mark.parametrize("n_classes", [2, 4])
@pytest.mark.parametrize("C", [0.02, 0.3, 5.0])
def test_l1_optimality_conditions(n_classes, C):
    """|C dloss/dw| is at most 1 where w is 0, and 1 against the sign of w elsewhere."""
    X, y = _data(n_classes, n_features=30)
    heads = fit_l1_logistic(X, y, C=C, n_classes=n_classes, tol=1e-6, max_iter=50_000)
    W = heads.coef[0].clone().requires_grad_()
    b = heads.intercept[0].clone().requires_grad_()
    logits = X @ W.T + b
    if n_classes == 2:
        logits = torch.cat([torch.zeros_like(logits), logits], 1)
    loss = torch.nn.functional.cross_entropy(logits, y, reduction="sum")
    gradient, of_intercept = torch.autograd.grad(C * loss, [W, b])
    is_zero = W == 0
    assert is_zero.any()
    assert (gradient[is_zero].abs() <= 1 + 2e-6).all()
    assert_allclose(gradient[~is_zero], -W.detach()[~is_zero].sign(), atol=2e-6)
    assert_allclose(of_intercept, 0, atol=2e-6)
    if C > 0.1:
        assert (~is_zero).any()


@fidelity
def test_weak_C_gives_zero_weights_and_the_log_odds():
    X, y = _data()
    y = y.clone()
    y[:20] = 0
    share = y.double().mean().item()
    heads = fit_l1_logistic(X, y, C=1e-4, n_classes=2, tol=1e-9)
    assert (heads.coef == 0).all()
    assert_allclose(heads.intercept.item(), np.log(share / (1 - share)), atol=1e-3)
    three, labels = _data(3)
    assert (fit_l1_logistic(three, labels, C=1e-3, n_classes=3).coef == 0).all()


def _reference_violation(coef, intercept, X, y, C, penalty):
    """The optimality conditions of one head, weight by weight; one row of weights a class."""

    def gradient(coef, intercept):
        logits = X @ coef.T + intercept
        p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        error = C * (p - np.eye(len(coef))[y])
        return error.T @ X, error.sum(0)

    g, g0 = gradient(coef, intercept)
    deviations = list(np.abs(g0))
    for row, slope in zip(coef, g, strict=True):
        for w, s in zip(row, slope, strict=True):
            if penalty == "l2":
                deviations.append(abs(s + w))
            else:
                deviations.append(max(abs(s) - 1, 0.0) if w == 0 else abs(s + np.sign(w)))
    start, start0 = gradient(0 * coef, 0 * intercept)
    unit = 1.0 if penalty == "l1" else max(np.abs(start).max(), np.abs(start0).max())
    return max(deviations) / unit


@pytest.mark.parametrize("penalty", ["l1", "l2"])
@pytest.mark.parametrize("max_iter", [3, 5000])
def test_violation_is_that_of_the_optimality_conditions(penalty, max_iter):
    X, y = _data(3)
    for tol in (1e-2, 1e-5):
        heads = fit_l1_logistic(
            X, y, C=0.7, n_classes=3, penalty=penalty, tol=tol, max_iter=max_iter
        )
        arrays = heads.coef[0].numpy(), heads.intercept[0].numpy(), X.numpy(), y.numpy()
        expected = _reference_violation(*arrays, 0.7, penalty)
        assert_allclose(heads.violation.item(), expected, rtol=1e-6)
        assert (expected <= tol) == (max_iter == 5000)


def test_violation_by_hand():
    # One sample of each class at x = 1 and -1, w = 2, b = 0, C = 1: g = -2 / (1 + exp(2)).
    X, y = torch.tensor([[-1.0], [1.0]], dtype=torch.float64), torch.tensor([0, 1])
    heads = fit_l1_logistic(X, y, C=1.0, n_classes=2)
    heads = heads._replace(coef=torch.full((1, 1, 1), 2.0, dtype=torch.float64))
    g = -2 / (1 + np.exp(2))
    # No iteration: the violation is that of the start. L2: |g + w| as a share of the gradient at
    # zero, which is 1.
    for penalty, expected in (("l1", g + 1), ("l2", g + 2)):
        same = fit_l1_logistic(X, y, C=1.0, n_classes=2, penalty=penalty, start=heads, max_iter=0)
        assert_allclose(same.violation, [expected])
        assert torch.equal(same.coef, heads.coef)


def test_iterations_that_run_out_are_reported():
    X, y = _data()
    heads = fit_l1_logistic(X, y, C=5.0, n_classes=2, tol=1e-8, max_iter=3)
    assert heads.n_iter.item() == 3
    assert heads.violation.item() > 1e-8


# --------------------------------------------------------------------------------------
# Many heads at once


@fidelity
@pytest.mark.parametrize("n_classes", [2, 3])
def test_heads_in_one_batch_are_those_fitted_alone_on_their_rows(n_classes):
    X, y = _data(n_classes)
    rng = np.random.default_rng(0)
    subsets = [np.sort(rng.permutation(len(y))[:50]) for _ in range(3)]
    weight = torch.zeros(3, len(y), dtype=torch.float64)
    for head, rows in enumerate(subsets):
        weight[head, rows] = 1
    C = torch.tensor([0.2, 1.0, 3.0])
    heads = fit_l1_logistic(X, y, C=C, n_classes=n_classes, sample_weight=weight, tol=1e-8)
    for head, rows in enumerate(subsets):
        alone = fit_l1_logistic(X[rows], y[rows], C=C[head].item(), n_classes=n_classes, tol=1e-8)
        assert_allclose(heads.coef[head], alone.coef[0], atol=1e-5)
        assert_allclose(heads.intercept[head], alone.intercept[0], atol=1e-5)


def test_weights_are_repetitions():
    X, y = _data()
    times = np.random.default_rng(1).integers(0, 4, len(y))
    weight = torch.from_numpy(times).double()[None]
    weighted = fit_l1_logistic(X, y, C=0.5, n_classes=2, sample_weight=weight, tol=1e-8)
    rows = np.repeat(np.arange(len(y)), times)
    repeated = fit_l1_logistic(X[rows], y[rows], C=0.5, n_classes=2, tol=1e-8)
    assert_allclose(weighted.coef, repeated.coef, atol=1e-5)


def test_a_start_leads_to_the_same_solution_sooner():
    X, y = _data(n_features=40)
    cold = fit_l1_logistic(X, y, C=1.0, n_classes=2, tol=1e-7)
    below = fit_l1_logistic(X, y, C=0.7, n_classes=2, tol=1e-7)
    before = below.coef.clone()
    warm = fit_l1_logistic(X, y, C=1.0, n_classes=2, tol=1e-7, start=below)
    assert_allclose(warm.coef, cold.coef, atol=1e-5)
    assert torch.equal(below.coef, before)
    again = fit_l1_logistic(X, y, C=1.0, n_classes=2, tol=1e-6, start=cold)
    assert again.n_iter.item() == 0


def test_one_head_may_start_all():
    X, y = _data(3, n_features=40)
    C = torch.tensor([0.2, 0.5, 1.0])
    first = fit_l1_logistic(X, y, C=0.2, n_classes=3, tol=1e-8)
    warm = fit_l1_logistic(X, y, C=C, n_classes=3, tol=1e-7, start=first)
    cold = fit_l1_logistic(X, y, C=C, n_classes=3, tol=1e-7)
    assert_allclose(warm.coef, cold.coef, atol=1e-5)
    assert warm.n_iter[0] == 0


def test_a_head_that_is_done_does_not_wait_for_the_others():
    X, y = _data(3)
    target = torch.nn.functional.one_hot(y, 3).double()
    scale = torch.tensor([0.05, 20.0]).double().expand(len(y), 2)

    def run(scale):
        problem = LogisticProblem(X, target, scale, "l1")
        steps = AcceleratedSteps(
            problem, torch.zeros(problem.shape).double(), problem.mean_curvature()
        )
        n_iter = steps.run(problem, 1e-5, 1000)
        return steps.W, n_iter.tolist()

    W, n_iter = run(scale)
    assert 2 * n_iter[0] < n_iter[1] < 1000
    for head in range(2):
        alone, of_alone = run(scale[:, [head]])
        assert abs(of_alone[0] - n_iter[head]) <= 10  # the conditions are looked at every 10
        assert_allclose(alone[:, 0], W[:, head], atol=1e-4)


def test_separable_classes_have_finite_heads():
    X, y = _data(n_samples=20, n_features=60)
    heads = fit_l1_logistic(X, y, C=1.0, n_classes=2)
    assert heads.violation.item() <= 1e-3
    assert_array_equal((X @ heads.coef[0, 0] + heads.intercept[0]) > 0, y == 1)
    assert (heads.coef != 0).sum() < 20


# --------------------------------------------------------------------------------------
# Few of many features, single precision


@fidelity
@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_l1_conditions_hold_for_all_of_many_features(n_classes, dtype):
    """Far more features than the first round looks at; the classes lie in twenty of them."""
    rng = np.random.default_rng(0)
    y = np.arange(90) % n_classes
    X = rng.normal(size=(90, 700))
    X[:, :20] += rng.normal(size=(n_classes, 20))[y]
    X, y = torch.from_numpy(X).to(dtype), torch.from_numpy(y)
    heads = fit_l1_logistic(X, y, C=0.4, n_classes=n_classes, tol=1e-3)
    assert heads.coef.dtype == torch.float64
    W, b = heads.coef[0].numpy(), heads.intercept[0].numpy()
    assert 5 < (W != 0).any(0).sum() < 300
    if n_classes == 2:  # halves of one row: the same logits, and the slope of each row is half
        logits = X.double().numpy() @ W[0] + b[0]
        error = 0.4 * (1 / (1 + np.exp(-logits)) - y.numpy())
        g, w = error @ X.double().numpy(), W[0]
        deviation = np.where(w == 0, np.abs(g) - 1, np.abs(g + np.sign(w))).max()
    else:
        deviation = _reference_violation(W, b, X.double().numpy(), y.numpy(), 0.4, "l1")
    assert deviation <= 1.1e-3
    exact = fit_l1_logistic(X, y, C=0.4, n_classes=n_classes, tol=1e-8, max_iter=50_000)
    assert exact.violation.item() <= 1e-8
    objectives = [
        _reference_objective(h.coef[0], h.intercept[0], X.double(), y, 0.4) for h in (heads, exact)
    ]
    assert objectives[1] <= objectives[0] <= objectives[1] * (1 + 1e-4)


@pytest.mark.parametrize("penalty", ["l1", "l2"])
def test_a_tight_tolerance_is_reached_from_single_precision_features(penalty):
    X, y = _data(n_features=100)
    settings = {"C": 0.7, "n_classes": 2, "penalty": penalty, "tol": 1e-9, "max_iter": 50_000}
    heads = fit_l1_logistic(X.float(), y, **settings)
    same = fit_l1_logistic(X.float().double(), y, **settings)
    assert heads.violation.item() <= 1e-9
    assert_allclose(heads.coef, same.coef, atol=1e-7)


def test_products_that_round_coarsely_are_not_used(monkeypatch):
    """Where torch may take fewer digits for float32, all is in double precision."""
    X, y = _data(n_features=100)
    exact = fit_l1_logistic(X, y, C=0.7, n_classes=2, tol=1e-3)
    seen = set()
    logits = LogisticProblem.logits
    monkeypatch.setattr(
        LogisticProblem, "logits", lambda p, W: [seen.add(p.X.dtype), logits(p, W)][1]
    )
    fit_l1_logistic(X.float(), y, C=0.7, n_classes=2)
    assert seen == {torch.float32}
    monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: "medium")
    seen.clear()
    heads = fit_l1_logistic(X.float(), y, C=0.7, n_classes=2)
    assert seen == {torch.float64}
    assert_allclose(heads.coef, exact.coef, atol=5e-3)


# --------------------------------------------------------------------------------------
# A penalty around another head


@fidelity
def test_center_of_one_feature_by_hand():
    # As above: |w - w0| + 2 C log(1 + exp(-w)). From w0 the loss falls by 2 C / (1 + exp(w0)):
    # up to 1 the head stays, and beyond it ends at log(2 C - 1) again.
    X, y = torch.tensor([[-1.0], [1.0]], dtype=torch.float64), torch.tensor([0, 1])
    for w0, expected in [(0.5, np.log(5.0)), (1.7, 1.7), (3.0, 3.0), (-1.0, np.log(5.0))]:
        center = torch.tensor([[w0]], dtype=torch.float64)
        heads = fit_l1_logistic(X, y, C=3.0, n_classes=2, center=center, tol=1e-10)
        assert_allclose(heads.coef.item(), expected, rtol=1e-8)
    # L2: w - w0 = 2 C / (1 + exp(w)); with w = 2 and C = 1 this is w0 = 2 - 2 / (1 + exp(2)).
    center = torch.tensor([[2 - 2 / (1 + np.exp(2))]])
    heads = fit_l1_logistic(X, y, C=1.0, n_classes=2, penalty="l2", center=center, tol=1e-10)
    assert_allclose(heads.coef.item(), 2.0, rtol=1e-8)


@fidelity
@pytest.mark.parametrize("penalty", ["l1", "l2"])
@pytest.mark.parametrize("n_classes", [2, 3])
def test_no_head_near_by_has_a_lower_objective_around_a_center(penalty, n_classes):
    X, y = _data(n_classes)
    rng = np.random.default_rng(0)
    W0 = rng.normal(size=(1 if n_classes == 2 else 3, X.shape[1]))
    settings = {"C": 0.3, "n_classes": n_classes, "penalty": penalty, "tol": 1e-9}
    heads = fit_l1_logistic(X, y, center=torch.from_numpy(W0), **settings)
    W, b = heads.coef[0].numpy(), heads.intercept[0].numpy()

    def objective(W, b):
        loss = _reference_objective(W, b, X, y, 0.3) - np.abs(W).sum()
        distance = W - W0
        return loss + (np.abs(distance).sum() if penalty == "l1" else 0.5 * (distance**2).sum())

    best = objective(W, b)
    for _ in range(20):
        step = 1e-2 * rng.normal(size=W.shape) * (rng.random(W.shape) < 0.3)
        assert objective(W + step, b + 1e-2 * rng.normal(size=b.shape)) > best
    if penalty == "l1":
        assert (W == W0).any()
        assert (W != W0).any()
    weak = fit_l1_logistic(X, y, center=torch.from_numpy(W0), **settings | {"C": 1e-6})
    assert_allclose(weak.coef[0], W0, atol=1e-4)
    plain = fit_l1_logistic(X, y, **settings)
    zero = fit_l1_logistic(X, y, center=torch.zeros(W0.shape), **settings)
    assert_allclose(zero.coef, plain.coef, atol=1e-7)
    warm = fit_l1_logistic(
        X, y, center=torch.from_numpy(W0), start=heads, **settings | {"tol": 1e-8}
    )
    assert warm.n_iter.item() == 0
    assert_allclose(warm.coef, heads.coef)


def test_every_head_may_have_a_center_of_its_own():
    X, y = _data()
    centers = torch.from_numpy(np.random.default_rng(0).normal(size=(2, 1, X.shape[1])))
    C = torch.tensor([0.2, 0.5])
    both = fit_l1_logistic(X, y, C=C, n_classes=2, center=centers, tol=1e-8)
    for i in range(2):
        one = fit_l1_logistic(X, y, C=C[i].item(), n_classes=2, center=centers[i], tol=1e-8)
        assert_allclose(both.coef[i], one.coef[0], atol=1e-5)


# --------------------------------------------------------------------------------------
# Errors


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"C": 0.0}, "C must be one positive number"),
        ({"center": torch.zeros(2, 12)}, r"center must have shape \(1, 12\) or \(1, 1, 12\)"),
        ({"center": torch.zeros(12)}, r"center must have shape \(1, 12\)"),
        ({"C": torch.tensor([1.0, -1.0])}, "C must be one positive number"),
        ({"penalty": "l0"}, "penalty must be 'l1' or 'l2'; got 'l0'"),
        ({"sample_weight": torch.ones(2, 5)}, r"sample_weight must have shape \(n_heads, 80\)"),
        ({"sample_weight": torch.ones(3, 80), "C": torch.ones(2)}, "C has 2 values"),
        ({"y": torch.zeros(80, dtype=torch.int64)}, "at least two classes"),
        ({"y": torch.zeros(7, dtype=torch.int64)}, "X must have shape"),
    ],
)
def test_what_does_not_fit_is_an_error(change, message):
    X, y = _data()
    arguments = {"y": y, "C": 1.0, "n_classes": 2} | change
    with pytest.raises(ValueError, match=message):
        fit_l1_logistic(X, arguments.pop("y"), **arguments)
