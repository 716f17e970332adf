"""Validation, and the one file that touches private scikit-learn names."""
