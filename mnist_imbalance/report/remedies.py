"""What restores the rare labels: the fraction of the loss that each remedy brings back.

Compared are runs of one model and one optimizer on one ground, equal steps or equal epochs, paired
by seed. The rules, marks and margins are those of ``docs/protocol.md``.
"""

import math
from collections.abc import Collection
from itertools import chain

import numpy
import pandas

from mnist_imbalance.report.claims import families, margin_of, seeds_for
from mnist_imbalance.report.gather import GROUNDS, REFERENCE, Gathered
from mnist_imbalance.report.image_statistics import over_seeds_and_images, paired_images
from mnist_imbalance.report.statistics import estimate, fieller, seeds_needed
from mnist_imbalance.report.verdicts import TOLD, UNDECIDED, judge, with_verdicts
from mnist_imbalance.scores import ALL

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
Correct = dict[int, numpy.ndarray]  # by seed, which test images a run gets right, as bits
FAMILY = ["ground", "optimizer", "model"]


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
    rare, frequent = gathered.rare, gathered.frequent
    rows = []
    for ground, optimizer, model, accuracy in families(gathered, *GROUNDS):
        for condition, remedy in (REFERENCES | REMEDIES).items():
            try:
                paired = pandas.DataFrame(
                    {
                        "gained": accuracy.difference(model, condition, REFERENCE, rare),
                        "lost": accuracy.difference(model, "original", REFERENCE, rare),
                        "below": accuracy.difference(model, "original", condition, rare),
                        "minority": accuracy(model, condition, rare),
                        "majority": accuracy(model, condition, frequent),
                        "overall": accuracy(model, condition, ALL),
                    }
                ).dropna()
            except KeyError:  # there are no such runs
                continue
            n, *fraction = fieller(paired.gained, paired.lost)
            _, *lost = estimate(paired.lost)
            certain = math.isfinite(fraction[1]) and lost[1] > 0
            # above zero where more is restored, as certainly as Fieller's interval lies above it
            more = [paired.gained - mark * paired.lost for mark in MARKS]
            verdicts = [judge(each).verdict if certain else UNDECIDED for each in more]
            verdicts.append(judge(margin_of(model) - paired.below).verdict)
            means = paired[["minority", "majority", "overall"]].mean()
            row = (ground, optimizer, model, condition, remedy, n)
            rows.append((*row, *lost, *fraction, *verdicts, *means, rare, frequent))
    columns = [*FAMILY, "condition", "remedy", "n", "lost", "lost_low", "lost_high", "fraction"]
    columns += ["low", "high", *(f"above_{mark:g}" for mark in MARKS), "not_below_original"]
    columns += ["minority", "majority", "overall", "rare", "frequent"]
    return pandas.DataFrame(rows, columns=columns)


def correct_in(
    gathered: Gathered, conditions: Collection[str], labels: numpy.ndarray | None
) -> dict[tuple[str, ...], Correct]:
    """Return by ground, optimizer, model and condition what `Gathered.correct` tells of the runs.

    Args:
        gathered: Finished runs.
        conditions: Their names.
        labels: (N,) of the test set; nothing is known where it is None.
    """
    shown = {
        ground: runs[runs.condition.isin(conditions)]
        for ground in GROUNDS
        for runs in [gathered.runs_on(ground)]
    }
    keys = chain.from_iterable(runs.config_hash for runs in shown.values())
    known = {} if labels is None else gathered.correct(keys, labels)
    found: dict[tuple[str, ...], Correct] = {}
    for ground, runs in shown.items():
        for run in runs[runs.config_hash.isin(known.keys())].itertuples():
            place = (ground, run.optimizer, run.model, run.condition)
            found.setdefault(place, {})[run.seed] = known[run.config_hash]
    return found


def compared(gathered: Gathered, labels: numpy.ndarray | None) -> pandas.DataFrame:
    """Compare remedies pair by pair on the rare labels, and say what it costs the others.

    A family, within which verdicts are corrected, is the comparisons of one model with one
    optimizer on one ground. "holds" is said where the first is better, "contradicted" where the
    second is.

    Args:
        gathered: Finished runs.
        labels: (N,) of the test set; None where it cannot be had.

    Returns:
        Columns ground, optimizer, model, comparison (its name), first, second, those of
        `verdicts.TOLD` (over seeds, given this test set), margin, seeds_to_decide, seeds_for_margin
        (that would find a difference as large as the margin), majority and overall with _low and
        _high (the same difference on the frequent labels and on all, not judged), n_images (seeds
        with predictions of both), low_images and high_images (over seeds and test images), gained
        and lost (test images of the rare labels that more and fewer seeds of the first get right),
        p_images (McNemar's, given these networks), rare and frequent (the names of the groups).
    """
    rows: list[dict[str, object]] = []
    of_rare = gathered.groups[gathered.rare]
    correct_of = correct_in(gathered, {each for pair in COMPARED.values() for each in pair}, labels)
    for ground, optimizer, model, accuracy in families(gathered, *GROUNDS):
        family = []
        margin = margin_of(model)
        for comparison, pair in COMPARED.items():
            try:
                effects, majority, overall = (
                    accuracy.difference(model, *pair, label).dropna()
                    for label in (gathered.rare, gathered.frequent, ALL)
                )
            except KeyError:  # there are no such runs
                continue
            judgement = judge(effects, margin)
            row: dict[str, object] = dict(zip(FAMILY, (ground, optimizer, model), strict=True))
            row |= {"comparison": comparison, "first": pair[0], "second": pair[1]}
            row |= {"margin": margin, "seeds_to_decide": seeds_for(effects, judgement)}
            row |= {"seeds_for_margin": seeds_needed(effects, margin) or math.nan}
            for name, values in (("majority", majority), ("overall", overall)):
                _, row[name], row[f"{name}_low"], row[f"{name}_high"] = estimate(values)
            told = [correct_of.get((ground, optimizer, model, each), {}) for each in pair]
            seeds = sorted(told[0].keys() & told[1].keys())
            row |= {"n_images": len(seeds), "rare": gathered.rare, "frequent": gathered.frequent}
            if labels is not None and seeds:
                first, second = (
                    numpy.unpackbits([each[seed] for seed in seeds], 1, len(labels)) > 0
                    for each in told
                )
                wide = over_seeds_and_images(first, second, labels, of_rare)
                minority = numpy.isin(labels, of_rare)
                images = paired_images(first[:, minority], second[:, minority])
                row |= {"low_images": wide.low, "high_images": wide.high}
                row |= {"gained": images.gained, "lost": images.lost, "p_images": images.p}
            family.append((row, judgement))
        rows += with_verdicts(family)
    columns = [*FAMILY, "comparison", "first", "second", *TOLD, "margin", "seeds_to_decide"]
    columns += ["seeds_for_margin", "majority", "majority_low", "majority_high", "overall"]
    columns += ["overall_low", "overall_high", "n_images", "low_images", "high_images"]
    columns += ["gained", "lost", "p_images", "rare", "frequent"]
    return pandas.DataFrame(rows, columns=columns)
