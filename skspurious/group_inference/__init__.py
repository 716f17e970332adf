"""Groups found without group labels."""

from skspurious.group_inference._inferrer import SpuriousGroupInferrer

__all__ = ["SpuriousGroupInferrer"]
