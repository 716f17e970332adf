"""Pictures of groups and of training, and a report in one HTML file."""

from skspurious.inspection._plots import (
    GroupAccuracyDisplay,
    GroupGalleryDisplay,
    HistoryDisplay,
)
from skspurious.inspection._report import write_report

__all__ = [
    "GroupAccuracyDisplay",
    "GroupGalleryDisplay",
    "HistoryDisplay",
    "write_report",
]
