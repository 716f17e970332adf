"""From any samples to embeddings: the outputs of a network's layer."""

from skspurious.embedding._extractor import TorchFeatureExtractor

__all__ = ["TorchFeatureExtractor"]
