"""The data of the page's explorer; confusion matrices and images for the figures."""

import base64
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torchvision.transforms.v2.functional import to_pil_image
from torchvision.utils import make_grid

from mnist_imbalance.data.copies import Copy, expand
from mnist_imbalance.data.sources import Images
from mnist_imbalance.records import table as records
from mnist_imbalance.report import tables
from mnist_imbalance.report.figures import SPARE
from mnist_imbalance.report.words import group, title

ROW = 40  # digits in a row of the picture that holds all of them
SHOWN = 2  # mistakes for each label
SEEDS = 20  # the smallest, whose curves and mistakes the page holds


def data_url(pixels: Tensor) -> str:
    """Return an image, (C, H, W) uint8, as an address that needs no file."""
    to_pil_image(pixels).save(content := io.BytesIO(), "png")
    return "data:image/png;base64," + base64.b64encode(content.getvalue()).decode()


def confusion(runs: pd.DataFrame) -> pd.DataFrame:
    """Return the confusion matrices of the reference conditions, all seeds together, by cell."""
    shown, parts = tables.on(runs, tables.EPOCHS), [pd.DataFrame(columns=tables.NAME)]
    groups = {label: name for name, own in tables.groups_of(runs).items() for label in own}
    shown = shown[shown.condition.isin([tables.ORIGINAL, tables.REFERENCE])]
    for names, own in shown.groupby(tables.NAME, sort=False):
        counts = pd.DataFrame(np.sum([*own.test_confusion], axis=0))
        cells = counts.rename_axis(index="true label", columns="predicted label").stack()
        part = cells.reset_index(name="count").assign(**dict(zip(tables.NAME, names, strict=True)))
        parts.append(part.assign(total=part["true label"].map(counts.sum(axis=1))))
    table = pd.concat(parts, ignore_index=True)
    return table.assign(group=table.get("true label", table.condition).map(groups))


def samples(runs: pd.DataFrame, images: Images, copies: Sequence[Copy]) -> pd.DataFrame:
    """Return the first training image of each rare label in all its copies."""
    (pixels, known), rare = images.train, tables.rare_and_frequent(runs)[0]
    first = [int((known == n).int().argmax()) for n in tables.groups_of(runs).get(rare, [])]
    every, noise = torch.ones(len(first), dtype=torch.bool), torch.Generator().manual_seed(0)
    copied, labels = expand(pixels[first], known[first], every, copies, noise)
    rows = pd.DataFrame([copy.model_dump() for copy in copies for _ in first])
    return rows.assign(label=labels.tolist(), image=[data_url(i) for i in copied])


def explorer(runs: pd.DataFrame, images: Images | None) -> dict[str, Any]:
    """Return for JSON every condition with its curves, confusion matrix and some mistakes."""
    names = ["ground", "optimizer", "model", "condition"]
    parts = pd.concat([tables.on(runs, name).assign(ground=name) for name in tables.GROUNDS])
    drawn = parts.groupby(names, sort=False).head(SEEDS).drop_duplicates("config_hash")
    groups, curves = [*dict.fromkeys(tables.rare_and_frequent(drawn))], tables.curves(drawn)
    curves["accuracy"] = (1000 * curves.accuracy).round().astype(int)
    labels = images.test[1].numpy() if images else np.array([])
    right = tables.correct(drawn, labels) if images else {}
    predicted, sets = records.predictions(drawn), list[dict[str, Any]]()
    for keys, own in parts.groupby(names, sort=False):
        wide = curves[curves.config_hash.isin(own.config_hash)]
        wide = wide.pivot(index="step", columns=["label", "seed"], values="accuracy").dropna()
        shown = dict(zip(names, map(title, keys), strict=True)) | {
            **{"n": len(own), "steps": wide.index.tolist(), "seed": None, "mistakes": []},
            "curves": [wide[name].T.to_numpy().tolist() for name in groups if len(wide)],
            "confusion": np.sum([*own.test_confusion], axis=0).tolist(),
        }
        for run in own[own.config_hash.isin(right)].sort_values("seed").head(1).itertuples():
            wrong = np.flatnonzero(~right[run.config_hash])
            cells = [wrong, labels[wrong], predicted[run.config_hash][wrong]]
            first = pd.DataFrame(np.transpose(cells)).groupby(1).head(SHOWN)
            shown |= {"seed": run.seed, "mistakes": first.sort_values([1, 0]).to_numpy().tolist()}
        sets.append(shown)
    found = {"groups": [*map(group, groups)], "colors": SPARE[: len(groups)], "row": ROW}
    found |= {"rare": tables.groups_of(drawn).get(groups[0], []), "sets": sets, "images": []}
    chosen = sorted({image for shown in sets for image, *_ in shown["mistakes"]})
    if images and chosen:
        grid = make_grid(images.test[0][chosen], nrow=ROW, padding=0)[: images.test[0].shape[1]]
        found |= {"images": chosen, "digits": data_url(grid)}
    return found
