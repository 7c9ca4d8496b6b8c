"""Statistics over the test images, from which images each trained network gets right."""

import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy
from numpy.typing import NDArray
from scipy import stats

Correct = NDArray[numpy.bool_]  # (seeds, images)


class OverSeedsAndImages(NamedTuple):
    """An accuracy, or a difference of two, for other seeds and other test images.

    Attributes:
        n: Seeds.
        mean: As a fraction; over seeds.
        low: Lower end of the 95 % interval; nan where n is below 2.
        high: Upper end.
        seeds_error: Standard error from the seeds alone, given these test images; nan where n is
            below 2.
        images_error: Standard error from the test images alone, given these trained networks.
    """

    n: int
    mean: float
    low: float
    high: float
    seeds_error: float
    images_error: float


def over_seeds_and_images(
    first: Correct,
    second: Correct | None,
    labels: NDArray[numpy.integer],
    group: Iterable[int],
    equal_labels: bool = True,
) -> OverSeedsAndImages:
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
        second: The same with another condition's networks, paired by seed; None for the accuracy
            of ``first`` itself.
        labels: (images,), the true labels.
        group: Labels to average over; a label without images is an error.
        equal_labels: The accuracy is the mean of the labels' own (as that of 0-4 and 5-9 is);
            otherwise of all images (as that of "all" is).

    Raises:
        ValueError: Shapes differ, or a label of the group has no images.
    """
    group = list(group)
    if second is not None and first.shape != second.shape:
        raise ValueError(f"not paired: {first.shape} and {second.shape}")
    difference = first.astype(float) - (0.0 if second is None else second.astype(float))
    of_labels = [difference[:, labels == label] for label in group]
    counts = numpy.array([part.shape[1] for part in of_labels])
    if not group or counts.min() == 0:
        raise ValueError(f"no images of some label in {group}")
    shares = numpy.full(len(group), 1 / len(group)) if equal_labels else counts / counts.sum()
    by_seed = numpy.zeros(len(first))
    covariance = numpy.zeros((len(first), len(first)))  # of seeds' accuracies, over images
    for part, count, share in zip(of_labels, counts, shares, strict=True):
        by_seed += share * part.mean(axis=1)
        covariance += share**2 / count * numpy.atleast_2d(numpy.cov(part, bias=True))
    n, mean = len(first), float(by_seed.mean())
    of_images = covariance.sum() / n**2
    images_error = math.sqrt(of_images)
    if n < 2:
        return OverSeedsAndImages(n, mean, math.nan, math.nan, math.nan, images_error)
    of_seeds = by_seed.var(ddof=1) / n
    of_both = (covariance.trace() / n - of_images) / n  # drawn images change the seeds' spread
    half = float(stats.t.ppf(0.975, n - 1)) * math.sqrt(of_seeds + of_images + of_both)
    return OverSeedsAndImages(n, mean, mean - half, mean + half, math.sqrt(of_seeds), images_error)


class PairedImages(NamedTuple):
    """Test images on which two conditions differ, given their trained networks.

    Attributes:
        gained: Images that the first condition gets right with more seeds than the second.
        lost: Images that it gets right with fewer.
        z: Standard normal if neither is better; above zero where the first is.
        p: Two-sided.
    """

    gained: int
    lost: int
    z: float
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
    by_image = (first.astype(int) - second.astype(int)).sum(axis=0)
    z = by_image.sum() / math.sqrt((by_image**2).sum()) if by_image.any() else 0.0
    p = 2 * float(stats.norm.sf(abs(z)))
    return PairedImages(int((by_image > 0).sum()), int((by_image < 0).sum()), float(z), p)
