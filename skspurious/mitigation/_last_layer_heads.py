"""The heads of deep feature reweighting: balanced parts of the rows, and the choice of C."""

import numpy as np
import pandas as pd
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.class_weight import compute_sample_weight

from skspurious._training import identity_of, remembered
from skspurious.functional._l1_logistic import LogisticHeads, fit_l1_logistic
from skspurious.functional._metrics import group_means
from skspurious.functional._split import balanced_subset, stratified_split
from skspurious.utils._warnings import warn

_CHUNK = 2**16  # rows that are standardised at a time
# Inverse strengths of each penalty; those of L1 are the paper's.
_GRIDS = {
    "l1": (1.0, 0.7, 0.3, 0.1, 0.07, 0.03, 0.01),
    "l2": (1.0, 0.1, 0.03, 0.01, 0.003, 0.001, 0.0003, 0.0001),
}
# Put in front where a balanced draw has more samples than features, but so few that their losses
# do not add up to much: less than the grids are made for.
_WEAKER, _MANY_SAMPLES = (100.0, 10.0), 500
_FEW_SAMPLES = 20  # of the smallest group
# Numbers of an embedding on which the heads of all draws are fitted together.
_FEW_NUMBERS = {"cpu": 2**16, "cuda": 2**24}
_MOST = 0.5  # of the rows in a part, from which on they are fitted together too


class HeadData:
    """Embeddings with labels, groups, and the cells that are balanced.

    Parameters
    ----------
    Z : tensor of shape (n_samples, n_embedding)
        Embeddings.
    samples : LabelledSamples
        Their labels, groups and weights.
    scaler : StandardScaler
        Fitted on the embeddings of the head.
    """

    def __init__(self, Z, samples, scaler):
        self.Z = Z.cpu() if Z.device.type == "mps" else Z  # MPS has no float64
        self.mean, self.scale = (self.Z.new_tensor(v) for v in (scaler.mean_, scaler.scale_))
        self.y = samples.y.cpu().numpy()
        self.group, self.n_groups = samples.group.cpu().numpy(), samples.n_groups
        # Groups inside classes: no draw misses a class.
        self.cell = np.unique(self.y * self.n_groups + self.group, return_inverse=True)[1]
        self.weight = np.ones(len(self.y))
        if samples.weight is not None:
            weight = samples.weight.cpu().double().numpy()
            self.weight = weight / max(weight.mean(), 1e-12)  # their scale would act like C

    def __len__(self):
        return len(self.y)

    def standardise(self, rows):
        """Standardised embeddings of some rows."""
        Z = self.Z.index_select(0, torch.as_tensor(rows, device=self.Z.device))  # a copy
        return Z.sub_(self.mean).div_(self.scale)

    def hits(self, heads):
        """Which samples each head predicts right, (n_heads, n_samples)."""
        parts = np.split(np.arange(len(self)), np.arange(_CHUNK, len(self), _CHUNK))
        return np.concatenate([self._hits(heads, rows) for rows in parts], axis=1)

    def _hits(self, heads, rows):
        Z = self.standardise(rows)
        logits = torch.einsum("nd,hkd->hnk", Z, heads.coef.to(Z)) + heads.intercept[:, None]
        predicted = (logits[..., 0] > 0).long() if logits.shape[2] == 1 else logits.argmax(2)
        return predicted.cpu().numpy() == self.y[rows]


class HeadSearch:
    """Choose C on random halvings, and average the heads of balanced draws.

    Parameters
    ----------
    estimator : LastLayerRetrainer
        Gives the parameters.
    classes : ndarray
        Class labels.
    data : HeadData
        What the heads are fitted on.
    scorer : HeadData or None
        What they are judged on; None judges on the other half of ``data``.
    runtime : Runtime
    center : tensor of shape (n_rows, n_embedding) or None
        The head for standardised embeddings to which the penalty pulls; None is zero.
    """

    def __init__(self, estimator, classes, data, scorer, runtime, center=None):
        self.estimator, self.data, self.scorer = estimator, data, scorer
        self.n_classes, self.center = len(classes), center
        self.class_weight = _weight_of_codes(estimator.class_weight, classes)
        sizes = np.bincount(data.cell)
        self.smallest, self.n_cells = sizes.min(), len(sizes)
        self.penalty = estimator.penalty
        if self.penalty == "auto":
            is_small = estimator.module is None and self.smallest < _FEW_SAMPLES
            self.penalty = "l2" if is_small else "l1"
        self.runtime = runtime
        if estimator.checkpoint_dir is not None:  # of all that the heads of a path have in common
            self.identity = identity_of(estimator, data.Z, data.y, data.mean, data.scale, center)

    def fit(self, seed):
        """Learned attributes, the head for standardised embeddings."""
        estimator, data = self.estimator, self.data
        tuning_rng, draw_rng = (np.random.default_rng([seed, i]) for i in range(2))
        C, tuning = estimator.C, pd.DataFrame()
        if C is None:
            tuning = self._tune(tuning_rng)
            C = float(tuning["C"][tuning["worst_group_accuracy"].to_numpy().argmax()])
        is_even = len(np.unique(np.bincount(data.cell))) == 1  # all draws would be the same
        n_heads = 1 if is_even or estimator.balance == "weights" else estimator.n_draws
        rows = np.arange(len(data))
        (heads,) = self._path([self._balanced(rows, draw_rng) for _ in range(n_heads)], [C])
        n_bad = int((heads.violation > estimator.tol).sum())
        if n_bad:
            warn(
                f"{n_bad} of {n_heads} heads did not reach tol={estimator.tol} in "
                f"max_iter={estimator.max_iter} iterations. Raise one of them.",
                ConvergenceWarning,
            )
        return {
            "penalty_": self.penalty,
            "C_": float(C),
            "tuning_": tuning,
            "n_iter_": max(1, int(heads.n_iter.max())),
            "coef_": heads.coef.mean(0).cpu().numpy(),
            "intercept_": heads.intercept.mean(0).cpu().numpy(),
        }

    # ----------------------------------------------------------------------------------
    # Balance

    def _balanced(self, rows, rng):
        """A balanced part: some of the rows, and the weight of each."""
        cell = self.data.cell[rows]
        if self.estimator.balance == "draws":
            rows = rows[balanced_subset(cell, rng)]
            weight = np.ones(len(rows))
        else:  # the share of draws that have the row: every group weighs what the smallest does
            sizes = np.bincount(cell)
            weight = sizes[sizes > 0].min() / sizes[cell]
        of_class = compute_sample_weight(self.class_weight, self.data.y[rows])
        return rows, weight * of_class * self.data.weight[rows]

    # ----------------------------------------------------------------------------------
    # Choice of C

    def _tune(self, rng):
        """A table of heads along the grid."""
        Cs = self.estimator.Cs
        grid = np.asarray(self._grid() if isinstance(Cs, str) else Cs, dtype=np.float64)
        if grid.ndim != 1 or len(grid) == 0 or not (grid > 0).all():
            raise ValueError(f"Cs must be one or more positive numbers; got {Cs!r}.")
        parts, judged = self._split(rng)
        target = self.data if self.scorer is None else self.scorer
        order = np.argsort(grid, kind="stable")
        rows = {}
        for i, heads in zip(order, self._path(parts, grid[order]), strict=True):
            hits = target.hits(heads)
            worst = [
                np.nanmin(group_means(hit[part], target.group[part], target.n_groups))
                for hit, part in zip(hits, judged, strict=True)
            ]
            rows[i] = {
                "C": grid[i],
                "worst_group_accuracy": np.mean(worst),
                "worst_group_accuracy_std": np.std(worst),
                "accuracy": np.mean([h[r].mean() for h, r in zip(hits, judged, strict=True)]),
                "n_nonzero": (heads.coef != 0).sum((1, 2)).double().mean().item(),
            }
        return pd.DataFrame([rows[i] for i in range(len(grid))])

    def _grid(self):
        """The inverse strengths to choose from where none are given."""
        n_balanced = self.smallest * self.n_cells
        is_head = self.estimator.module is None
        is_weaker = is_head and self.data.Z.shape[1] < n_balanced < _MANY_SAMPLES
        return (*(_WEAKER if is_weaker else ()), *_GRIDS[self.penalty])

    def _split(self, rng):
        """For each halving what a head is fitted on, and the rows that it is judged on."""
        parts, judged = [], []
        for _ in range(self.estimator.n_tuning_splits):
            fit_rows = np.arange(len(self.data))
            if self.scorer is not None:
                score_rows = np.arange(len(self.scorer))
            else:
                fit_rows, score_rows = stratified_split(self.data.cell, 0.5, rng)
                if len(score_rows) == 0:
                    raise ValueError(
                        "every group has one sample, so none is left to choose C on. Give C, or "
                        "more samples."
                    )
            parts.append(self._balanced(fit_rows, rng))
            judged.append(score_rows)
        return parts, judged

    # ----------------------------------------------------------------------------------
    # Fit

    def _path(self, parts, Cs):
        """For each of some rising values of C one head on each part."""
        paths, first = [], None
        for rows, batch in self._batches(parts):  # starting from the head of the first part
            weight = np.zeros((len(batch), len(self.data)))
            for head, (of_part, of_rows) in enumerate(batch):
                weight[head, of_part] = of_rows
            paths.append(self._path_on(rows, weight[:, rows], Cs, start=first))
            first = first or LogisticHeads(*(values[:1] for values in paths[0][0]))
        return [
            LogisticHeads(*(torch.cat(values) for values in zip(*heads, strict=True)))
            for heads in zip(*paths, strict=True)
        ]

    def _batches(self, parts):
        """Parts whose heads are fitted together, and the rows that they are fitted on."""
        Z = self.data.Z
        every = np.arange(len(Z))
        if Z.numel() <= _FEW_NUMBERS["cuda" if Z.is_cuda else "cpu"]:
            return [(every, parts)]
        share = np.mean([len(rows) for rows, _ in parts]) / len(Z)
        if len(parts) > 1 and share > _MOST:  # wide products save more than all rows cost
            return [(parts[0][0], parts[:1]), (every, parts[1:])]
        return [(rows, [(rows, weight)]) for rows, weight in parts]

    def _path_on(self, rows, weight, Cs, start=None):
        """The same heads from a checkpoint, or fitted now."""
        if self.estimator.checkpoint_dir is None:
            return self._fit_path(rows, weight, Cs, start)
        parts = [self.identity, rows, weight, Cs, start and tuple(start)]
        path = remembered(
            self.estimator,
            "heads",
            lambda: [tuple(heads) for heads in self._fit_path(rows, weight, Cs, start)],
            parts=parts,
            runtime=self.runtime,
        )
        return [LogisticHeads(*(v.to(self.data.Z.device) for v in heads)) for heads in path]

    def _fit_path(self, rows, weight, Cs, start):
        """The heads of one batch along the values of C, each starting from the one below."""
        Z, y = self.data.standardise(rows), self.data.y[rows]
        path = []
        for C in Cs:
            start = fit_l1_logistic(
                Z,
                torch.as_tensor(y, device=Z.device),
                C=float(C),
                n_classes=self.n_classes,
                sample_weight=torch.as_tensor(weight).to(Z),
                penalty=self.penalty,
                center=self.center,
                start=start,
                tol=self.estimator.tol,
                max_iter=self.estimator.max_iter,
            )
            path.append(start)
        return path


def _weight_of_codes(class_weight, classes):
    """Class weights of codes instead of labels."""
    if not isinstance(class_weight, dict):
        return class_weight
    labels = classes.tolist()
    unknown = [label for label in class_weight if label not in labels]
    if unknown:
        raise ValueError(f"class_weight has the classes {unknown[:5]}, which are not in y.")
    return {code: class_weight.get(label, 1.0) for code, label in enumerate(labels)}
