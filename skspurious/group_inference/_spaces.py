"""Where the rows of a class are clustered: themselves, their principal components, or a UMAP.

The first ``n_unreduced`` features stay as they are in front of what the others are reduced to.
"""

import numpy as np
from scipy.linalg import block_diag
from sklearn.decomposition import PCA

from skspurious.functional._clustering import assign_nearest
from skspurious.functional._rows import column_means, row_chunks, squared_norm

_N_NEIGHBORS = 10  # of UMAP; with fewer distinct rows than this there is no manifold to learn


def make_space(rows, count, method, context):
    """The space of the distinct rows of a class, and the rows in it if it reduces them."""
    if method.reduction_ == "umap" and len(rows) > _N_NEIGHBORS:
        space = UmapSpace(rows, method, context.seed)
        return space, space.embedding
    space = LinearSpace(rows, count, method, context.seed)
    return space, None if space.is_identity else space.transform(rows)


class LinearSpace:
    """Centered rows of unit scale, reduced by PCA if asked."""

    def __init__(self, rows, count, method, seed):
        self.dtype = rows.dtype
        self.mean = column_means(rows, count)
        self.components = None
        if method.reduction_ == "pca":
            n_components, n_unreduced = method.n_components_, method.n_unreduced
            reduced = np.concatenate([self._center(rows[p]) for p in row_chunks(*rows.shape)])
            reduced = reduced[:, n_unreduced:]
            if n_components >= 1:
                n_components = min(n_components, int(count.sum()), reduced.shape[1])
            pca = PCA(n_components, random_state=seed)
            pca.fit(reduced if count.max() == 1 else np.repeat(reduced, count, axis=0))
            unreduced = np.eye(n_unreduced, dtype=self.dtype)
            self.components = block_diag(unreduced, pca.components_)
        length = [squared_norm(self._center(rows[p])) for p in row_chunks(*rows.shape)]
        self.scale = np.sqrt(np.average(np.concatenate(length), weights=count)) or 1.0

    @property
    def is_identity(self):
        """Whether distances are those of the rows."""
        return self.components is None

    def _center(self, X):
        work = (X - self.mean).astype(self.dtype, copy=False)
        return work if self.components is None else work @ self.components.T

    def transform(self, X, out=None):
        """Rows in this space, written to `out` if it is given, which may be the rows."""
        if out is None:
            n_features = X.shape[1] if self.components is None else len(self.components)
            out = np.empty((len(X), n_features), dtype=self.dtype)
        for part in row_chunks(*X.shape):
            out[part] = self._center(X[part]) / self.scale
        return out

    def restore(self, centers):
        """Points of this space among the rows as they came in."""
        centers = centers * np.float64(self.scale)
        return (centers if self.components is None else centers @ self.components) + self.mean


class UmapSpace:
    """UMAP of the distinct rows; a new row is put where its nearest training row is.

    UMAP's own transform depends on which rows are transformed together.
    """

    is_identity = False

    def __init__(self, rows, method, seed):
        try:
            from umap import UMAP
        except ImportError as error:
            raise ImportError(
                "reduction='umap' needs umap-learn: pip install 'skspurious[umap]', or use "
                "reduction='pca'."
            ) from error

        self.n_unreduced = method.n_unreduced
        self.rows = rows[:, self.n_unreduced :]
        reducer = UMAP(
            n_components=method.n_components_,
            n_neighbors=_N_NEIGHBORS,
            min_dist=0.0,
            init="spectral" if len(rows) > 10 * method.n_components_ else "random",
            random_state=seed,
            n_jobs=1,
        )
        self.places = reducer.fit_transform(self.rows).astype(np.float64)
        work = self._with_unreduced(rows, self.places)
        self.mean = work.mean(axis=0)
        self.scale = np.sqrt(squared_norm(work - self.mean).mean())
        self.embedding = (work - self.mean) / self.scale

    def _with_unreduced(self, X, places):
        return np.hstack([X[:, : self.n_unreduced], places])

    def transform(self, X):
        """Place of the nearest training row."""
        nearest = assign_nearest(X[:, self.n_unreduced :], self.rows, chunk_size=1024)[0]
        return (self._with_unreduced(X, self.places[nearest]) - self.mean) / self.scale
