"""Pictures of groups and of training, a test for shortcuts, and a report in one HTML file."""

from skspurious.inspection._accuracy import GroupAccuracyDisplay
from skspurious.inspection._gallery import GroupGalleryDisplay
from skspurious.inspection._history import HistoryDisplay
from skspurious.inspection._report import write_report
from skspurious.inspection._shortcut_result import ShortcutTest
from skspurious.inspection._shortcut_test import shortcut_test

__all__ = [
    "GroupAccuracyDisplay",
    "GroupGalleryDisplay",
    "HistoryDisplay",
    "ShortcutTest",
    "shortcut_test",
    "write_report",
]
