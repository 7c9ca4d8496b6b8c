"""Sources beside MNIST: small files in their own formats, read by torchvision's readers."""

import bz2
import gzip
import hashlib
import pickle
from pathlib import Path

import numpy
import pytest
from conftest import composed
from mnist_imbalance.fit import fit_run
from PIL import Image
from test_batched import make_run
from test_data import ARCHIVES
from torchvision.datasets import CIFAR10, CIFAR100, QMNIST

from mnist_imbalance.config import build
from mnist_imbalance.data.module import MNISTData
from mnist_imbalance.errors import ConfigError

LABELS = numpy.arange(40) % 10
PIXELS = numpy.random.default_rng(0).integers(0, 256, (40, 32, 32, 3), dtype=numpy.uint8)


def read(dir: Path, source: str, *overrides: str) -> MNISTData:
    chosen = [f"data/source={source}", f"data.dir={dir}", "data.val_per_label=1", *overrides]
    data: MNISTData = build(composed("data=original", *chosen), "data")
    data.setup()
    return data


def pixels_of(data: MNISTData) -> set[bytes]:
    return {image.numpy().tobytes() for part in (data.train, data.val) for image in part[0]}


def idx(array: numpy.ndarray, code: int = 8) -> bytes:
    head = bytes([0, 0, code, array.ndim])
    return head + b"".join(size.to_bytes(4, "big") for size in array.shape) + array.tobytes()


def test_cifar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for kind, labels, names in ((CIFAR10, "labels", 10), (CIFAR100, "fine_labels", 100)):
        folder = tmp_path / kind.base_folder
        folder.mkdir()
        batch = pickle.dumps({"data": PIXELS.transpose(0, 3, 1, 2).reshape(40, -1), labels: LABELS})
        meta = pickle.dumps({kind.meta["key"]: [str(label) for label in range(names)]})
        files = {"train_list": batch, "test_list": batch}
        for part, content in files.items():
            (folder / part).write_bytes(content)
            monkeypatch.setattr(kind, part, [[part, hashlib.md5(content).hexdigest()]])
        (folder / "meta").write_bytes(meta)
        own = {"filename": "meta", "md5": hashlib.md5(meta).hexdigest()}
        monkeypatch.setattr(kind, "meta", kind.meta | own)
    data = read(tmp_path, "cifar10")
    assert data.image_shape == (3, 32, 32) and data.num_classes == 10
    assert pixels_of(data) == {image.transpose(2, 0, 1).tobytes() for image in PIXELS}
    assert data.test[1].tolist() == LABELS.tolist()
    with pytest.raises(ConfigError, match=r"data\.val_per_label: must be below 0"):
        read(tmp_path, "cifar100")  # of the other 90 labels there is none


def test_emnist_stands_upright(tmp_path: Path) -> None:
    raw = tmp_path / "EMNIST" / "raw"
    raw.mkdir(parents=True)
    every = numpy.arange(94) % 47
    images = numpy.random.default_rng(1).integers(0, 256, (94, 28, 28), dtype=numpy.uint8)
    for part in ("train", "test"):
        stem = raw / f"emnist-balanced-{part}"
        Path(f"{stem}-images-idx3-ubyte").write_bytes(idx(images))
        Path(f"{stem}-labels-idx1-ubyte").write_bytes(idx(every.astype(numpy.uint8)))
    data = read(tmp_path, "emnist")
    assert data.num_classes == 47
    assert pixels_of(data) == {image.T.tobytes() for image in images}


def test_qmnist(tmp_path: Path) -> None:
    raw = tmp_path / "QMNIST" / "raw"
    raw.mkdir(parents=True)
    columns = numpy.zeros((40, 8), dtype=">i4")
    columns[:, 0] = LABELS
    grey = PIXELS[:, :28, :28, 0]
    for part in ("train", "test"):
        images, labels = (raw / Path(url).stem for url, _ in QMNIST.resources[QMNIST.subsets[part]])
        images.write_bytes(idx(grey))
        labels.write_bytes(idx(columns, code=12))
    data = read(tmp_path, "qmnist")
    assert data.image_shape == (1, 28, 28)
    assert pixels_of(data) == {image.tobytes() for image in grey}
    assert data.test[1].tolist() == LABELS.tolist()


def test_usps(tmp_path: Path) -> None:
    lines = "".join(
        f"{label + 1} " + " ".join(f"{number + 1}:{-1 + label / 5}" for number in range(256)) + "\n"
        for label in LABELS
    )
    for name in ("usps.bz2", "usps.t.bz2"):
        (tmp_path / name).write_bytes(bz2.compress(lines.encode()))
    data = read(tmp_path, "usps")
    assert data.image_shape == (1, 16, 16)
    images, labels = data.test
    assert images[labels == 5].float().mean().item() == pytest.approx(127, abs=1)


def test_fashion_mnist_is_laid_like_mnist(tmp_path: Path) -> None:
    raw = tmp_path / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for archive in ARCHIVES:
        (raw / archive.stem).write_bytes(gzip.decompress(archive.read_bytes()))
    assert read(tmp_path, "fashion_mnist").sha256 == read(ARCHIVES[0].parents[2], "mnist").sha256


def test_a_folder_of_images(tmp_path: Path) -> None:
    for part, count in (("train", 3), ("test", 1)):
        for label in ("cat", "dog"):
            folder = tmp_path / part / label
            folder.mkdir(parents=True)
            for number in range(count):
                grey = 200 if label == "dog" else 20
                Image.new("RGB", (60, 40), (grey, grey, grey)).save(folder / f"{number}.png")
    data = read(tmp_path, "folder", "data.minority=[1]")
    assert (data.image_shape, data.num_classes) == ((1, 28, 28), 2)
    images, labels = data.test
    assert [int(image.max()) for image in images] == pytest.approx([20, 200], abs=1)
    assert labels.tolist() == [0, 1]
    colours = read(tmp_path, "folder", "data.minority=[1]", "data.source.colours=3")
    assert colours.image_shape == (3, 28, 28)
    with pytest.raises(ConfigError, match=r"^data\.dir: .*nowhere/train"):
        read(tmp_path / "nowhere", "folder")


def test_digits_need_no_download_and_train_an_lstm(tmp_path: Path) -> None:
    short = ("trainer.max_epochs=10", "trainer=cpu", "optimizer=adam", "data.batch_size=32")
    run = make_run(tmp_path, "data/source=digits", "data=original", *short)
    result = fit_run(run.config, run.hydra, run.folder, show_progress=False)
    assert sum(map(sum, result.test.confusion)) == 355
    assert result.test.accuracy > 0.3
    small = make_run(tmp_path, "data/source=digits", "model=cnn")
    with pytest.raises(ConfigError, match=r"^model: .*12 × 12"):
        fit_run(small.config, small.hydra, small.folder, show_progress=False)


def test_what_cannot_be_downloaded_is_named(tmp_path: Path) -> None:
    (tmp_path / "usps.bz2").write_bytes(b"no archive")
    with pytest.raises(
        ConfigError, match=r"^data\.dir: no whole USPS files below .*USPS downloads$"
    ):
        read(tmp_path, "usps")
