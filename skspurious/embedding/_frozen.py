"""FrozenNetwork: a network that nothing here trains."""

from skspurious._engine._modules import build_module
from skspurious._preparation import read_unlabelled_input
from skspurious.base import BaseTorchClassifier
from skspurious.utils._random import draw_seed


class FrozenNetwork(BaseTorchClassifier):
    """A network that is not trained, behind the interface of a classifier."""

    def fit(self, X, y=None):
        """Build the network and check X."""
        samples, self._description = read_unlabelled_input(self, X)
        self.module_ = build_module(
            self.module,
            weights=self.weights,
            sample_shape=samples.sample_shape,
            n_classes=None,
            seed=draw_seed(self.random_state),
        ).eval()
        return self
