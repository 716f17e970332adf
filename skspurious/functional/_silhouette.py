"""Silhouettes that scale: exact by chunks, exact on a line, and cluster-stratified samples."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from skspurious.functional._arguments import array, takes
from skspurious.functional._arguments import partitions as partition_codes
from skspurious.functional._rows import find_line

__all__ = [
    "SilhouetteScore",
    "mean_silhouettes",
    "score_partitions",
    "silhouette_samples",
    "silhouette_samples_1d",
    "stratified_silhouette",
]

# "auto" is exact up to this many distances and multiplications (about a second on one core).
_MAX_DISTANCES = {"cpu": 4e7, "cuda": 4e10}
_MAX_PRODUCTS = {"cpu": 2e10, "cuda": 2e13}


class SilhouetteScore(NamedTuple):
    """Silhouette of one partition: over samples, over clusters, and how precisely it is known.

    Attributes
    ----------
    mean : float
        Mean over the samples, dominated by large clusters.
    macro : float
        Mean over the clusters of the cluster's mean; every cluster counts the same.
    mean_error : float
        Standard error of `mean`; 0 when it is exact.
    cluster_mean : ndarray of shape (n_clusters,)
        Mean of every cluster.
    """

    mean: float
    macro: float
    mean_error: float
    cluster_mean: np.ndarray


def silhouette_samples(
    X: np.ndarray,
    labels: np.ndarray,
    *,
    sample_count: np.ndarray | None = None,
    chunk_elements: int = 2**21,
    device: str = "cpu",
) -> np.ndarray:
    """Exact silhouette of every sample, in chunks of rows.

    A sample with mean distance a to the other members of its cluster and least mean distance b
    to the members of another cluster has silhouette (b - a) / max(a, b); the only member of a
    cluster has 0 [1]_.

    Parameters
    ----------
    X : ndarray of shape (n_samples, n_features)
        The rows.
    labels : ndarray of shape (n_samples,) or (n_partitions, n_samples)
        Cluster of every row, ids 0..k-1. Several partitions share one pass over the distances.
    sample_count : ndarray of shape (n_samples,), default=None
        How often each row counts; None is once.
    chunk_elements : int, default=2**21
        Largest number of distances held at a time.
    device : str, default="cpu"
        Torch device that computes the distances.

    Returns
    -------
    silhouette : ndarray of the shape of `labels`, float64

    References
    ----------
    .. [1] P. J. Rousseeuw. "Silhouettes: A graphical aid to the interpretation and validation of
       cluster analysis." Journal of Computational and Applied Mathematics 20, 1987.

    Examples
    --------
    >>> X = np.array([[0.0], [1.0], [5.0], [6.0]])
    >>> silhouette_samples(X, np.array([0, 0, 1, 1])).round(3)
    array([0.818, 0.778, 0.778, 0.818])
    """
    partitions = np.atleast_2d(labels)
    count = _check_count(sample_count, len(X))
    members = [_membership(label, count) for label in partitions]
    X = X.astype(np.float64)
    X = X - X.mean(axis=0)
    stacked = _distance_sums(X, np.concatenate(members, axis=1), chunk_elements, device)
    sums = np.split(stacked, np.cumsum([m.shape[1] for m in members])[:-1], axis=1)
    result = [_coefficients(s, label, m) for s, label, m in zip(sums, partitions, members)]
    return np.stack(result).reshape(np.shape(labels))


def silhouette_samples_1d(
    position: np.ndarray, labels: np.ndarray, *, sample_count: np.ndarray | None = None
) -> np.ndarray:
    """Exact silhouette of every number, in O(n log n + n k).

    With the numbers in order, the distances to a cluster sum up to running counts and running
    sums of that cluster.

    Parameters
    ----------
    position : ndarray of shape (n_samples,)
        The numbers.
    labels : ndarray of shape (n_samples,) or (n_partitions, n_samples)
        Cluster of every number, ids 0..k-1.
    sample_count : ndarray of shape (n_samples,), default=None
        How often each number counts; None is once.

    Returns
    -------
    silhouette : ndarray of the shape of `labels`, float64

    Examples
    --------
    >>> silhouette_samples_1d(np.array([0.0, 1.0, 5.0, 6.0]), np.array([0, 0, 1, 1])).round(3)
    array([0.818, 0.778, 0.778, 0.818])
    """
    order = np.argsort(position, kind="stable")
    x = position[order].astype(np.float64)
    x = x - x.mean()
    count = _check_count(sample_count, len(x))
    result = np.empty(np.atleast_2d(labels).shape)
    for row, label in zip(result, np.atleast_2d(labels)):
        member = _membership(label, count)[order]
        n_below, sum_below = member.cumsum(axis=0), (member * x[:, None]).cumsum(axis=0)
        sums = x[:, None] * (2.0 * n_below - n_below[-1]) + sum_below[-1] - 2.0 * sum_below
        row[order] = _coefficients(sums, label[order], member)
    return result.reshape(np.shape(labels))


def stratified_silhouette(
    X: np.ndarray,
    labels: np.ndarray,
    *,
    sample_count: np.ndarray | None = None,
    n_per_cluster: int = 200,
    random_state: int = 0,
) -> SilhouetteScore:
    """Silhouette estimated from a sample of every cluster.

    Of each cluster the same number of members (all, where there are fewer) serve both as the
    samples whose silhouette is taken and as the members that distances are averaged over; the
    clusters' means are then weighted by the clusters' true sizes. A uniform sample would lose
    the tiny clusters, which are the ones that matter here.

    Parameters
    ----------
    X : ndarray of shape (n_samples, n_features)
        The rows.
    labels : ndarray of shape (n_samples,)
        Cluster of every row, ids 0..k-1.
    sample_count : ndarray of shape (n_samples,), default=None
        How often each row counts; None is once.
    n_per_cluster : int, default=200
        Members drawn of every cluster, at least 2. The result is exact when no cluster is larger.
    random_state : int, default=0
        Seed. The same seed prefers the same rows whatever the partition, so partitions are
        compared on the same samples as far as possible.

    Returns
    -------
    score : SilhouetteScore

    Raises
    ------
    ValueError
        If ``n_per_cluster`` is below 2, or there is one cluster.

    Examples
    --------
    >>> X = np.array([[0.0], [1.0], [5.0], [6.0]])
    >>> round(stratified_silhouette(X, np.array([0, 0, 1, 1])).mean, 3)
    0.798
    """
    if n_per_cluster < 2:
        raise ValueError(f"n_per_cluster={n_per_cluster}: distances need at least 2.")
    drawn = _draw_per_cluster(labels, sample_count, n_per_cluster, random_state)
    sample = silhouette_samples(X[drawn], labels[drawn])
    size = np.bincount(labels, weights=sample_count)
    return _summarize_sample(sample, labels[drawn], size)


@takes(X=array(2), partitions=partition_codes)
def score_partitions(
    X: np.ndarray,
    partitions: Sequence[np.ndarray],
    *,
    method: str = "auto",
    sample_count: np.ndarray | None = None,
    n_per_cluster: int = 200,
    random_state: int = 0,
    device: str = "cpu",
) -> list[SilhouetteScore]:
    """Silhouette of several partitions of the same rows.

    Parameters
    ----------
    X : ndarray of shape (n_samples, n_features)
        The rows.
    partitions : sequence of ndarray of shape (n_samples,)
        Cluster of every row, ids 0..k-1 with k > 1, in each partition.
    method : {"auto", "exact", "stratified"}, default="auto"
        "exact" compares all pairs of rows, "stratified" a sample of every cluster. "auto" is exact
        where the rows lie on a line or are few enough, and stratified otherwise.
    sample_count : ndarray of shape (n_samples,), default=None
        How often each row counts; None is once.
    n_per_cluster : int, default=200
        Members of every cluster in the stratified sample.
    random_state : int, default=0
        Seed of the stratified sample.
    device : str, default="cpu"
        Torch device of the exact distances.

    Returns
    -------
    scores : list of SilhouetteScore, one for each partition

    Raises
    ------
    ValueError
        If ``method`` is unknown, or a partition has one cluster.

    Examples
    --------
    >>> X = np.array([[0.0], [1.0], [5.0], [6.0]])
    >>> a, b = score_partitions(X, [np.array([0, 0, 1, 1]), np.array([0, 1, 1, 1])])
    >>> a.mean > b.mean
    True
    """
    if method not in ("auto", "exact", "stratified"):
        raise ValueError(f"method={method!r}: use 'auto', 'exact' or 'stratified'.")
    if not partitions:
        return []
    if any(len(label) != len(X) for label in partitions):
        raise ValueError(f"partitions must have {len(X)} entries each, one for each row of X.")
    position = None if method == "stratified" else find_line(X)
    if position is not None:
        labels = np.stack(partitions)
        samples = silhouette_samples_1d(position, labels, sample_count=sample_count)
    elif method == "exact" or (method == "auto" and _is_affordable(X, device)):
        labels = np.stack(partitions)
        samples = silhouette_samples(X, labels, sample_count=sample_count, device=device)
    else:
        return [
            stratified_silhouette(
                X,
                label,
                sample_count=sample_count,
                n_per_cluster=n_per_cluster,
                random_state=random_state,
            )
            for label in partitions
        ]
    count = _check_count(sample_count, len(X))
    return [_summarize_exact(sample, label, count) for sample, label in zip(samples, labels)]


def mean_silhouettes(
    X: np.ndarray,
    partitions: Sequence[np.ndarray],
    part: np.ndarray,
    *,
    method: str = "auto",
    sample_count: np.ndarray | None = None,
    n_per_cluster: int = 200,
    random_state: int = 0,
    device: str = "cpu",
) -> np.ndarray:
    """Mean silhouette of the samples of every part, in several partitions.

    Parameters
    ----------
    X : ndarray of shape (n_samples, n_features)
        The rows.
    partitions : sequence of ndarray of shape (n_samples,)
        Cluster of every row, ids 0..k-1 with k > 1, in each partition.
    part : ndarray of shape (n_samples,)
        Part of every row, ids 0..n_parts-1; each lies in one cluster of each partition.
    method : {"auto", "exact", "stratified"}, default="auto"
        As in :func:`score_partitions`. "stratified" takes a sample of every part, whose members
        stand for as many as there are.
    sample_count : ndarray of shape (n_samples,), default=None
        How often each row counts; None is once.
    n_per_cluster : int, default=200
        Members of every part in the stratified sample.
    random_state : int, default=0
        Seed of the stratified sample.
    device : str, default="cpu"
        Torch device of the exact distances.

    Returns
    -------
    silhouette : ndarray of shape (n_partitions, n_parts), float64

    Examples
    --------
    >>> X = np.array([[0.0], [1.0], [5.0], [6.0]])
    >>> mean_silhouettes(X, [np.array([0, 0, 1, 1])], np.array([0, 0, 1, 2])).round(3)
    array([[0.798, 0.778, 0.818]])
    """
    labels, count = np.stack(partitions), _check_count(sample_count, len(X))
    position = None if method == "stratified" else find_line(X)
    if position is not None:
        sample = silhouette_samples_1d(position, labels, sample_count=sample_count)
    elif method == "exact" or (method == "auto" and _is_affordable(X, device)):
        sample = silhouette_samples(X, labels, sample_count=sample_count, device=device)
    else:
        drawn = _draw_per_cluster(part, count, n_per_cluster, random_state)
        size = np.bincount(part, weights=count)
        X, labels, part = X[drawn].astype(np.float64), labels[:, drawn], part[drawn]
        count = (size / np.bincount(part))[part]
        X = X - X.mean(axis=0)
        members = [_membership(label, count) for label in labels]
        stacked = _distance_sums(X, np.concatenate(members, axis=1), 2**21, device)
        sums = np.split(stacked, np.cumsum([m.shape[1] for m in members])[:-1], axis=1)
        sample = np.stack(
            [_coefficients(s, label, m, count) for s, label, m in zip(sums, labels, members)]
        )
    total = np.bincount(part, weights=count)
    return np.stack([np.bincount(part, weights=s * count) / total for s in sample])


# ------------------------------------------------------------------------- helpers


def _is_affordable(X: np.ndarray, device: str) -> bool:
    """Whether exact silhouettes take about a second at most."""
    kind = torch.device(device).type
    n_pairs = float(len(X)) ** 2
    return n_pairs <= _MAX_DISTANCES.get(kind, _MAX_DISTANCES["cpu"]) and n_pairs * X.shape[
        1
    ] <= _MAX_PRODUCTS.get(kind, _MAX_PRODUCTS["cpu"])


def _draw_per_cluster(
    labels: np.ndarray, sample_count: np.ndarray | None, n_per_cluster: int, random_state: int
) -> np.ndarray:
    """Rows drawn of every cluster: so many, or all where there are fewer."""
    row = None
    if sample_count is not None and sample_count.max() > 1:
        row = np.repeat(np.arange(len(labels)), np.asarray(sample_count, dtype=np.int64))
        labels = labels[row]
    size = np.bincount(labels)
    key = np.random.default_rng(random_state).random(len(labels))
    order = np.lexsort((key, labels))
    rank = np.arange(len(labels)) - np.repeat(np.cumsum(size) - size, size)
    drawn = order[rank < n_per_cluster]
    return drawn if row is None else row[drawn]


def _check_count(sample_count: np.ndarray | None, n_samples: int) -> np.ndarray:
    """Multiplicity of every row as float64."""
    if sample_count is None:
        return np.ones(n_samples)
    if len(sample_count) != n_samples:
        raise ValueError(
            f"sample_count has {len(sample_count)} entries for {n_samples} rows: give one a row."
        )
    return np.asarray(sample_count, dtype=np.float64)


def _membership(label: np.ndarray, count: np.ndarray) -> np.ndarray:
    """Matrix (n_samples, n_clusters) with the row's count in the column of its cluster."""
    n_clusters = int(label.max()) + 1
    if n_clusters < 2:
        raise ValueError("labels has 1 cluster: a silhouette needs at least 2.")
    member = np.zeros((len(label), n_clusters))
    member[np.arange(len(label)), label] = count
    return member


def _distance_sums(
    X: np.ndarray, member: np.ndarray, chunk_elements: int, device: str
) -> np.ndarray:
    """Sum of the distances of every row to the members of every column of `member`."""
    rows = torch.from_numpy(np.ascontiguousarray(X)).to(device)
    columns = torch.from_numpy(member).to(device)
    norm = (rows * rows).sum(dim=1)
    sums = torch.empty_like(columns)
    step = max(1, chunk_elements // len(rows))
    for start in range(0, len(rows), step):
        part = rows[start : start + step]
        distance = torch.addmm(norm, part, rows.T, alpha=-2.0)
        distance += norm[start : start + step, None]
        distance.clamp_(min=0.0).sqrt_()
        distance[:, start:].fill_diagonal_(0.0)  # exactly, where rounding leaves a trace
        sums[start : start + step] = distance @ columns
    return sums.cpu().numpy()


def _coefficients(
    sums: np.ndarray, label: np.ndarray, member: np.ndarray, own: np.ndarray | float = 1.0
) -> np.ndarray:
    """Silhouettes from the sums of distances to every cluster, in which a sample counts `own`."""
    size = member.sum(axis=0)
    row = np.arange(len(label))
    own_size = size[label]
    with np.errstate(divide="ignore", invalid="ignore"):
        a = sums[row, label] / (own_size - own)
        mean = np.where(size > 0.0, sums / size, np.inf)
        mean[row, label] = np.inf
        b = mean.min(axis=1)
        silhouette = (b - a) / np.maximum(a, b)
    silhouette[(own_size <= own) | ~np.isfinite(silhouette)] = 0.0
    return silhouette


def _summarize_exact(sample: np.ndarray, label: np.ndarray, count: np.ndarray) -> SilhouetteScore:
    """Score from the silhouettes of all samples."""
    size = np.bincount(label, weights=count)
    total = np.bincount(label, weights=sample * count)
    cluster_mean = total / np.maximum(size, 1.0)
    macro = float(cluster_mean[size > 0.0].mean())
    return SilhouetteScore(float(total.sum() / size.sum()), macro, 0.0, cluster_mean)


def _summarize_sample(sample: np.ndarray, label: np.ndarray, size: np.ndarray) -> SilhouetteScore:
    """Score from the silhouettes of a sample of every cluster, weighted by the true sizes."""
    drawn = np.maximum(np.bincount(label, minlength=len(size)), 1)
    cluster_mean = np.bincount(label, weights=sample, minlength=len(size)) / drawn
    deviation = (sample - cluster_mean[label]) ** 2
    variance = np.bincount(label, weights=deviation, minlength=len(size)) / np.maximum(drawn - 1, 1)
    missed = 1.0 - drawn / np.maximum(size, 1)  # 0 where every member was drawn
    share = size / size.sum()
    error = float(np.sqrt((share**2 * variance / drawn * missed).sum()))
    macro = float(cluster_mean[size > 0].mean())
    return SilhouetteScore(float(share @ cluster_mean), macro, error, cluster_mean)
