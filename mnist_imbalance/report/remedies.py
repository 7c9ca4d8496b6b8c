"""What restores the rare labels: the fraction of the loss that each remedy brings back.

Compared are runs of one model and one optimizer on one ground, equal steps or equal epochs, paired
by seed. The rules, marks and margins are those of ``docs/protocol.md``.
"""

import math
from collections.abc import Iterator, Mapping

import numpy
import pandas

from mnist_imbalance.labels import MINORITY
from mnist_imbalance.report.claims import Accuracies, margin_of
from mnist_imbalance.report.gather import GROUNDS, Gathered
from mnist_imbalance.report.image_statistics import over_seeds_and_images, paired_images
from mnist_imbalance.report.statistics import estimate, fieller, restores, seeds_to_decide
from mnist_imbalance.report.verdicts import UNDECIDED, correct, judge, two_sided

BY_COUNT = ", loss.normalize=count"
REMEDIES = {  # by condition, what a reader calls them
    "duplicated_100": "10 unchanged copies",
    "noise_100": "10 copies, half with noise",
    "rotation_100": "10 copies, rotated",
    "augmented_100": "10 copies, rotated and noise",
    "duplicated_40": "4 unchanged copies",
    "augmented_40": "4 copies, rotated or noise",
    "weighted": "weight 7",
    f"weighted{BY_COUNT}": "weight 7, by images",
    f"weighted, loss.minority_weight=10{BY_COUNT}": "weight 10, by images",
    "per_label": "a weight for each label",
    f"per_label{BY_COUNT}": "a weight for each label, by images",
}
MARKS = (0.5, 0.8, 0.95)  # of the loss
COMPARED = {  # what the second does not have: the first and the second condition
    "noise and rotation, 10 copies": ("augmented_100", "duplicated_100"),
    "noise, 10 copies": ("noise_100", "duplicated_100"),
    "rotation, 10 copies": ("rotation_100", "duplicated_100"),
    "noise and rotation, 4 copies": ("augmented_40", "duplicated_40"),
    "weight 7 instead of 10 copies": (f"weighted{BY_COUNT}", "duplicated_100"),
    "a weight for each label instead of 10 copies": (f"per_label{BY_COUNT}", "duplicated_100"),
    "divided by images, weight 7": (f"weighted{BY_COUNT}", "weighted"),
    "divided by images, a weight for each label": (f"per_label{BY_COUNT}", "per_label"),
}


def on_each_ground(gathered: Gathered) -> Iterator[tuple[str, str, str, Accuracies]]:
    """Go through every ground, optimizer and model of a study."""
    for ground in GROUNDS:
        scores = gathered.on(ground)
        for optimizer, of_optimizer in scores.groupby("optimizer", sort=False):
            of = Accuracies(of_optimizer)
            for model in of_optimizer.model.unique():
                yield ground, str(optimizer), model, of


def restored(gathered: Gathered) -> pandas.DataFrame:
    """Return what fraction of the loss on labels 0-4 each remedy restores.

    Returns:
        Columns ground, optimizer, model, condition, remedy, n, lost (points as a fraction),
        fraction, low and high (Fieller's; infinite where the loss is not certain), a verdict at
        each of `MARKS`, not_below_original (that its accuracy is less than the margin below that
        of original), minority and majority (the n seeds' mean accuracies of 0-4 and 5-9).
    """
    rows = []
    for ground, optimizer, model, of in on_each_ground(gathered):
        for condition, remedy in REMEDIES.items():
            try:
                reached = of(model, condition, "0-4")
                before = of(model, "original", "0-4")
                without = of(model, "imbalanced", "0-4")
                majority = of(model, condition, "5-9")
            except KeyError:  # the study asks for no such runs
                continue
            paired = pandas.DataFrame(
                {
                    **{"gained": reached - without, "lost": before - without},
                    **{"below": before - reached, "minority": reached, "majority": majority},
                }
            ).dropna()
            fraction = fieller(paired.gained, paired.lost)
            certain = math.isfinite(fraction.low) and estimate(paired.lost).low > 0
            verdicts = {
                f"above_{mark:g}": judge(restores(paired.gained, paired.lost, mark)).verdict
                if certain
                else UNDECIDED
                for mark in MARKS
            }
            rows.append(
                {
                    **{"ground": ground, "optimizer": optimizer, "model": model},
                    **{"condition": condition, "remedy": remedy, "n": fraction.n},
                    **{"lost": paired.lost.mean(), "fraction": fraction.mean},
                    **{"low": fraction.low, "high": fraction.high},
                    **verdicts,
                    "not_below_original": judge(margin_of(model) - paired.below).verdict,
                    **{"minority": paired.minority.mean(), "majority": paired.majority.mean()},
                }
            )
    names = ["ground", "optimizer", "model", "condition", "remedy", "n", "lost", "fraction", "low"]
    names += ["high", *(f"above_{mark:g}" for mark in MARKS), "not_below_original"]
    return pandas.DataFrame(rows, columns=[*names, "minority", "majority"])


def both_right(
    first: Mapping[int, numpy.ndarray], second: Mapping[int, numpy.ndarray]
) -> tuple[numpy.ndarray, numpy.ndarray] | None:
    """Return which images two conditions get right, (seeds, N) each, of the seeds of both."""
    seeds = sorted(first.keys() & second.keys())
    if not seeds:
        return None
    return numpy.stack([first[s] for s in seeds]), numpy.stack([second[s] for s in seeds])


def compared(gathered: Gathered, labels: numpy.ndarray | None) -> pandas.DataFrame:
    """Compare remedies pair by pair on the accuracy of labels 0-4.

    A family, within which verdicts are corrected, is the comparisons of one model with one
    optimizer on one ground. "holds" is said where the first is better, "contradicted" where the
    second is.

    Args:
        gathered: The study's runs.
        labels: (N,) of the test set; None where it cannot be had.

    Returns:
        Columns ground, optimizer, model, added (what the first has and the second has not), first,
        second, n, effect, low and high (over seeds, given this test set), verdict, corrected, p,
        p_corrected, margin, seeds_to_decide, n_images (seeds with predictions of both), low_images
        and high_images (over seeds and test images), gained and lost (test images of 0-4 that more
        and fewer seeds of the first get right) and p_images (McNemar's, given these networks).
    """
    rows = []
    for ground, optimizer, model, of in on_each_ground(gathered):
        family = []
        for added, (first, second) in COMPARED.items():
            try:
                effects = (of(model, first, "0-4") - of(model, second, "0-4")).dropna()
            except KeyError:  # the study asks for no such runs
                continue
            judgement = judge(effects, margin_of(model))
            undecided = judgement.verdict == UNDECIDED
            row = {
                **{"ground": ground, "optimizer": optimizer, "model": model, "added": added},
                **{"first": first, "second": second},
                **{key: getattr(judgement, key) for key in ("n", "effect", "low", "high")},
                "verdict": judgement.verdict,
                "p": two_sided(judgement),
                "margin": margin_of(model),
                "seeds_to_decide": (seeds_to_decide(effects) if undecided else None) or math.nan,
                "n_images": 0,
            }
            right = None
            if labels is not None:
                right = both_right(
                    *(
                        gathered.correct(model, optimizer, condition, ground, labels)
                        for condition in (first, second)
                    )
                )
            if right and labels is not None:
                wide = over_seeds_and_images(*right, labels, MINORITY)
                minority = numpy.isin(labels, list(MINORITY))
                images = paired_images(*(each[:, minority] for each in right))
                row |= {"n_images": wide.n, "low_images": wide.low, "high_images": wide.high}
                row |= {"gained": images.gained, "lost": images.lost, "p_images": images.p}
            family.append((row, judgement))
        corrected = correct([judgement for _, judgement in family])
        for (row, _), in_family in zip(family, corrected, strict=True):
            rows.append(row | {"corrected": in_family.verdict, "p_corrected": in_family.p})
    names = ["ground", "optimizer", "model", "added", "first", "second", "n", "effect", "low"]
    names += ["high", "verdict", "corrected", "p", "p_corrected", "margin", "seeds_to_decide"]
    names += ["n_images", "low_images", "high_images", "gained", "lost", "p_images"]
    return pandas.DataFrame(rows, columns=names)
