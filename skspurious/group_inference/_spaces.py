"""Where the rows of a class are clustered: themselves, their principal components, or a UMAP.

The first ``n_unreduced`` features stay as they are in front of what the others are reduced to.
"""

import numpy as np
from scipy.linalg import block_diag
from sklearn.decomposition import PCA

from skspurious.functional._clustering import assign_nearest
from skspurious.group_inference._base import squared_norm

_N_NEIGHBORS = 10  # of UMAP; with fewer distinct rows than this there is no manifold to learn


def make_space(rows, count, settings):
    """The space of the distinct rows of a class, and the rows in it."""
    if settings.reduction == "umap" and len(rows) > _N_NEIGHBORS:
        space = UmapSpace(rows, settings)
        return space, space.embedding
    space = LinearSpace(rows, count, settings)
    return space, space.transform(rows)


class LinearSpace:
    """Centered rows of unit scale, reduced by PCA if asked."""

    def __init__(self, rows, count, settings):
        self.dtype = rows.dtype
        self.mean = np.average(rows, axis=0, weights=count)
        work = (rows - self.mean).astype(self.dtype, copy=False)
        self.components = None
        if settings.reduction == "pca":
            n_components, n_unreduced = settings.n_components, settings.n_unreduced
            reduced = work[:, n_unreduced:]
            if n_components >= 1:
                n_components = min(n_components, int(count.sum()), reduced.shape[1])
            pca = PCA(n_components, random_state=settings.seed)
            pca.fit(reduced if count.max() == 1 else np.repeat(reduced, count, axis=0))
            unreduced = np.eye(n_unreduced, dtype=self.dtype)
            self.components = block_diag(unreduced, pca.components_)
            work = work @ self.components.T
        self.scale = np.sqrt(np.average(squared_norm(work), weights=count)) or 1.0

    @property
    def is_identity(self):
        """Whether distances are those of the rows."""
        return self.components is None

    def transform(self, X):
        """Rows in this space."""
        work = (X - self.mean).astype(self.dtype, copy=False)
        work = work if self.components is None else work @ self.components.T
        return (work / self.scale).astype(self.dtype, copy=False)

    def restore(self, centers):
        """Points of this space among the rows as they came in."""
        centers = centers * np.float64(self.scale)
        return (centers if self.components is None else centers @ self.components) + self.mean


class UmapSpace:
    """UMAP of the distinct rows; a new row is put where its nearest training row is.

    UMAP's own transform depends on which rows are transformed together.
    """

    is_identity = False

    def __init__(self, rows, settings):
        try:
            from umap import UMAP
        except ImportError as error:
            raise ImportError(
                "reduction='umap' needs umap-learn: pip install 'skspurious[umap]', or use "
                "reduction='pca'."
            ) from error

        self.n_unreduced = settings.n_unreduced
        self.rows = rows[:, self.n_unreduced :]
        reducer = UMAP(
            n_components=settings.n_components,
            n_neighbors=_N_NEIGHBORS,
            min_dist=0.0,
            init="spectral" if len(rows) > 10 * settings.n_components else "random",
            random_state=settings.seed,
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
