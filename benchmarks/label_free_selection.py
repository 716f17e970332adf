"""What ranks classifiers by their worst group where no group label is there.

    python benchmarks/label_free_selection.py --data-home ../shared/data --cache FOLDER

Nine sets of training samples: embeddings of Waterbirds, three shortcuts planted in CIFAR-10 at 98
and at 90 % (``defaults.py``), SpuCoMNIST (4,000 images, 98 %), and 6,000 rows of Adult. Pictures
are seen by ``PatchFeatures``. Candidates are 45 linear heads: plain, class-balanced, and balanced
over groups by errors, by k-means, by each of the two best views, by the jury, over known and over
random groups, each with five values of C. Features are standardised and brought to their first
256 principal components (SpuCoMNIST 64), which makes a head a matter of a twentieth of a second.

A search without group labels is run on the training samples: four folds, stratified by class and
jury (and once more, other folds, by class alone). The jury is fitted once, on all of them; its
sides are out of fold. Groups of a candidate by errors and k-means are those of the folds it is
fitted on. The truth is the worst group on test samples of the candidate fitted on all training
samples; it is looked at for the table alone.

Printed are, for every criterion and set, Spearman's correlation with the truth and the regret:
the best candidate's worst group minus that of the chosen one; means over the seeds. A seed draws
the samples, but for Waterbirds, and the folds, the jury's too. What was computed is kept in
FOLDER, a file for each set and seed, and not computed again.
"""

import argparse
import gzip
import time
from pathlib import Path

import defaults
import numpy as np
import pandas as pd
from sklearn.base import clone
from sklearn.cluster import KMeans
from sklearn.compose import make_column_transformer
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.utils.class_weight import compute_sample_weight

from skspurious.data import make_sample_group
from skspurious.datasets import fetch_spuco_mnist
from skspurious.group_inference import ViewJury
from skspurious.model_selection._trust import (
    interval_of,
    rank_correlation,
    resample_within,
    worst_accuracy,
)
from skspurious.views import PatchFeatures

C = (1e-4, 5e-4, 3e-3, 2e-2, 1e-1)
GROUPINGS = ("plain", "class", "errors", "k-means", "view 1", "view 2", "jury", "known", "random")
FOLDS = 4


# Sets: training X for the jury, its features, classes, groups; test features, classes, groups.


def waterbirds(home, seed):
    z = np.load(home / "waterbirds" / "waterbirds_efficientnet_lite0.npz")
    v = np.load(home / "waterbirds" / "waterbirds_views_efficientnet_lite0.npz")
    Z, y = z["q"].astype(np.float32) * z["scale"], z["y"].astype(int)
    group = make_sample_group(y, z["place"].astype(int))
    views = [v[k].astype(np.float32) * v[k + "_scale"] for k in ("mask", "shuffle")]
    train, test = z["split"] == 0, z["split"] == 2
    X = np.hstack([Z, *views])[train]
    d = Z.shape[1]
    jury = ViewJury(
        {"mask": slice(d, 2 * d), "shuffle": slice(2 * d, 3 * d)},
        clean=slice(0, d),
        random_state=seed,
    )
    return (X, Z[train], y[train], group[train]), (Z[test], y[test], group[test]), jury


def corner(X, attribute, rng):
    """A square of four pixels in the lower right corner, darker or as it was."""
    rows = np.flatnonzero(attribute)
    X[rows, :, -4:, -4:] = X[rows, :, -4:, -4:] // 3
    return X


def checks(X, attribute, rng):
    """Every other pixel a little brighter, as on a chessboard, or none."""
    board = np.indices(X.shape[2:]).sum(axis=0) % 2 * 14
    return np.clip(X + attribute[:, None, None, None] * board, 0, 255).astype(np.uint8)


def fade(X, attribute, rng):
    """Brighter by a fifth on the left and darker on the right, or the other way round."""
    ramp = np.linspace(1.2, 0.8, X.shape[3])
    gain = np.stack([ramp, ramp[::-1]])[attribute]
    return np.clip(X * gain[:, None, None, :], 0, 255).astype(np.uint8)


defaults.SHORTCUTS |= {
    "corner": (corner, (4, 7)),
    "checks": (checks, (6, 8)),
    "fade": (fade, (0, 9)),
}


def cifar(name, correlation):
    def load(home, seed):
        make_data = defaults.make_data
        rng = np.random.default_rng(seed)
        folder = home / "cifar10"
        X, y, group = make_data(folder, "train", name, 1000, correlation, rng)
        X_test, y_test, test_group = make_data(folder, "test", name, 1000, 0.5, rng)
        look = PatchFeatures(random_state=seed).fit(X)
        train = (X, look.transform(X), y, group)
        return train, (look.transform(X_test), y_test, test_group), ViewJury(random_state=seed)

    return load


def spuco_mnist(home, seed):
    parts = []
    for split, n in (("train", 4000), ("test", 10000)):
        data = fetch_spuco_mnist(
            home / "mnist", split=split, correlation_strength=0.98, random_state=seed
        )
        rows = np.random.default_rng(seed).permutation(len(data.target))[:n]
        parts.append((data.data[rows], data.target[rows], data.sample_group[rows]))
    (X, y, group), (X_test, y_test, test_group) = parts
    look = PatchFeatures(random_state=seed).fit(X)
    train = (X, look.transform(X), y, group)
    return train, (look.transform(X_test), y_test, test_group), ViewJury(random_state=seed)


def adult(home, seed):
    with gzip.open(home / "tabular" / "adult.csv.gz", "rt") as f:
        data = pd.read_csv(f)
    y = data["income"].str.contains(">50K").to_numpy().astype(int)
    group = make_sample_group(y, data["sex"].to_numpy())
    X = data.drop(columns=["income", "split", "fnlwgt", "education"])
    train = np.flatnonzero(data["split"] == "train")
    train = np.random.default_rng(seed).permutation(train)[:6000]
    test = np.flatnonzero(data["split"] == "test")
    numbers = X.select_dtypes("number").columns
    look = make_column_transformer(
        (StandardScaler(), numbers),
        (OneHotEncoder(handle_unknown="ignore"), X.columns.difference(numbers)),
        sparse_threshold=0,
    ).fit(X.iloc[train])
    Z = look.transform(X.iloc[train])
    return (
        (X.iloc[train], Z, y[train], group[train]),
        (look.transform(X.iloc[test]), y[test], group[test]),
        ViewJury(random_state=seed),
    )


SETS = {
    "Waterbirds": waterbirds,
    **{f"{n} {c:.0%}": cifar(n, c) for n in ("frame", "tint", "line") for c in (0.98, 0.9)},
    "SpuCoMNIST": spuco_mnist,
    "Adult": adult,
}
# Planted after the first tables had been seen.
LATER = {f"{n} {c:.0%}": cifar(n, c) for n in ("corner", "checks", "fade") for c in (0.98, 0.9)}


# Candidates


def head(Z, y, C, strata=None):
    solver = "newton-cholesky" if len(np.unique(y)) == 2 else "lbfgs"
    weight = None if strata is None else compute_sample_weight("balanced", strata)
    return LogisticRegression(C=C, solver=solver, max_iter=300).fit(Z, y, sample_weight=weight)


def margins(model, Z, y):
    """Logit of the own class minus the largest other one."""
    logits = model.decision_function(Z)
    if logits.ndim == 1:
        return np.where(y == 1, logits, -logits)
    rows = np.arange(len(y))
    own = logits[rows, y]
    logits[rows, y] = -np.inf
    return own - logits.max(axis=1)


def sides_by_errors(Z, y, Z_new, y_new, seed):
    """Class and whether a head is right: out of fold in training, and on new samples."""
    wrong = np.empty(len(y), dtype=bool)
    for train, test in StratifiedKFold(5, shuffle=True, random_state=seed).split(Z, y):
        wrong[test] = margins(head(Z[train], y[train], 1e-3, y[train]), Z[test], y[test]) < 0
    new = margins(head(Z, y, 1e-3, y), Z_new, y_new) < 0
    return 2 * y + wrong, 2 * y_new + new


def sides_by_k_means(Z, y, Z_new, y_new, seed):
    side, new = np.zeros(len(y), dtype=int), np.zeros(len(y_new), dtype=int)
    for k in np.unique(y):
        model = KMeans(2, n_init=2, random_state=seed).fit(Z[y == k])
        side[y == k] = model.labels_
        if (y_new == k).any():
            new[y_new == k] = model.predict(Z_new[y_new == k])
    return 2 * y + side, 2 * y_new + new


def fit_and_score(Z, y, strata, rows, new, seed, given_test=None):
    """Margins of all candidates on ``new`` samples, fitted on ``rows``, and their own groups."""
    Z_new, y_new = given_test if given_test is not None else (Z[new], y[new])
    Z_fit, y_fit = Z[rows], y[rows]
    own = {
        "errors": sides_by_errors(Z_fit, y_fit, Z_new, y_new, seed),
        "k-means": sides_by_k_means(Z_fit, y_fit, Z_new, y_new, seed),
    }
    result, groups = [], []
    for name in GROUPINGS:
        if name in own:
            weigh, judge = own[name]
        else:
            weigh = None if name == "plain" else y_fit if name == "class" else strata[name][rows]
            judge = strata[name][new] if name in strata and given_test is None else y_new
            judge = y_new if name == "known" else judge  # the search does not know them
        for c in C:
            result.append(margins(head(Z_fit, y_fit, c, weigh), Z_new, y_new))
            groups.append(judge)
    return np.array(result), np.array(groups), own


def sides(score, y):
    """Class, and whether the score is for another one."""
    return 2 * y + (score.argmax(axis=1) != y)


def judges_of_all(jury, X, Z, y, seed):
    """Groups of the training samples by judges that are asked once, before the search."""
    jury.fit(X, y)
    on_features = ViewJury(random_state=seed).fit(Z, y)
    of_view = {n: sides(v, y) for n, v in zip(jury.view_names_, jury.votes_, strict=True)}
    best = jury.view_scores_["weight"].drop("clean").sort_values(ascending=False).index
    return {
        "jury": sides(jury.score_, y),
        "views": sides(jury.view_score_, y),
        "view 1": of_view[best[0]],
        "view 2": of_view[best[1]],
        "clean sample": of_view["clean"],
        "components": sides(on_features.view_score_, y),
        "components, clean": sides(on_features.score_, y),
    }


def compute(load, home, seed, n_components):
    """All that criteria are made of: margins out of fold, groups by judges, and the truth."""
    start = time.perf_counter()
    (X, Z, y, group), (Z_test, y_test, test_group), jury = load(home, seed)
    judge = judges_of_all(jury, X, Z, y, seed)
    judge |= {"known": group, "classes": y}
    seconds = [time.perf_counter() - start]
    scaler = StandardScaler().fit(Z)
    n_components = min(n_components, Z.shape[1])
    pca = PCA(n_components, svd_solver="randomized", random_state=seed).fit(scaler.transform(Z))
    Z, Z_test = (pca.transform(scaler.transform(z)) for z in (Z, Z_test))
    rng = np.random.default_rng(seed)
    strata = {**judge, "random": 2 * y + rng.integers(0, 2, len(y))}
    found = {"y": y}
    for kind, by in (("jury", judge["jury"]), ("class", y)):
        out = np.empty((len(GROUPINGS) * len(C), len(y)))
        own, fold = np.empty(out.shape, dtype=int), np.empty(len(y), dtype=int)
        names = ("errors", "k-means", "own views")
        new_judges = {n: np.empty(len(y), dtype=int) for n in names}
        folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed).split(Z, by)
        for k, (rows, new) in enumerate(folds):
            out[:, new], own[:, new], inferred = fit_and_score(Z, y, strata, rows, new, seed)
            fold[new] = k
            for name in inferred:
                new_judges[name][new] = inferred[name][1]
            if kind == "jury":
                part = X.iloc[new] if hasattr(X, "iloc") else X[new]
                of_part = clone(jury).fit(part, y[new])
                new_judges["own views"][new] = sides(of_part.view_score_, y[new])
        found |= {f"margin_{kind}": out, f"own_{kind}": own, f"fold_{kind}": fold}
        if kind == "jury":
            judge |= new_judges
    found |= {f"judge_{name}": groups for name, groups in judge.items()}
    every = np.arange(len(y))
    test, _, _ = fit_and_score(Z, y, strata, every, None, seed, given_test=(Z_test, y_test))
    found["truth"] = [worst(m > 0, test_group) for m in test]
    found["mean"] = (test > 0).mean(axis=1)
    found["seconds"] = [*seconds, time.perf_counter() - start]
    return found


def worst(right, group, weight=None):
    """Smallest mean of any group."""
    group = np.unique(group, return_inverse=True)[1]
    weight = np.ones(len(group)) if weight is None else weight
    size = np.bincount(group, weight)
    return np.min((np.bincount(group, weight * right) / np.maximum(size, 1e-12))[size > 0])


# What a candidate may be chosen by

OF_JUDGES = {
    "known": "known groups, for comparison",
    "views": "**views**, found before the search",
    "own views": "**views**, found on each fold's samples alone",
    "jury": "views and the clean sample",
    "view 1": "the view of the largest weight",
    "view 2": "the second",
    "components": "principal components of the features as views",
    "clean sample": "errors of a head, out of fold",
    "errors": "errors of a head fitted on the other folds",
    "k-means": "k-means within the classes",
    "classes": "classes",
}


def by_folds(right, groups, fold, y=None):
    """Mean over folds of the worst group, for every candidate; groups of each may be its own.

    With classes, of the worst group of each class.
    """
    part = fold if y is None else fold * (y.max() + 1) + y
    groups = np.broadcast_to(groups, right.shape)
    return np.array(
        [
            np.mean([worst(r[part == k], g[part == k]) for k in np.unique(part)])
            for r, g in zip(right, groups, strict=True)
        ]
    )


def of_sides(values, groups):
    """Means of every group, (n_candidates, n_groups)."""
    code = np.unique(groups, return_inverse=True)[1]
    return np.stack([np.bincount(code, v) / np.bincount(code) for v in values])


def criteria(z):
    """Score of every candidate, by the name of the criterion."""
    margin, fold, y = z["margin_jury"], z["fold_jury"], z["y"]
    right, again = margin > 0, z["margin_class"] > 0
    judge = {n: z[f"judge_{n}"] for n in OF_JUDGES if f"judge_{n}" in z}
    found = {OF_JUDGES[n]: by_folds(right, groups, fold) for n, groups in judge.items()}
    found["groups of the candidate itself"] = by_folds(right, z["own_jury"], fold)
    view = judge["views"]
    of_class = "worst of each class, mean"
    found[f"**views**, found before the search, {of_class}"] = by_folds(right, view, fold, y)
    found[f"**views**, found on each fold's samples alone, {of_class}"] = by_folds(
        right, judge["own views"], fold, y
    )
    others = by_folds(again, view, z["fold_class"])
    found["**views**, two cross-validations"] = found[OF_JUDGES["views"]] + others
    found["views, folds by class alone"] = others
    found["views, pooled over folds"] = of_sides(right, view).min(axis=1)
    found["views, mean of the groups"] = of_sides(right, view).mean(axis=1)
    found["views, log loss"] = of_sides(-np.logaddexp(0, -margin), view).min(axis=1)
    gap = of_sides(right, view % 2)
    found["views, contrast of the sides"] = gap[:, -1] - gap[:, 0]
    every = [of_sides(right, judge[n]).min(axis=1) for n in judge if n != "known"]
    found["smallest worst group over all of these"] = np.min(every, axis=0)
    found["mean worst group over all of these"] = np.mean(every, axis=0)
    scale = margin / np.abs(margin).mean(axis=1, keepdims=True)
    found["margin, 5 % quantile"] = np.quantile(scale, 0.05, axis=1)
    found["agreement of two cross-validations"] = (right == again).mean(axis=1)
    found["balanced accuracy"] = of_sides(right, y).mean(axis=1)
    found["accuracy"] = right.mean(axis=1)
    return found


def print_tables(cache, names, seeds):
    rows = []
    for name in names:
        for seed in seeds:
            z = dict(np.load(cache / f"{name}_{seed}.npz"))
            truth = z["truth"]
            rows += [
                (
                    name,
                    criterion,
                    rank_correlation(score, truth),
                    truth.max() - truth[np.argmax(score)],
                )
                for criterion, score in criteria(z).items()
            ]
    table = pd.DataFrame(rows, columns=["set", "chosen by worst group of", "rank", "regret"])
    for value, digits in (("rank", 2), ("regret", 3)):
        wide = table.pivot_table(
            index="chosen by worst group of", columns="set", values=value, sort=False
        )
        wide["mean"] = wide.mean(axis=1)
        print(f"\n{value}\n")
        print_markdown(wide.reset_index(), digits)


def print_markdown(table, digits):
    print("| " + " | ".join(table.columns) + " |\n" + "|---" * table.shape[1] + "|")
    for row in table.itertuples(index=False):
        cells = (f"{v:.{digits}f}" if isinstance(v, float) else str(v) for v in row)
        print("| " + " | ".join(cells) + " |")


def print_trust(cache, names, seeds, n_draws=10):
    """Correlations that labels of few samples estimate, and how often intervals hold the truth."""
    rng, rows = np.random.default_rng(0), []
    for name in names:
        for seed in seeds:
            z = dict(np.load(cache / f"{name}_{seed}.npz"))
            right = (z["margin_jury"] > 0).astype(float)
            group = np.unique(z["judge_known"], return_inverse=True)[1]
            for judge in ("views", "classes"):
                score = by_folds(right, z[f"judge_{judge}"], z["fold_jury"])
                truth = rank_correlation(score, z["truth"])
                for n, how in [(n, h) for n in (32, 64, 128, 256) for h in ("random", "half")]:
                    for _ in range(n_draws):
                        some = draw_labels(z, n, how, rng)
                        of, g = right[:, some], np.unique(group[some], return_inverse=True)[1]
                        value = rank_correlation(score, worst_accuracy(of, g))
                        draws = [
                            rank_correlation(score, worst_accuracy(of[:, r], g[r]))
                            for r in resample_within(g, 100, rng)
                        ]
                        low, high = interval_of(value, draws, 0.95)
                        held = low <= truth <= high
                        rows.append((judge, how, n, truth, value, abs(value - truth), held))
    columns = ["scores by", "labelled", "labels", "true", "estimate", "error", "in interval"]
    print()
    print_markdown(pd.DataFrame(rows, columns=columns).groupby(columns[:3]).mean().reset_index(), 2)


def draw_labels(z, n, how, rng):
    """Rows to label: at random, or as many of each class where views are wrong as where right."""
    if how == "random":
        return rng.permutation(len(z["y"]))[:n]
    cells = np.unique(z["judge_views"])
    rows = [np.flatnonzero(z["judge_views"] == c) for c in cells]
    return np.concatenate([rng.permutation(r)[: max(1, n // len(cells))] for r in rows])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-home", type=Path, required=True)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--sets", nargs="+", choices=SETS | LATER, default=list(SETS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--trust", action="store_true", help="what few labels tell of the scores")
    args = parser.parse_args()
    args.cache.mkdir(exist_ok=True)
    for seed in args.seeds:
        for name in args.sets:
            path = args.cache / f"{name}_{seed}.npz"
            if not path.exists():
                n = 64 if name == "SpuCoMNIST" else 256
                found = compute((SETS | LATER)[name], args.data_home, seed, n)
                np.savez_compressed(path, **found)
                print(name, seed, np.round(found["seconds"]), flush=True)
    print_tables(args.cache, args.sets, args.seeds)
    if args.trust:
        print_trust(args.cache, args.sets, args.seeds)


if __name__ == "__main__":
    main()
