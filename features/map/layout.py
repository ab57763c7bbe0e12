"""Lay images out on a plane: by principal components, and by t-SNE, which keeps neighbours together."""

import warnings
from collections.abc import Sequence

import numpy as np

#: Neighbours that t-SNE keeps near, about: the perplexity of van der Maaten and Hinton 2008, section 2.
_PERPLEXITY = 30
#: Steps of t-SNE: more change nothing that is seen. Figures: docs/decisions.md.
_STEPS = 500
#: Fewer images have no neighbourhoods to keep: their t-SNE is their principal components.
LEAST_EMBEDDED = 8


def lay_out_linear(features: Sequence[np.ndarray]) -> tuple[np.ndarray, float]:
    """Project images on the plane along which they differ most.

    Args:
        features: per backbone float32 (n, D); each backbone has the same weight.

    Returns:
        float64 (n, 2), and the share of all variance that the plane shows, 0 to 1.
    """
    from sklearn.decomposition import PCA

    centred = [own - own.mean(axis=0) for own in features]
    scaled = np.hstack([own / max(float(np.linalg.norm(own)), 1e-12) for own in centred])
    places = np.zeros((len(scaled), 2))
    if not scaled.any():
        return places, 0.0
    count = min(2, *scaled.shape)
    pca = PCA(count, svd_solver="randomized", random_state=0)
    places[:, :count] = pca.fit_transform(scaled)
    return places, float(pca.explained_variance_ratio_.sum())


def perplexity_of(count: int) -> float:
    """The perplexity of t-SNE of so many images: of few it is smaller."""
    return min(_PERPLEXITY, (count - 1) / 3)


def lay_out_neighbours(points: np.ndarray, start: np.ndarray, seed: int = 0) -> np.ndarray:
    """Lay images out so that those with near points are neighbours; distances between groups mean little.

    Args:
        points: float32 (n, K), unit length.
        start: float64 (n, 2), where they begin: the principal components, so that the whole keeps its order.
        seed: of what is random.

    Returns:
        float64 (n, 2).
    """
    if len(points) < LEAST_EMBEDDED:
        return start
    from sklearn.manifold import TSNE

    scale = start[:, 0].std()
    begin = (start * (1e-4 / scale) if scale > 0 else start).astype(np.float32)
    perplexity = perplexity_of(len(points))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # points that are all equal
        laid = TSNE(2, perplexity=perplexity, init=begin, max_iter=_STEPS, random_state=seed).fit_transform(points)
    return np.asarray(laid, np.float64)
