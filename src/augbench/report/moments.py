"""Mean and covariance of features that come batch by batch: of millions of images, the features are never together."""

import numpy as np
import torch


class Moments:
    """Of features (n, d), in double precision, on the device on which they come.

    Sums are taken of differences to the mean of the first batch, so that nothing is lost where the mean is large.
    """

    def __init__(self):
        self.count = 0

    def add(self, features, mine: np.ndarray | None = None) -> None:
        """Features (b, d), a tensor or an array, or those of them that are ``mine``, bool (b,)."""
        features = torch.as_tensor(features)
        if mine is not None:
            features = features[torch.from_numpy(mine).to(features.device)]
        features = features.double()
        if not len(features):
            return
        if not self.count:
            width = features.shape[1]
            self.origin = features.mean(0)
            self.sum = torch.zeros_like(self.origin)
            self.products = torch.zeros(width, width, dtype=torch.float64, device=features.device)
        centred = features - self.origin
        self.count += len(features)
        self.sum += centred.sum(0)
        self.products.addmm_(centred.T, centred)

    def mean(self) -> np.ndarray:
        """float64 (d,)"""
        return (self.origin + self.sum / self.count).cpu().numpy()

    def covariance(self) -> np.ndarray:
        """float64 (d, d), of a sample: divided by n - 1"""
        products = self.products - torch.outer(self.sum, self.sum) / self.count
        return (products / (self.count - 1)).cpu().numpy()


def frechet_distance(first: Moments, second: Moments) -> float:
    """Squared Fréchet distance of two Gaussians fitted to features (Heusel et al. 2017).

    ``|mu1 - mu2|^2 + trace(C1 + C2 - 2 (C1 C2)^(1/2))``. It grows as sets get smaller, so compare sets of one
    size. Raises ValueError for fewer than two images.
    """
    if min(first.count, second.count) < 2:
        raise ValueError("a Fréchet distance needs at least two images on each side")
    difference = first.mean() - second.mean()
    one, two = first.covariance(), second.covariance()
    # The eigenvalues of C1 C2 are those of the symmetric C1^(1/2) C2 C1^(1/2), which are real and not negative.
    values, vectors = np.linalg.eigh(one)
    root = (vectors * np.sqrt(values.clip(0))) @ vectors.T
    mixed = np.sqrt(np.linalg.eigvalsh(root @ two @ root).clip(0)).sum()
    return max(0.0, float(difference @ difference + np.trace(one) + np.trace(two) - 2 * mixed))
