"""The data of the page's explorer, and images and confusion matrices for the figures."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torchvision.transforms.v2.functional import to_pil_image
from torchvision.utils import make_grid

from mnist_imbalance.data.augment import Copy, expand
from mnist_imbalance.data.source import Images
from mnist_imbalance.records import table as records
from mnist_imbalance.report import tables
from mnist_imbalance.report.figures import SPARE, data_url
from mnist_imbalance.report.words import group, title

ROW = 40  # digits in a row of the picture that holds all of them
SHOWN = 2  # mistakes for each label
CURVES = 20  # the smallest seeds, whose learning curves are drawn


def confusion(runs: pd.DataFrame) -> pd.DataFrame:
    """Return the summed confusion matrices of the reference conditions, a row a cell."""
    shown, rows = tables.on(runs, tables.EPOCHS), []
    shown = shown[shown.condition.isin([tables.ORIGINAL, tables.REFERENCE])]
    labels = {label: name for name, own in tables.groups_of(runs).items() for label in own}
    for keys, own in shown.groupby(tables.NAME, sort=False):
        counts = sum(map(np.stack, own.test_confusion))
        totals = counts.sum(axis=1)
        for true, name in labels.items():
            cells = enumerate(counts[true].tolist() if totals[true] else [])
            rows += [(*keys, name, true, predicted, n, totals[true]) for predicted, n in cells]
    columns = [*tables.NAME, "group", "true label", "predicted label", "count", "total"]
    return pd.DataFrame(rows, columns=columns)


def samples(runs: pd.DataFrame, images: Images, copies: Sequence[Copy]) -> pd.DataFrame:
    """Return the first training image of each rare label in all its copies."""
    (pixels, known), rare = images.train, tables.rare_and_frequent(runs)[0]
    first = [int((known == n).int().argmax()) for n in tables.groups_of(runs).get(rare, [])]
    every, noise = torch.ones(len(first), dtype=torch.bool), torch.Generator().manual_seed(0)
    made, labels = expand(pixels[first], known[first], every, copies, noise)
    rows = [copy.model_dump() for copy in copies for _ in first]
    addresses = [data_url(to_pil_image(image)) for image in made]
    return pd.DataFrame(rows).assign(label=labels.tolist(), image=addresses)


def explorer(runs: pd.DataFrame, images: Images | None) -> dict[str, Any]:
    """Return for JSON every condition with curves, confusion matrix and mistakes.

    Args:
        runs: Of `tables.on_grounds`.
        images: Of the data set; None where they cannot be had.
    """
    groups, curves = [*dict.fromkeys(tables.rare_and_frequent(runs))], tables.curves(runs)
    labels = images.test[1].numpy() if images else np.array([])
    right, predicted = tables.correct(runs, labels), records.predictions(runs)
    sets, digits = [], dict[int, int]()
    for ground in tables.GROUNDS:
        by = tables.on(runs, ground).groupby(["optimizer", "model", "condition"], sort=False)
        for names, own in by:
            first = own.nsmallest(CURVES, "seed").config_hash
            drawn = curves[curves.config_hash.isin(first)]
            drawn = drawn.assign(accuracy=(1000 * drawn.accuracy).round().astype(int))
            wide = drawn.pivot(index="step", columns=["label", "seed"], values="accuracy").dropna()
            mistakes = pd.DataFrame(columns=["image", "label", "predicted"])
            known = own[own.config_hash.isin(right)].sort_values("seed").head(1)
            for key in known.config_hash:
                wrong = np.flatnonzero(~right[key])
                cells = {"image": wrong, "label": labels[wrong], "predicted": predicted[key][wrong]}
                mistakes = pd.DataFrame(cells).groupby("label").head(SHOWN).sort_values("label", kind="stable")
            mistakes["image"] = [digits.setdefault(i, len(digits)) for i in mistakes.image]
            optimizer, model, condition = map(title, names)
            sets.append(
                {
                    **{"ground": ground, "optimizer": optimizer, "model": model},
                    **{"condition": condition, "n": len(own), "steps": wide.index.tolist()},
                    "curves": [wide[name].T.to_numpy().tolist() for name in groups if len(wide)],
                    "confusion": sum(map(np.stack, own.test_confusion)).tolist(),
                    "seed": None if known.empty else int(known.seed.iloc[0]),
                    "mistakes": mistakes.to_numpy().tolist(),
                }
            )
    found = {"groups": [*map(group, groups)], "colors": SPARE[: len(groups)], "row": ROW}
    found |= {"rare": tables.groups_of(runs).get(groups[0], []), "sets": sets}
    if images and digits:
        grid = make_grid(images.test[0][[*digits]], nrow=ROW, padding=0)[: images.shape[0]]
        found["digits"] = data_url(to_pil_image(grid))
    return found
