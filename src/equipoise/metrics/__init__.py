"""Exact, named numbers: functional here; as torchmetrics classes in :mod:`equipoise.metrics.stateful`."""

from equipoise.metrics._classification import ClassificationScores, classification
from equipoise.metrics._regression import IntervalScores, MultiRegressionScores, interval_coverage, multi_regression
from equipoise.metrics._sanity import implausible
from equipoise.metrics._sentiment import sentiment_regression
from equipoise.metrics._tasks import better, evaluate_metrics, metric_intervals

__all__ = [
    "ClassificationScores",
    "IntervalScores",
    "MultiRegressionScores",
    "better",
    "classification",
    "evaluate_metrics",
    "implausible",
    "interval_coverage",
    "metric_intervals",
    "multi_regression",
    "sentiment_regression",
]
