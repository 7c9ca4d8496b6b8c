"""What the page's explorer shows: curves, confusion matrices and images that are taken for others.

Of each condition with a model and an optimizer on one ground, all seeds together, the curves of the
first ones and the images of one.
"""

from typing import Any

import numpy

from mnist_imbalance.report.figures import GROUP_COLORS, data_url
from mnist_imbalance.report.gather import GROUNDS, Gathered
from mnist_imbalance.report.images import Images
from mnist_imbalance.report.names import (
    condition_title,
    group_title,
    model_title,
    optimizer_title,
)
from mnist_imbalance.report.tables import learning_curve, summed

ROW = 40  # images in a row of the picture that holds them all
OF_EACH = 2  # images of each label
CURVES = 20  # seeds, the smallest, of which the learning curve is drawn


def mistaken(
    gathered: Gathered, model: str, optimizer: str, condition: str, ground: str, images: Images
) -> tuple[int | None, list[tuple[int, int, int]]]:
    """Return the first seed and, of its run, (image, label, predicted label) of some mistakes."""
    predictions = gathered.predicted(model, optimizer, condition, ground, images.labels)
    if not predictions:
        return None, []
    seed = min(predictions)
    wrong = numpy.flatnonzero(predictions[seed] != images.labels)
    labels = images.labels[wrong]
    first = [wrong[labels == label][:OF_EACH] for label in numpy.unique(labels)]
    chosen = numpy.concatenate(first) if first else wrong
    told = zip(chosen, images.labels[chosen], predictions[seed][chosen], strict=True)
    return seed, [(int(image), int(label), int(other)) for image, label, other in told]


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
    by = ["optimizer", "model", "condition"]
    groups = [gathered.rare, gathered.frequent]
    for ground in GROUNDS:
        for (optimizer, model, condition), runs in gathered.runs_on(ground).groupby(by, sort=False):
            drawn = runs.nsmallest(CURVES, "seed", keep="first").sort_index()
            curves = [learning_curve(gathered, key) for key in drawn.config_hash]
            curves = [curve for curve in curves if curve and curve[0][1].keys() >= {*groups}]
            seed, wrong = (
                mistaken(gathered, model, optimizer, condition, ground, images)
                if images
                else (None, [])
            )
            shown = {
                "ground": ground,
                "optimizer": optimizer_title(optimizer),
                "model": model_title(model),
                "condition": condition_title(condition),
                "n": len(runs),
                "steps": [step for step, _ in min(curves, key=len, default=[])],
                "curves": [
                    [[round(1000 * of[group]) for _, of in curve] for curve in curves]
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
