"""Pictures of groups and of training, and a report in one HTML file."""

from skspurious.inspection._accuracy import GroupAccuracyDisplay
from skspurious.inspection._gallery import GroupGalleryDisplay
from skspurious.inspection._history import HistoryDisplay
from skspurious.inspection._report import write_report

__all__ = [
    "GroupAccuracyDisplay",
    "GroupGalleryDisplay",
    "HistoryDisplay",
    "write_report",
]
