"""Exact k-means on a line.

Source: H. Wang and M. Song, "Ckmeans.1d.dp: Optimal k-means Clustering in One Dimension by Dynamic Programming", The R Journal,
2011. We add weights, and fill the table by numpy instead of divide and conquer.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np


def kmeans_1d(points: np.ndarray, mass: np.ndarray, clusters: int) -> np.ndarray:
    """Exact weighted k-means of ascending points on a line: the centres, ascending, float64 `[clusters]`.

    Dynamic programming over the last cluster's first point: cost[c, i] = min over j of cost[c-1, j] + sse(j, i).
    Points without mass cost nothing; with fewer points than clusters, centres repeat.
    """
    count = len(points)
    w = np.concatenate([[0.0], np.cumsum(mass)])
    wx = np.concatenate([[0.0], np.cumsum(mass * points)])
    wxx = np.concatenate([[0.0], np.cumsum(mass * points * points)])
    span_w = np.maximum(w[None, :] - w[:, None], 0)
    span_wx = wx[None, :] - wx[:, None]
    mean_square = np.divide(span_wx**2, span_w, out=np.zeros_like(span_w), where=span_w > 0)
    sse = np.maximum(wxx[None, :] - wxx[:, None] - mean_square, 0)
    sse[np.tril_indices(count + 1, -1)] = np.inf  # [first, last): first <= last
    cost, first = sse[0].copy(), []
    for _ in range(clusters - 1):
        totals = cost[:, None] + sse
        best = totals.argmin(axis=0)
        first.append(best)
        cost = totals[best, np.arange(count + 1)]
    edges, last = [count], count
    for best in reversed(first):
        last = int(best[last])
        edges.append(last)
    bounds = [0, *reversed(edges)]
    centres = []
    for low, high in pairwise(bounds):
        total = w[high] - w[low]
        centres.append((wx[high] - wx[low]) / total if total > 0 else points[min(low, count - 1)])
    return np.sort(np.array(centres))
