"""Where images come from: torchvision's data sets, arrays in a file, folders of images."""

import hashlib
import io
import os
import re
import zipfile
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy
import torch
from filelock import FileLock
from PIL import Image, ImageOps
from pydantic import Field, PositiveInt, validate_call
from torch import Tensor
from torchvision import datasets
from torchvision.transforms.v2.functional import pil_to_tensor

from mnist_imbalance.data.imbalance import by_label
from mnist_imbalance.data.seeds import generator
from mnist_imbalance.errors import ConfigError, naming

Batch = tuple[Tensor, Tensor]  # images and labels
SPLITS = ("train", "test", "val")
say = cache(partial(print, flush=True))  # a line, once in a process


@dataclass(frozen=True)
class Images:
    """A data set in its official split, images (N, C, H, W) uint8 and labels (N,) int64 from 0."""

    train: Batch
    test: Batch
    num_classes: int
    val: Batch | None = None  # where the validation images are given
    groups: Tensor | None = None  # (N,), of training images that are held out together or not
    class_names: list[str] | None = None  # of the labels, where they have names

    def __post_init__(self) -> None:
        for images, labels in self.splits():
            if not 0 < len(images) == len(labels):
                counts = f"{len(images)} images, {len(labels)} labels"
                raise ConfigError(f"data.source: needs images, one label each; there are {counts}")
            if not 0 <= labels.min() <= labels.max() < self.num_classes <= 65536:
                most = f"{self.num_classes - 1} (num_classes - 1), at most 65535"  # of uint16
                raise ConfigError(f"data.source: labels must be from 0 to {most}")
        seen = self.train[1].bincount(minlength=self.num_classes).tolist()
        if 0 in seen:
            raise ConfigError(f"data.source: label {seen.index(0)} has no training image")
        if len(shapes := {tuple(images.shape[1:]) for images, _ in self.splits()}) > 1:
            raise ConfigError(f"data.source: images of all splits must be alike, are {shapes}")
        if self.groups is not None and len(self.groups) != len(self.train[1]):
            raise ConfigError("data.source: groups must be of all training images")
        if self.class_names and len(self.class_names) != self.num_classes:
            raise ConfigError("data.source: class_names must name every label")

    def splits(self) -> list[Batch]:
        """Return the splits that are given."""
        return [self.train, self.test, *([self.val] if self.val else [])]

    def checksum(self) -> str:
        """Return the sha256, in hex, of all images and labels."""
        digest = hashlib.sha256()
        for images, labels in self.splits():
            digest.update(images.contiguous().numpy().data)
            digest.update(labels.contiguous().numpy().data)
        return digest.hexdigest()


def load(dir: Path, name: str, **split: Any) -> Any:
    """Return a data set of torchvision's, which one process at a time downloads if it must."""
    kind = partial(getattr(datasets, name), dir, **split)
    with suppress(Exception):
        return kind()
    try:
        dir.mkdir(parents=True, exist_ok=True)
        with FileLock(dir / ".download.lock"):
            with suppress(Exception):
                return kind()  # downloaded by another process meanwhile
            for archive in dir.glob(f"{name}/raw/*-ubyte.gz"):
                archive.with_suffix("").unlink(missing_ok=True)  # perhaps half-unpacked
            return kind(download=True)
    except Exception as error:
        absent = f"{dir.absolute()} has no complete {name} in torchvision's layout"
        failed = f"the download failed: {str(error).partition(':')[0]}"
        raise ConfigError(f"data.dir: {absent}, and {failed}") from error


@validate_call
def read_torchvision(dir: Path, name: str = "MNIST", first: PositiveInt | None = None) -> Images:
    """Return a data set of torchvision's, or the ``first`` images of each label alone.

    EMNIST is its balanced split, and QMNIST has the images of MNIST's test set.
    """
    parts = []
    for train in (True, False):
        split: dict[str, Any] = {"EMNIST": {"train": train, "split": "balanced"}}
        split["QMNIST"] = {"what": "train" if train else "test10k"}
        data = load(dir, name, **split.get(name, {"train": train}))
        images = torch.as_tensor(data.data, dtype=torch.uint8)
        images = images.unsqueeze(1) if images.ndim == 3 else images.movedim(-1, 1)
        images = images.transpose(2, 3) if name == "EMNIST" else images
        labels = torch.as_tensor(data.targets, dtype=torch.int64)
        labels = labels if labels.ndim == 1 else labels[:, 0]  # QMNIST has more columns
        chosen = torch.cat([own[:first] for own in by_label(labels)]).sort().values
        parts.append((images[chosen].contiguous(), labels[chosen]))
    names = None if name in ("MNIST", "QMNIST") else getattr(data, "classes", None)  # numbers
    classes = len(names or ()) or int(parts[0][1].max()) + 1
    return Images(parts[0], parts[1], classes, class_names=names)


read = read_torchvision  # the name in hashes of EMNIST, QMNIST, USPS and CIFAR


def split_off(batch: Batch, indices: Tensor) -> tuple[Batch, Batch]:
    """Return the other images and those at the indices, in order."""
    images, labels = batch
    there = torch.isin(torch.arange(len(labels)), indices)
    return (images[~there], labels[~there]), (images[there], labels[there])


def read_digits(dir: Path) -> Images:
    """Return scikit-learn's 1,797 digits, 8 × 8; the last fifth of each label is the test set.

    Alpaydin and Kaynak, 1998, "Optical recognition of handwritten digits". ``dir`` is not used.
    """
    from sklearn.datasets import load_digits  # slow to import

    digits = load_digits()
    images = torch.tensor(digits.images * (255 / 16)).round().to(torch.uint8).unsqueeze(1)
    labels = torch.tensor(digits.target)
    last = torch.cat([own[-(len(own) // 5) :] for own in by_label(labels)])
    return Images(*split_off((images, labels), last), len(digits.target_names))


@validate_call
def read_npz(dir: Path, file: str, groups: Sequence[str] = ()) -> Images:
    """Return the arrays of a file in MedMNIST's layout (Yang et al., 2023).

    ``train_images`` and ``test_images`` are (N, H, W) or (N, H, W, C) uint8, ``train_labels`` and
    ``test_labels`` (N,) or (N, 1) integers; so are ``val_images`` and ``val_labels``, if given.
    Training images that agree in all arrays of ``groups``, (N,), are held out together.
    """
    try:
        arrays = dict(numpy.load(dir / file))  # refuses arrays of Python objects
    except Exception as error:
        raise ConfigError(f"data.dir: no npz file of numbers at {dir / file}") from error

    def array(name: str, image: bool = False) -> Tensor:
        if name not in arrays:
            raise ConfigError(f"data.source: {file} has no {name}")
        found = arrays[name][:, 0] if arrays[name].shape[1:] == (1,) else arrays[name]
        fits = found.ndim == 1 and found.dtype.kind in "iu"
        if image:
            fits = found.ndim in (3, 4) and found.dtype == "uint8"
        if not fits:
            wanted = f"{'uint8 (N, H, W) or (N, H, W, C)' if image else 'integers (N,)'}, is"
            raise ConfigError(f"data.source: {name} must be {wanted} {found.dtype} {found.shape}")
        return torch.from_numpy(found if image else found.astype("int64"))

    def split(name: str) -> Batch:
        images = array(f"{name}_images", image=True)
        images = images.unsqueeze(1) if images.ndim == 3 else images.movedim(-1, 1)
        return images.contiguous(), array(f"{name}_labels")

    train, val = split("train"), split("val") if "val_images" in arrays else None
    columns = [array(name) for name in groups]
    together = torch.stack(columns, dim=1).unique(dim=0, return_inverse=True)[1] if groups else None
    return Images(train, split("test"), int(train[1].max()) + 1, val, together)


@validate_call
def read_gtsrb(dir: Path, by_track: bool = True) -> Images:
    """Return the German Traffic Sign Recognition Benchmark, 32 × 32 (Stallkamp et al., 2012).

    It is read from ``gtsrb.npz``, which has ``train_tracks``, too, or from torchvision's files. The
    photographs of a track, about 30 of one sign, are held out together if ``by_track``.
    """
    if (dir / "gtsrb.npz").exists():
        return read_npz(dir, "gtsrb.npz", ["train_labels", "train_tracks"] if by_track else [])
    parts = []
    for name in ("train", "test"):
        images, labels = zip(*load(dir, "GTSRB", split=name), strict=True)
        pixels = torch.stack([to_pixels(image, 32) for image in images])
        parts.append((pixels, torch.tensor(labels)))
    files = sorted((dir / "gtsrb/GTSRB/Training").rglob("*.ppm"))  # in torchvision's order
    tracks = [f"{file.parent.name}/{file.stem.partition('_')[0]}" for file in files]
    together = torch.from_numpy(numpy.unique(tracks, return_inverse=True)[1])
    return Images(parts[0], parts[1], 43, groups=together if by_track else None)


def to_pixels(image: Image.Image, size: int, colours: int = 3, background: str = "white") -> Tensor:
    """Return an image of any mode that Pillow reads as (C, size, size) uint8.

    16 bits are scaled to 8, and transparent images are put on a background. The shorter side
    becomes ``size`` pixels, and the longer one is cut off on both ends.
    """
    if image.mode[:4] == "I;16" or (image.mode == "I" and image.format in ("PNG", "PPM")):
        image = Image.fromarray((numpy.asarray(image) >> 8).astype("uint8"))
    elif image.mode in ("I", "F"):
        raise ValueError("its 32-bit pixels have no known range; save it with 8 or 16 bits")
    elif image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, background), image)
    image = ImageOps.fit(image.convert("L" if colours == 1 else "RGB"), (size, size))
    pixels: Tensor = pil_to_tensor(image)
    return pixels


def find_classes(names: Sequence[str]) -> dict[str, list[str]]:
    """Return the parts of visible paths in classes, train first; a folder's last part is empty."""
    hidden = re.compile(r"(.*/)?(\.|__MACOSX)").match
    paths = {name: name.split("/") for name in names if not hidden(name)}
    if "train" not in {path[0] for path in paths.values()}:
        paths = {name: ["train", *path] for name, path in paths.items()}
    return {name: path for name, path in paths.items() if path[2:] and path[0] in SPLITS}


@validate_call
def read_folder(
    dir: Path,
    size: PositiveInt = 28,
    colours: Literal[1, 3] = 1,
    file: str | None = None,
    background: str = "white",
    test_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.2,
    skip_broken: bool = False,
) -> Images:
    """Return the images ``<class>/**``, or ``train/<class>/**`` and likewise ``test``, ``val``.

    They lie in ``dir``, or in a zip ``file`` there, and are scaled, see `to_pixels`. Classes are
    in natural order. Without ``test``, a fraction of each class is the test set, in all runs alike.
    """
    place = dir / (file or "")
    with naming(f"data.dir: {place} cannot be read"):
        archive = zipfile.ZipFile(place) if file else None
    names = archive.namelist() if archive else []  # those of folders end with /
    for top, _, files in os.walk(dir, followlinks=True) if not archive else ():
        names += [f"{os.path.relpath(top, dir)}/{name}" for name in ("", *files)]
    found = find_classes(sorted(names))
    classes = sorted({path[1] for path in found.values() if path[0] == "train"})
    classes.sort(key=lambda name: re.sub(r"\d+", lambda n: n[0].zfill(20), name))  # 2 before 10
    if len(classes) < 2:
        raise ConfigError(f"data.dir: {place} must have a folder for each class, has {classes}")
    notes: dict[str, list[str]] = defaultdict(list)
    found = {name: path for name, path in found.items() if path[-1]}
    others = sorted(name for name in names if name[-1] != "/" and name not in found)
    notes["hidden files, and files in no class, are left out"] = others
    parts: dict[str, list[tuple[Tensor, int]]] = {name: [] for name in SPLITS}
    for name, (part, label, *_) in found.items():
        if label not in classes:
            raise ConfigError(f"data.dir: {place} has {name}, but no train/{label}")
        try:
            content = archive.read(name) if archive else (dir / name).read_bytes()
            image = Image.open(io.BytesIO(content))
            image.load()
        except Exception as error:  # also of zipfile and zlib
            if not skip_broken:
                skips = "data.source.skip_broken=true leaves it out"
                raise ConfigError(f"data.dir: {name} is no whole image; {skips}") from error
            notes["files that are no whole images are left out"].append(name)
            continue
        if image.has_transparency_data:
            notes[f"transparent images are put on {background}"].append(name)
        with naming(f"data.dir: {name}"):
            pixels = to_pixels(image, size, colours, background)
        parts[part].append((pixels, classes.index(label)))
    for note, noted in notes.items():
        if noted:
            say(f"data.dir: {note}: {len(noted)}, such as {noted[0]}")
    if empty := {*range(len(classes))} - {label for _, label in parts["train"]}:
        name = classes[min(empty)]
        raise ConfigError(f"data.dir: class {name} has no training image; add some or delete it")
    batches = {}
    for name, own in parts.items():
        if own:
            images, labels = zip(*own, strict=True)
            batches[name] = torch.stack(images), torch.tensor(labels)
    if "test" not in batches:
        drawn = []
        for of_class in by_label(batches["train"][1]):
            order = torch.randperm(len(of_class), generator=generator("test set"))[1:]  # one stays
            drawn.append(of_class[order[: max(1, round(test_fraction * len(of_class)))]])
        batches["train"], batches["test"] = split_off(batches["train"], torch.cat(drawn))
    given = batches["train"], batches["test"], len(classes), batches.get("val")
    return Images(*given, class_names=classes)
