"""Where images come from: torchvision's data sets, arrays in a file, folders of images."""

import hashlib
import io
import re
import zipfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy
import torch
from filelock import FileLock
from PIL import Image, ImageOps
from pydantic import PositiveInt, validate_call
from torch import Tensor
from torchvision import datasets
from torchvision.transforms.v2.functional import pil_to_tensor

from mnist_imbalance.data.imbalance import by_label
from mnist_imbalance.errors import ConfigError, naming

Batch = tuple[Tensor, Tensor]  # images and labels


@dataclass(frozen=True)
class Images:
    """A data set in its official split, images (N, C, H, W) uint8 and labels (N,) int64 from 0."""

    train: Batch
    test: Batch
    num_classes: int
    val: Batch | None = None  # where the validation images are given
    groups: Tensor | None = None  # (N,), of training images that are held out together or not

    def __post_init__(self) -> None:
        for images, labels in self.splits():
            if not 0 < len(images) == len(labels):
                counts = f"{len(images)} images, {len(labels)} labels"
                raise ConfigError(f"data.source: needs images, one label each; there are {counts}")
            if not 0 <= labels.min() <= labels.max() < self.num_classes <= 256:
                most = f"{self.num_classes - 1} (num_classes - 1), at most 255"  # of uint8
                raise ConfigError(f"data.source: labels must be from 0 to {most}")
        seen = self.train[1].bincount(minlength=self.num_classes).tolist()
        if 0 in seen:
            raise ConfigError(f"data.source: label {seen.index(0)} has no training image")
        if len(shapes := {tuple(images.shape[1:]) for images, _ in self.splits()}) > 1:
            raise ConfigError(f"data.source: images of all splits must be alike, are {shapes}")
        if self.groups is not None and len(self.groups) != len(self.train[1]):
            raise ConfigError("data.source: groups must be of all training images")

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
        raise ConfigError(
            f"data.dir: {dir.absolute()} has no complete {name} in torchvision's layout, and the "
            f"download failed: {str(error).partition(':')[0]}"
        ) from error


@validate_call
def read_torchvision(dir: Path, name: str = "MNIST", first: PositiveInt | None = None) -> Images:
    """Return a data set of torchvision's, or the ``first`` images of each label alone.

    EMNIST is its balanced split, and QMNIST has the images of MNIST's test set.
    """
    parts = []
    for train in (True, False):
        split: dict[str, Any] = {"train": train}
        if name == "EMNIST":
            split["split"] = "balanced"
        if name == "QMNIST":
            split = {"what": "train" if train else "test10k"}
        data = load(dir, name, **split)
        images = torch.as_tensor(data.data, dtype=torch.uint8)
        images = images.unsqueeze(1) if images.ndim == 3 else images.movedim(-1, 1)
        images = images.transpose(2, 3) if name == "EMNIST" else images
        labels = torch.as_tensor(data.targets, dtype=torch.int64)
        labels = labels if labels.ndim == 1 else labels[:, 0]  # QMNIST has more columns
        chosen = torch.cat([own[:first] for own in by_label(labels)]).sort().values
        parts.append((images[chosen].contiguous(), labels[chosen]))
    classes = len(getattr(data, "classes", ())) or int(parts[0][1].max()) + 1
    return Images(parts[0], parts[1], classes)


read = read_torchvision  # the name in hashes of EMNIST, QMNIST, USPS and CIFAR


def read_digits(dir: Path) -> Images:
    """Return scikit-learn's 1,797 digits, 8 × 8; the last fifth of each label is the test set.

    Alpaydin and Kaynak, 1998, "Optical recognition of handwritten digits". ``dir`` is not used.
    """
    from sklearn.datasets import load_digits  # slow to import

    digits = load_digits()
    images = torch.tensor(digits.images * (255 / 16)).round().to(torch.uint8).unsqueeze(1)
    labels = torch.tensor(digits.target)
    last = torch.cat([own[-(len(own) // 5) :] for own in by_label(labels)])
    in_test = torch.isin(torch.arange(len(labels)), last)
    train, test = ((images[part], labels[part]) for part in (~in_test, in_test))
    return Images(train, test, len(digits.target_names))


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
        raise ConfigError(f"data.dir: {dir / file} is no npz file of numbers") from error

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

    It is read from ``gtsrb.npz``, which also has ``train_tracks``, or from the files that
    torchvision downloads. A track is about 30 photographs of one sign; they are held out together
    unless ``by_track`` is false.
    """
    if (dir / "gtsrb.npz").exists():
        return read_npz(dir, "gtsrb.npz", ["train_labels", "train_tracks"] if by_track else [])
    parts = []
    for name in ("train", "test"):
        images, labels = zip(*load(dir, "GTSRB", split=name), strict=True)
        pixels = [pil_to_tensor(ImageOps.fit(image, (32, 32))) for image in images]
        parts.append((torch.stack(pixels), torch.tensor(labels)))
    files = sorted((dir / "gtsrb/GTSRB/Training").rglob("*.ppm"))  # in torchvision's order
    tracks = [f"{file.parent.name}/{file.stem.partition('_')[0]}" for file in files]
    together = torch.from_numpy(numpy.unique(tracks, return_inverse=True)[1])
    return Images(parts[0], parts[1], 43, groups=together if by_track else None)


@validate_call
def read_folder(
    dir: Path,
    size: PositiveInt = 28,
    colours: Literal[1, 3] = 1,
    file: str | None = None,
    skip_unreadable: bool = False,
) -> Images:
    """Return the images ``train/<label>/*`` and ``test/<label>/*``, scaled to one size.

    They lie in ``dir``, or in a zip ``file`` there. Labels are numbered by their names below
    ``train``, in order. The shorter side becomes ``size`` pixels, and the longer one is cut off on
    both ends. Hidden files are left out.
    """
    with naming(f"data.dir: {dir / (file or '')} cannot be read"):
        archive = zipfile.ZipFile(dir / file) if file else None
    paths = dir.glob("*/*/*") if not archive else ()
    names = archive.namelist() if archive else [str(path.relative_to(dir)) for path in paths]
    pattern = re.compile(r"(train|test)/([^./][^/]*)/[^./][^/]*")  # nothing hidden
    found = [match for match in map(pattern.fullmatch, sorted(names)) if match]
    labels = sorted({match[2] for match in found if match[1] == "train"})
    parts: dict[str, list[tuple[Any, int]]] = {"train": [], "test": []}
    for match in found:
        if match[2] not in labels:
            raise ConfigError(f"data.dir: {dir} has {match[0]}, but no train/{match[2]}")
        try:
            content = archive.read(match[0]) if archive else (dir / match[0]).read_bytes()
            image = Image.open(io.BytesIO(content)).convert("L" if colours == 1 else "RGB")
        except Exception as error:  # also of zipfile and zlib
            unreadable = f"data.dir: {match[0]} is no image that can be read"
            if not skip_unreadable:
                skips = "data.source.skip_unreadable=true leaves it out"
                raise ConfigError(f"{unreadable}; {skips}") from error
            print(unreadable, flush=True)
            continue
        image = image if image.size == (size, size) else ImageOps.fit(image, (size, size))
        parts[match[1]].append((numpy.atleast_3d(numpy.asarray(image)), labels.index(match[2])))
    batches = []
    for name, part in parts.items():
        if not part:
            raise ConfigError(f"data.dir: {dir / (file or '')} has no image {name}/<label>/*")
        images, own = zip(*part, strict=True)
        pixels = torch.from_numpy(numpy.stack(images)).movedim(-1, 1).contiguous()
        batches.append((pixels, torch.tensor(own)))
    return Images(batches[0], batches[1], len(labels))
