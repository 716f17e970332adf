"""A fitted estimator as one file that runs no code when it is read."""

from skspurious.persistence._load import load_model
from skspurious.persistence._save import save_model

__all__ = ["load_model", "save_model"]
