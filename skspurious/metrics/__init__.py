"""Metrics per group: the worst group, reports with intervals, scorers."""

from skspurious.metrics._accuracy import (
    adjusted_accuracy,
    group_accuracy,
    worst_group_accuracy,
    worst_group_error,
)
from skspurious.metrics._clusters import cluster_robust_accuracy
from skspurious.metrics._group_metric import group_metric, worst_group_metric
from skspurious.metrics._inference import group_inference_report
from skspurious.metrics._report import GroupReport, group_report
from skspurious.metrics._scorer import make_worst_group_scorer, worst_group_scorer
from skspurious.metrics._weights import group_sample_weight
from skspurious.metrics._worst_interval import WorstGroupInterval, worst_group_interval

__all__ = [
    "GroupReport",
    "WorstGroupInterval",
    "adjusted_accuracy",
    "cluster_robust_accuracy",
    "group_accuracy",
    "group_inference_report",
    "group_metric",
    "group_report",
    "group_sample_weight",
    "make_worst_group_scorer",
    "worst_group_accuracy",
    "worst_group_error",
    "worst_group_interval",
    "worst_group_metric",
    "worst_group_scorer",
]
