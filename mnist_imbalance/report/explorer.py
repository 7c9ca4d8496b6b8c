"""What the page's explorer shows: curves, confusion matrices and images that are taken for others.

Of each condition with a model and an optimizer on one ground, all seeds together, the curves of the
first ones and the images of one.
"""

from itertools import chain
from typing import Any

import numpy
import pandas

from mnist_imbalance.report.figures import GROUP_COLORS, data_url
from mnist_imbalance.report.gather import GROUNDS, Gathered
from mnist_imbalance.report.images import Images
from mnist_imbalance.report.names import (
    condition_title,
    group_title,
    model_title,
    optimizer_title,
)
from mnist_imbalance.report.tables import learned, summed

ROW = 40  # images in a row of the picture that holds them all
OF_EACH = 2  # images of each label
CURVES = 20  # seeds, the smallest, of which the learning curve is drawn


def mistaken(
    gathered: Gathered, runs: pandas.DataFrame, images: Images
) -> tuple[int | None, list[tuple[int, int, int]]]:
    """Return some mistakes of a condition's run with the smallest seed that has predictions.

    Returns:
        The seed, None without predictions, and (image, label, predicted label) of each mistake.
    """
    for seed, key in sorted(zip(runs.seed.tolist(), runs.config_hash, strict=True)):
        predicted = gathered.predicted(key, images.labels)
        if predicted is not None:
            wrong = numpy.flatnonzero(predicted != images.labels)
            labels = images.labels[wrong]
            first = [wrong[labels == label][:OF_EACH] for label in numpy.unique(labels)]
            chosen = numpy.concatenate(first) if first else wrong
            told = zip(chosen, images.labels[chosen], predicted[chosen], strict=True)
            return seed, [(int(image), int(label), int(other)) for image, label, other in told]
    return None, []


def explorer(gathered: Gathered, images: Images | None) -> dict[str, Any]:
    """Return what is shown, for JSON.

    Args:
        gathered: Finished runs.
        images: Of the data set; None where they cannot be had.

    Returns:
        ``groups``, their titles, and ``colors``; ``rare``, the first group's labels; ``digits``,
        the address of a picture of `ROW` images a row; and ``sets``: ground, optimizer, model,
        condition, n, steps, curves (by group and seed the accuracies in thousandths), confusion,
        seed and mistaken, (place in the picture, label, predicted label).
    """
    places: dict[int, int] = {}
    sets = []
    groups = [gathered.rare, gathered.frequent]
    found = [
        (ground, keys, runs, runs.nsmallest(CURVES, "seed", keep="first").sort_index().config_hash)
        for ground in GROUNDS
        for keys, runs in gathered.runs_on(ground).groupby(
            ["optimizer", "model", "condition"], sort=False
        )
    ]
    curves_of = learned(gathered, chain.from_iterable(drawn for *_, drawn in found))
    for ground, (optimizer, model, condition), runs, drawn in found:
        curves = [curves_of[key] for key in drawn if key in curves_of]
        curves = [curve for curve in curves if curve.accuracies.keys() >= {*groups}]
        seed, wrong = mistaken(gathered, runs, images) if images else (None, [])
        shown = {
            "ground": ground,
            "optimizer": optimizer_title(optimizer),
            "model": model_title(model),
            "condition": condition_title(condition),
            "n": len(runs),
            "steps": min((curve.steps.tolist() for curve in curves), key=len, default=[]),
            "curves": [
                [[*map(round, (1000 * curve.accuracies[group]).tolist())] for curve in curves]
                for group in groups
            ],
            "confusion": summed(gathered, runs.config_hash).tolist(),
            "seed": seed,
            "mistaken": [(places.setdefault(i, len(places)), *of) for i, *of in wrong],
        }
        sets.append(shown)
    titles = [*map(group_title, groups)]
    made = {"groups": titles, "colors": GROUP_COLORS[: len(titles)], "row": ROW, "sets": sets}
    made["rare"] = gathered.groups[gathered.rare]
    if images and places:
        height, width = images.test.shape[1:]
        rows = -(-len(places) // ROW)
        picture = numpy.zeros((rows * ROW, height, width), numpy.uint8)
        picture[: len(places)] = images.test[list(places)]
        grid = picture.reshape(rows, ROW, height, width).swapaxes(1, 2)
        made["digits"] = data_url(grid.reshape(rows * height, ROW * width))
    return made
