"""Scores of a classifier, exactly."""

from __future__ import annotations

import numpy as np

from ..contract.errors import DataError

__all__ = ["auc", "auc_or_none", "why_no_auc"]


def auc(labels: np.ndarray, scores: np.ndarray) -> float:
    """Area under the ROC curve of ``scores`` for 0/1 ``labels``: the probability that a positive scores above a negative,
    ties counting half (Mann-Whitney). Raises :class:`DataError` when one class is missing or a score is NaN."""
    y, s = np.asarray(labels).ravel() > 0.5, np.asarray(scores, np.float64).ravel()
    positives = int(y.sum())
    if len(y) != len(s) or not 0 < positives < len(y):
        raise DataError("labels", positives, f"must hold both classes, one label per score ({len(s)})")
    if np.isnan(s).any():
        raise DataError("scores", "NaN", "must not be NaN")
    _, inverse, counts = np.unique(s, return_inverse=True, return_counts=True)
    rank = np.cumsum(counts) - (counts - 1) / 2  # mean rank of each distinct score, from 1
    return float((rank[inverse][y].sum() - positives * (positives + 1) / 2) / (positives * (len(y) - positives)))


def auc_or_none(labels: np.ndarray, scores: np.ndarray) -> float | None:
    """:func:`auc`, None where it isn't defined: a result has more to say than its AUC."""
    try:
        return auc(labels, scores)
    except DataError:
        return None


def why_no_auc(labels: np.ndarray) -> str:
    """Why :func:`auc_or_none` of ``labels`` is None, in words."""
    one = len(np.unique(np.asarray(labels) > 0.5)) < 2
    return "undefined: the labels are of one class" if one else "undefined: a score is no number"
