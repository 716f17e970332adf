"""with_view_groups: samples that carry the groups which a view finds, to score and split by."""

from skspurious.data import GroupedData, unpack_groups
from skspurious.group_inference import ViewJury
from skspurious.metrics._scored_groups import fit_best_view

__all__ = ["with_view_groups"]


def with_view_groups(X, y, jury=None):
    """Samples that carry groups by the view which knows most of the class.

    A search on what this returns scores by these groups, and splits by them::

        X = with_view_groups(X, y)
        search = GridSearchCV(clf, grid, scoring=worst_group_scorer, cv=EveryGroupKFold(4))
        search.fit(X, y)

    What the view says of a sample comes from a model that has not seen it, so that groups of
    held-out samples are no fit to their own labels, and no candidate's errors are in them.

    .. versionadded:: 0.1

    Parameters
    ----------
    X : samples of any kind, or GroupedData
        Groups that ``X`` carries are ignored.
    y : array-like of shape (n_samples,)
        Class labels.
    jury : ViewJury, default=None
        Whose views are tried, each by itself; its clean sample is not. None takes the standard
        views for this kind of samples. Views of your own, one at the best, are better:
        ``ViewJury({"border": MaskCenter()}, extractor=...)``.

    Returns
    -------
    X : GroupedData
        The samples, with the groups of the best view, and that view as their inferrer. A
        classifier without an inferrer of its own that uses groups is fitted with these.

    Raises
    ------
    ValueError
        If there are no standard views for this kind of samples, or lengths differ.

    See Also
    --------
    skspurious.metrics.make_worst_group_scorer : Does the same, fold by fold, where X carries none.
    EveryGroupKFold : Keeps every group in every fold.
    selection_trust : Whether the search chose by the right thing.

    Notes
    -----
    For retraining take all views: ``ViewJury().fit_transform(X, y)``. Candidates that use those
    groups are pipelines or have ``group_inferrer=ViewJury()``, whose groups come before carried
    ones in training, while the scorer keeps to the carried.

    Examples
    --------
    >>> import numpy as np
    >>> from skspurious.group_inference import ViewJury
    >>> from skspurious.model_selection import with_view_groups
    >>> rng = np.random.default_rng(0)
    >>> y = np.repeat([0, 1], 100)
    >>> sand = np.where(rng.random(200) < 0.9, y, 1 - y)       # goes with the class
    >>> X = np.stack([y + rng.normal(size=200), sand + 0.1 * rng.normal(size=200)], axis=1)
    >>> carried = with_view_groups(X, y, ViewJury({"ground": [1], "other": [0]}))
    >>> np.array_equal(carried.sample_group % 2 == 1, sand != y)
    True
    """
    view = fit_best_view(ViewJury(random_state=0) if jury is None else jury, X, y)
    return GroupedData(unpack_groups(X)[0], view.labels_, group_inferrer=view)
