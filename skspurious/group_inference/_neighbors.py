"""Training rows to look at: the nearest to given ones, and those that stand for a group."""

import numpy as np
from sklearn.utils.validation import check_is_fitted

from skspurious.functional._rows import squared_norm


class NeighborIndex:
    """Nearest training rows, by a flat faiss index that pickles.

    Parameters
    ----------
    X : ndarray of shape (n_samples, n_features)
        The training rows, stored as float32 after centering and scaling.
    """

    def __init__(self, X):
        import faiss

        self.mean = X.mean(axis=0, dtype=np.float64)
        rows = X - self.mean
        self.scale = float(np.sqrt(squared_norm(rows).mean())) or 1.0
        self.index = faiss.IndexFlatL2(X.shape[1])
        self.index.add(np.ascontiguousarray(rows / self.scale, dtype=np.float32))

    def search(self, X, n_neighbors, code, train_code):
        """Distances and positions of the nearest training rows, of the same class if `code`."""
        parts = [(slice(None), None)]
        if code is not None:
            parts = [(code == k, np.flatnonzero(train_code == k)) for k in np.unique(code)]
        available = min(len(train_code if among is None else among) for _, among in parts)
        if not 1 <= n_neighbors <= available:
            raise ValueError(
                f"n_neighbors={n_neighbors} must be between 1 and {available}, the number of "
                f"training samples{'' if code is None else ' of the smallest class asked for'}."
            )
        distance = np.empty((len(X), n_neighbors))
        position = np.empty((len(X), n_neighbors), dtype=np.int64)
        for rows, among in parts:
            distance[rows], position[rows] = self._search(X[rows], n_neighbors, among)
        return distance, position

    def _search(self, X, n_neighbors, among):
        import faiss

        rows = np.ascontiguousarray((X - self.mean) / self.scale, dtype=np.float32)
        params = None
        if among is not None:
            params = faiss.SearchParameters(sel=faiss.IDSelectorBatch(among))
        squared, position = self.index.search(rows, n_neighbors, params=params)
        return np.sqrt(np.maximum(squared, 0.0)) * self.scale, position

    def __getstate__(self):
        rows = self.index.reconstruct_n(0, self.index.ntotal)
        return {"mean": self.mean, "scale": self.scale, "rows": rows}

    def __setstate__(self, state):
        import faiss

        self.mean, self.scale, rows = state["mean"], state["scale"], state["rows"]
        self.index = faiss.IndexFlatL2(rows.shape[1])
        self.index.add(rows)


class TrainingRows:
    """What an inferrer tells of the rows that it was fitted on."""

    def kneighbors(self, X, n_neighbors=5, *, y=None, return_distance=True):
        """Training samples nearest to the given rows.

        Parameters
        ----------
        X : array-like, tensor or GroupedData of shape (n_samples, n_features)
        n_neighbors : int, default=5
            Number of neighbors.
        y : array-like of shape (n_samples,), default=None
            Class labels. Given, neighbors are of the same class.
        return_distance : bool, default=True
            Whether to return the distances as well.

        Returns
        -------
        distance : ndarray of shape (n_samples, n_neighbors), float64
            Euclidean distances, increasing; of normalised rows where ``normalize_``. Only with
            `return_distance`.
        position : ndarray of shape (n_samples, n_neighbors), int64
            Rows of the training data.

        Raises
        ------
        ValueError
            If the inferrer was not fitted with ``store_index=True``, or there are fewer training
            samples than `n_neighbors`.
        """
        check_is_fitted(self)
        if self._index is None:
            raise ValueError("kneighbors needs the training rows: fit with store_index=True.")
        X, code = self._prepare(X, y)
        X = self._represent(X, code)
        train_code = self.method_.group_class_[self.labels_]
        distance, position = self._index.search(X, n_neighbors, code, train_code)
        return (distance, position) if return_distance else position

    def exemplars(self, n_exemplars=5):
        """Training samples nearest to the center of each group, to look at.

        Parameters
        ----------
        n_exemplars : int, default=5
            Samples per group; a smaller group gives all it has.

        Returns
        -------
        positions : list of ndarray
            For each group, rows of the training data, the nearest first.
        """
        check_is_fitted(self)
        order = np.lexsort((self._center_distance, self.labels_))
        ends = np.cumsum(self.cluster_sizes_)
        return [
            order[end - size : end][:n_exemplars] for end, size in zip(ends, self.cluster_sizes_)
        ]
