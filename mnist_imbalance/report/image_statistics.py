"""Statistics over the test images, from which images each trained network gets right."""

import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy
from numpy.typing import NDArray
from scipy import stats

from mnist_imbalance.report.statistics import Estimate

Correct = NDArray[numpy.bool_]  # (seeds, images)


def over_seeds_and_images(
    first: Correct, second: Correct, labels: NDArray[numpy.integer], group: Iterable[int]
) -> Estimate:
    """Return a group's accuracy, first less second, with an interval for new seeds and images.

    The standard error is that of the pigeonhole bootstrap (Owen 2007, Annals of Applied Statistics
    1), which draws seeds and, independently and within each label, images, both with replacement.
    As its statistic is linear in the draws of each, its variance over infinitely many replicates
    is computed, and nothing is drawn. Two changes for few seeds: the seeds' part is multiplied by
    n / (n − 1), as a bootstrap's variance is that much too small, and the interval is Student's at
    n − 1 degrees of freedom, as percentiles of five seeds are too narrow. The interval is too wide
    where noise that is neither the seeds' nor the images' own matters, since the bootstrap counts
    it three times (as Owen shows): in simulations of 5 and 10 seeds it covers 95 to 99.9 %.

    Args:
        first: (seeds, images), whether the image is classified correctly.
        second: The same with another condition's networks, paired by seed.
        labels: (images,), the true labels.
        group: Labels; the accuracy is the mean of their own.

    Raises:
        ValueError: Shapes differ, or a label of the group has no images.
    """
    if first.shape != second.shape:
        raise ValueError(f"not paired: {first.shape} and {second.shape}")
    difference = first.astype(numpy.int8) - second.astype(numpy.int8)
    of_labels = [difference[:, labels == label] for label in group]
    if not all(part.size for part in of_labels):
        raise ValueError(f"no images of some label in {group}")
    by_seed = numpy.mean([part.mean(axis=1) for part in of_labels], axis=0)
    n, mean = len(first), float(by_seed.mean())
    if n < 2:
        return Estimate(n, mean, math.nan, math.nan)
    # of seeds' accuracies, over images: the sum and the trace of the matrix of their covariances
    covariance = sum(part.sum(axis=0).var() / part.shape[1] for part in of_labels)
    variance = sum(part.var(axis=1).sum() / part.shape[1] for part in of_labels)
    of_seeds, of_images = by_seed.var(ddof=1) / n, covariance / len(of_labels) ** 2 / n**2
    # drawn images change the seeds' spread
    of_both = (variance / len(of_labels) ** 2 / n - of_images) / n
    half = float(stats.t.ppf(0.975, n - 1)) * math.sqrt(of_seeds + of_images + of_both)
    return Estimate(n, mean, mean - half, mean + half)


class PairedImages(NamedTuple):
    """Test images on which two conditions differ, given their trained networks.

    Attributes:
        gained: Images that the first condition gets right with more seeds than the second.
        lost: Images that it gets right with fewer.
        p: Two-sided.
    """

    gained: int
    lost: int
    p: float


def paired_images(first: Correct, second: Correct) -> PairedImages:
    """Compare two conditions over the same images and seeds by McNemar's test, clustered by image.

    One image's seeds agree more than chance, so that they count as one: with d an image's seeds
    that only the first gets right less those that only the second does, z = Σd / √Σd² (Obuchowski
    1998, Statistics in Medicine 17; Durkalski et al. 2003, Statistics in Medicine 22). With one
    seed it is McNemar's test without continuity correction. It speaks of these trained networks on
    other images, not of other seeds.

    Args:
        first: (seeds, images), whether the image is classified correctly.
        second: The same with the other condition's networks.

    Raises:
        ValueError: Shapes differ.
    """
    if first.shape != second.shape:
        raise ValueError(f"not paired: {first.shape} and {second.shape}")
    by_image = first.sum(axis=0) - second.sum(axis=0)
    z = by_image.sum() / math.sqrt((by_image**2).sum()) if by_image.any() else 0.0
    p = 2 * float(stats.norm.sf(abs(z)))
    return PairedImages(int((by_image > 0).sum()), int((by_image < 0).sum()), p)
