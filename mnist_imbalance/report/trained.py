"""What one does with a trained run: ``adjust``, ``predict``, ``export`` and ``replay``."""

import sys
import warnings
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy
import pandas
import torch
from omegaconf import OmegaConf
from PIL import Image, ImageOps
from scipy.ndimage import center_of_mass
from statsmodels.stats.proportion import proportion_confint

from mnist_imbalance import load_run
from mnist_imbalance.config import activate_hydra, build, compose_with, parse, refuse_strangers
from mnist_imbalance.data.sources import to_pixels
from mnist_imbalance.errors import ConfigError, naming
from mnist_imbalance.methods.metrics import balanced_accuracy, ece, nll
from mnist_imbalance.methods.posthoc import logits_of
from mnist_imbalance.records import identity, table
from mnist_imbalance.records.result import write_whole
from mnist_imbalance.report.words import render
from mnist_imbalance.training import run as training
from mnist_imbalance.training.classifier import tally
from mnist_imbalance.training.folder import RunFolder

RUN = {"metavar": "RUN", "help": "folder of a finished run"}
OWN = {"action": "append", "default": [], "metavar": "PACKAGE", "help": "with parts of the run"}
MNIST = {"mnist", "qmnist"}
BLACK = MNIST | {"emnist", "kmnist", "fashionmnist", "usps", "digits"}  # is their images' ground


def adjust() -> None:
    """Score a trained run after each adjustment of conf/adjust.yaml, without training it again.

    Each makes its choices on the validation images: do not choose by these test scores.
    """
    given = parse(adjust.__doc__, {"run": RUN, "--trust": OWN}, "adjust")
    config = compose_with(given.overrides, name="adjust")
    run = load_run(given.run, trust=given.trust)
    if run.posthoc:
        raise ConfigError(f"RUN: {given.run} must be a run without a posthoc")
    data, models = run.data, {"as trained": run.classifier.model}
    rows: dict[str, dict[str, Any]] = {}
    for name in config.posthoc:
        try:
            step = build(config, f"posthoc.{name}", {"seed": run.config.seed}, Callable)
            adjusted = training.adjust(run.classifier.model, data, step)
            models[f"{name}, {getattr(adjusted, 'summary', 'done')}"] = adjusted
        except ConfigError as error:
            print(f"{name}: {error}")
    for name, model in models.items():
        logits, labels = logits_of(model, data.test[0]), data.test[1]
        [scores], _ = tally(logits[None], labels[None], torch.zeros(1), [{"NLL": nll, "ECE": ece}])
        val = float(balanced_accuracy(logits_of(model, data.val[0]), data.val[1]))
        rows[name] = {"all": scores.balanced_accuracy} | scores.by_group(data.groups)
        rows[name] |= scores.metrics | {"val": val}
    print("test scores: balanced accuracy, NLL and ECE; val: balanced accuracy")
    print(pandas.DataFrame(rows, dtype=float).T.to_string(float_format="%.3f"))


def images_in(place: Path) -> Iterator[tuple[str, Image.Image]]:
    """Yield the images of a file, or of a folder but for hidden ones, each with its name."""
    with naming(str(place)):
        if place.is_dir():
            for inner in sorted(place.glob("[!.]*")):
                yield from images_in(inner)
        elif place.suffix == ".npy":
            array = numpy.load(place)
            array = array if array.shape[2:] and array.shape[-1] in (1, 3, 4) else array[..., None]
            array = (array * 255 if array.max() <= 1 else array).round().astype("uint8")
            for number, pixels in enumerate(array.reshape(-1, *array.shape[-3:])):
                yield f"{place}[{number}]", Image.fromarray(pixels.squeeze())
        else:
            yield str(place), Image.open(place)


def prepare(image: Image.Image, shape: Sequence[int], config: Mapping[str, Any]) -> Any:
    """Return an image as those of a run's data set are, an array (C, H, W) uint8."""
    dataset, size, side = table.dataset_of(config), (shape[2], shape[1]), max(image.size)
    ground = config.get("data.source.background", "white")
    square = to_pixels(image.crop((0, 0, side, side)), side, shape[0], ground).movedim(0, 2)
    image = Image.fromarray(square[: image.height, : image.width].squeeze(2).numpy())
    if dataset in BLACK and numpy.asarray(image)[[0, -1]].mean() > 127:  # above and below
        image = ImageOps.invert(image)
    if dataset in MNIST and image.size != size:  # its digits are 20 pixels long, centred by mass
        ink = ImageOps.autocontrast(image, (30, 0)).point(lambda value: value * (value > 50))
        digit = ImageOps.contain(ink.crop(ink.getbbox()), (20, 20))
        y, x = center_of_mass(numpy.asarray(digit) + 1e-9)  # also where all is ground
        image = Image.new("L", size)
        image.paste(digit, (round(14 - x), round(14 - y)))
    return numpy.atleast_3d(numpy.asarray(ImageOps.fit(image, size))).transpose(2, 0, 1)


def predict() -> None:
    """Print the class that a trained run gives each image, and its probability.

    They are brought to the run's colours and size. Dark on light is inverted where the data set is
    white on black; for MNIST, other sizes than 28 × 28 are centred by mass.
    """
    files = "PNG, JPEG and others, .npy of (H, W), (H, W, C) or (N, ...), or folders of them"
    images = {"nargs": "+", "type": Path, "metavar": "IMAGES", "help": files}
    forms = {name: {"action": "store_true"} for name in ("--json", "--csv")}
    given = parse(predict.__doc__, {"run": RUN, "images": images, "--trust": OWN} | forms)
    run, prepared = load_run(given.run, trust=given.trust), {}
    shape = run.classifier.hparams["model"].get("image_shape") or run.data.image_shape
    for name, image in chain.from_iterable(map(images_in, given.images)):
        with naming(name):
            prepared[name] = prepare(image, shape, run.result.config)
    if not prepared:
        raise ConfigError("IMAGES: there is no image")
    pixels = torch.from_numpy(numpy.stack([*prepared.values()]))
    p, labels = logits_of(run.classifier.model, pixels).softmax(dim=1).max(dim=1)
    classes = run.result.class_names or range(len(run.result.train_counts))
    frame = pandas.DataFrame({"file": [*prepared], "class": [classes[label] for label in labels]})
    frame["probability"] = p.double().numpy().round(4)
    text = frame.to_csv(index=False) if given.csv else frame.to_string(index=False)
    print(frame.to_json(orient="records") if given.json else text.strip())


def export() -> None:
    """Write ONNX, checked on all test images, torch.export and a card into RUN/export."""
    page = {"type": Path, "metavar": "FILE", "help": "only a page to draw on"}
    given = parse(export.__doc__, {"runs": RUN | {"nargs": "+"}, "--page": page, "--trust": OWN})
    runs = {folder: load_run(folder, trust=given.trust) for folder in given.runs}
    if given.page:
        for run in runs.values():
            own = {"head.2.bias", "11.bias"} & {*run.classifier.model.state_dict()}
            if not own or table.dataset_of(run.result.config) not in MNIST:
                raise ConfigError("--page: takes LSTMs and CNNs on MNIST, no cosine or posthoc")
        text = render("try.html.j2", runs=[*runs.values()], b64encode=b64encode)
        write_whole(given.page, text)
        return print(f"{given.page}: {len(text) / 1e6:.1f} MB")
    warnings.simplefilter("ignore")  # of torch.export about its own code
    for folder, run in runs.items():
        file, model = Path(folder, "export", "model.onnx"), run.classifier.model
        parts, batch = (run.data.test[0] / 255).split(1000), torch.export.Dim("batch")
        program = torch.export.export(model, (parts[0],), dynamic_shapes=({0: batch},))
        with naming("export: pip install -e '.[export]'"):
            names: Any = {"input_names": ["images"], "output_names": ["logits"], "verbose": False}
            onnx: Any = torch.onnx.export(program, (), **names)
            largest = max(float((onnx(part)[0] - model(part)).abs().max()) for part in parts)
        checked = f"{largest:.1e} on {sum(map(len, parts))} test images"
        print(f"{file}: largest difference of logits {checked}")
        known = {"run": run, "dataset": table.dataset_of(run.result.config), "checked": checked}
        card = render("card.md.j2", **known, interval_of=proportion_confint)
        write_whole(file.with_name("README.md"), card)
        torch.export.save(program, file.with_suffix(".pt2"))
        onnx.save(file)


def replay() -> None:
    """Train a recorded run again in a temporary folder, and compare all its scores.

    They are identical, or the same within the seeds' spread, if balanced test accuracy changes by
    at most twice the standard deviation of two recorded seeds' difference, or different (exit 1).
    """
    name = "folder of a run, or how the hash of its config in results/ or runs_dir begins"
    record = {"metavar": "RECORD", "type": Path, "help": name}
    given = parse(replay.__doc__, {"record": record, "--trust": OWN}, "train")
    others, hydra = activate_hydra(compose_with(given.overrides, with_hydra=True))
    recorded, _ = table.read([given.record, "results", others.runs_dir])
    named = recorded.config_hash.str.startswith(str(given.record))
    named |= recorded.folder == str(given.record)
    if named.sum() != 1:
        raise ConfigError(f"RECORD: {given.record} must name one record, names {named.sum()}")
    old = recorded[named].iloc[0]
    with TemporaryDirectory() as runs_dir:
        others.logger, others.runs_dir = {}, runs_dir
        config = identity.restore(old.config, others)
        refuse_strangers(OmegaConf.to_container(config), given.trust)
        training.run_or_resume(config, hydra, RunFolder(Path(runs_dir, "run")))
        new = table.read([runs_dir])[0].iloc[0]
    names = ["model", "data", "loss", "optimizer", "condition", "epochs", "steps"]
    alike = recorded[(recorded[names] == old[names]).all(axis=1)].test_balanced_accuracy
    before, after = old.test_balanced_accuracy, new.test_balanced_accuracy
    spread = 2 * 2**0.5 * alike.std()  # of the difference of two seeds
    verdict = "the same within the seeds' spread" if abs(after - before) <= spread else "different"
    if all(numpy.array_equal(new[name], old[name]) for name in table.COMPARED):
        verdict = "identical"
    print(f"{verdict}: balanced test accuracy {before:.4f}, now {after:.4f}")
    print(f"spread of the difference of two seeds, of {len(alike)} recorded: {spread:.4f}")
    for key in ("device", "threads", "data_sha256", *new.versions):
        was, now = (row.get(key, row.versions.get(key, "unknown")) for row in (old, new))
        if was != now:
            print(f"{key}: {was}, now {now}")
    if verdict == "different":
        sys.exit(1)
