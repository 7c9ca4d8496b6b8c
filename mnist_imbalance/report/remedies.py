"""What restores the rare labels: the fraction of the loss that each remedy brings back.

Compared are runs of one model and one optimizer on one ground, equal steps or equal epochs, paired
by seed. The rules, marks and margins are those of ``docs/protocol.md``.
"""

import math
from collections.abc import Iterator, Mapping

import numpy
import pandas

from mnist_imbalance.report.claims import Accuracies, by_optimizer, margin_of
from mnist_imbalance.report.gather import ALL, GROUNDS, REFERENCE, Gathered
from mnist_imbalance.report.image_statistics import over_seeds_and_images, paired_images
from mnist_imbalance.report.statistics import (
    estimate,
    fieller,
    restores,
    seeds_needed,
    seeds_to_decide,
)
from mnist_imbalance.report.verdicts import UNDECIDED, correct, judge, two_sided

BY_COUNT = ", loss.normalize=count"
REFERENCES = {"imbalanced": "none", "original": "all images"}
REMEDIES = {  # by condition, what a reader calls them
    "duplicated_100": "10 unchanged copies",
    "noise_100": "10 copies, noise alone",
    "rotation_100": "10 copies, rotations alone",
    "augmented_100": "10 copies, noise and rotations",
    "duplicated_40": "4 unchanged copies",
    "augmented_40": "4 copies, noise and rotations",
    "weighted": "weight 7",
    f"weighted{BY_COUNT}": "weight 7, by images",
    f"weighted, loss.minority_weight=10{BY_COUNT}": "weight 10, by images",
    "per_label": "a weight for each label",
    f"per_label{BY_COUNT}": "a weight for each label, by images",
}
MARKS = (0.5, 0.8, 0.95)  # of the loss
COMPARED = {  # the first condition less the second
    "10 copies: noise and rotations − unchanged": ("augmented_100", "duplicated_100"),
    "10 copies: noise alone − unchanged": ("noise_100", "duplicated_100"),
    "10 copies: rotations alone − unchanged": ("rotation_100", "duplicated_100"),
    "10 copies: noise and rotations − rotations alone": ("augmented_100", "rotation_100"),
    "10 copies: noise and rotations − noise alone": ("augmented_100", "noise_100"),
    "4 copies: noise and rotations − unchanged": ("augmented_40", "duplicated_40"),
    "all images: 10 copies with noise and rotations − as they are": (
        "augmented_original",
        "original",
    ),
    "weight 7 − 10 unchanged copies": ("weighted", "duplicated_100"),
    "weight 7, by images − 10 unchanged copies": (f"weighted{BY_COUNT}", "duplicated_100"),
    "a weight for each label, by images − 10 unchanged copies": (
        f"per_label{BY_COUNT}",
        "duplicated_100",
    ),
    "weight 7: by images − by weights": (f"weighted{BY_COUNT}", "weighted"),
    "a weight for each label: by images − by weights": (f"per_label{BY_COUNT}", "per_label"),
}
OTHERS = ("majority", "overall")  # what a difference on the rare labels may cost


def on_each_ground(gathered: Gathered) -> Iterator[tuple[str, str, str, Accuracies]]:
    """Go through every ground, and its optimizers and models."""
    for ground in GROUNDS:
        for optimizer, of in by_optimizer(gathered.on(ground)):
            for model in of.models:
                yield ground, optimizer, model, of


def restored(gathered: Gathered) -> pandas.DataFrame:
    """Return what fraction of the loss on the rare labels each remedy restores.

    Returns:
        Columns ground, optimizer, model, condition, remedy, n, lost, lost_low and lost_high (what
        the imbalance took, a difference of accuracies), fraction, low and high (Fieller's; infinite
        where the loss is not certain), a verdict at each of `MARKS`, not_below_original (that its
        accuracy is less than the margin below that of original), minority, majority and overall
        (the n seeds' mean accuracies of the rare labels, the frequent and all), rare and frequent
        (the names of these groups). A row for imbalanced and for original stands first.
    """
    rows = []
    for ground, optimizer, model, of in on_each_ground(gathered):
        for condition, remedy in (REFERENCES | REMEDIES).items():
            try:
                reached = of(model, condition, gathered.rare)
                before = of(model, "original", gathered.rare)
                without = of(model, REFERENCE, gathered.rare)
                majority, overall = (
                    of(model, condition, label) for label in (gathered.frequent, ALL)
                )
            except KeyError:  # there are no such runs
                continue
            paired = pandas.DataFrame(
                {
                    **{"gained": reached - without, "lost": before - without},
                    **{"below": before - reached, "minority": reached},
                    **{"majority": majority, "overall": overall},
                }
            ).dropna()
            fraction = fieller(paired.gained, paired.lost)
            lost = estimate(paired.lost)
            certain = math.isfinite(fraction.low) and lost.low > 0
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
                    **{"lost": lost.mean, "lost_low": lost.low, "lost_high": lost.high},
                    **{"fraction": fraction.mean, "low": fraction.low, "high": fraction.high},
                    **verdicts,
                    "not_below_original": judge(margin_of(model) - paired.below).verdict,
                    **paired[["minority", "majority", "overall"]].mean().to_dict(),
                    **{"rare": gathered.rare, "frequent": gathered.frequent},
                }
            )
    names = ["ground", "optimizer", "model", "condition", "remedy", "n", "lost", "lost_low"]
    names += ["lost_high", "fraction", "low", "high", *(f"above_{mark:g}" for mark in MARKS)]
    names += ["not_below_original", "minority", "majority", "overall", "rare", "frequent"]
    return pandas.DataFrame(rows, columns=names)


def both_right(
    first: Mapping[int, numpy.ndarray], second: Mapping[int, numpy.ndarray]
) -> tuple[numpy.ndarray, numpy.ndarray] | None:
    """Return which images two conditions get right, (seeds, N) each, of the seeds of both."""
    seeds = sorted(first.keys() & second.keys())
    if not seeds:
        return None
    return numpy.stack([first[s] for s in seeds]), numpy.stack([second[s] for s in seeds])


def compared(gathered: Gathered, labels: numpy.ndarray | None) -> pandas.DataFrame:
    """Compare remedies pair by pair on the rare labels, and say what it costs the others.

    A family, within which verdicts are corrected, is the comparisons of one model with one
    optimizer on one ground. "holds" is said where the first is better, "contradicted" where the
    second is.

    Args:
        gathered: Finished runs.
        labels: (N,) of the test set; None where it cannot be had.

    Returns:
        Columns ground, optimizer, model, comparison (its name), first, second, n, effect, low and
        high (over seeds, given this test set), verdict, corrected, p, p_corrected, margin,
        seeds_to_decide, seeds_for_margin (that would find a difference as large as the margin),
        majority and overall with _low and _high (the same difference on the frequent labels and on
        all, not judged), n_images (seeds with predictions of both), low_images and high_images
        (over seeds and test images), gained and lost (test images of the rare labels that more and
        fewer seeds of the first get right), p_images (McNemar's, given these networks), rare and
        frequent (the names of the groups).
    """
    rows = []
    for ground, optimizer, model, of in on_each_ground(gathered):
        family = []
        for comparison, (first, second) in COMPARED.items():
            try:
                effects, *others = (
                    (of(model, first, label) - of(model, second, label)).dropna()
                    for label in (gathered.rare, gathered.frequent, ALL)
                )
            except KeyError:  # there are no such runs
                continue
            judgement = judge(effects, margin_of(model))
            undecided = judgement.verdict == UNDECIDED and judgement.n > 1
            needed = seeds_to_decide(effects) if undecided else None
            row = {
                **{"ground": ground, "optimizer": optimizer, "model": model},
                **{"comparison": comparison, "first": first, "second": second},
                **{key: getattr(judgement, key) for key in ("n", "effect", "low", "high")},
                "verdict": judgement.verdict,
                "p": two_sided(judgement),
                "margin": margin_of(model),
                "seeds_to_decide": max(needed, judgement.n + 1) if needed else math.nan,
                "seeds_for_margin": seeds_needed(effects, margin_of(model)) or math.nan,
                "n_images": 0,
                **{"rare": gathered.rare, "frequent": gathered.frequent},
            }
            for name, values in zip(OTHERS, others, strict=True):
                _, row[name], row[f"{name}_low"], row[f"{name}_high"] = estimate(values)
            right = None
            if labels is not None:
                right = both_right(
                    *(
                        gathered.correct(model, optimizer, condition, ground, labels)
                        for condition in (first, second)
                    )
                )
            if right and labels is not None:
                rare = gathered.groups[gathered.rare]
                wide = over_seeds_and_images(*right, labels, rare)
                minority = numpy.isin(labels, rare)
                images = paired_images(*(each[:, minority] for each in right))
                row |= {"n_images": wide.n, "low_images": wide.low, "high_images": wide.high}
                row |= {"gained": images.gained, "lost": images.lost, "p_images": images.p}
            family.append((row, judgement))
        corrected = correct([judgement for _, judgement in family])
        for (row, _), in_family in zip(family, corrected, strict=True):
            rows.append(row | {"corrected": in_family.verdict, "p_corrected": in_family.p})
    names = ["ground", "optimizer", "model", "comparison", "first", "second", "n", "effect", "low"]
    names += ["high", "verdict", "corrected", "p", "p_corrected", "margin", "seeds_to_decide"]
    names += ["seeds_for_margin"]
    names += [f"{name}{end}" for name in OTHERS for end in ("", "_low", "_high")]
    names += ["n_images", "low_images", "high_images", "gained", "lost", "p_images"]
    names += ["rare", "frequent"]
    return pandas.DataFrame(rows, columns=names)
