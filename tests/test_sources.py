"""Sources: small files in their own formats, read by torchvision's readers."""

import bz2
import gzip
import hashlib
import pickle
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import REPOSITORY
from hydra.utils import instantiate
from omegaconf import OmegaConf
from PIL import Image
from torchvision.datasets import CIFAR10, CIFAR100, MNIST, QMNIST

from mnist_imbalance import train
from mnist_imbalance.config import CONF
from mnist_imbalance.data.module import MNISTData
from mnist_imbalance.data.sources import read_folder, read_gtsrb, read_torchvision, to_pixels
from mnist_imbalance.errors import ConfigError
from mnist_imbalance.records import table

ARCHIVES = sorted((REPOSITORY / "data/MNIST/raw").glob("*.gz"))
LABELS = np.arange(40) % 10
PIXELS = np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3), dtype=np.uint8)


def read(dir: Path, source: str, **more: Any) -> MNISTData:
    config: Any = OmegaConf.load(CONF / "data" / "source" / f"{source}.yaml")
    data = MNISTData(dir, val_per_label=1, source=instantiate(config.get("source", config), **more))
    data.setup()
    return data


def pixels_of(data: MNISTData) -> set[bytes]:
    return {image.numpy().tobytes() for part in (data.train, data.val) for image in part[0]}


def idx(array: np.ndarray, code: int = 8) -> bytes:
    head = bytes([0, 0, code, array.ndim])
    return head + b"".join(size.to_bytes(4, "big") for size in array.shape) + array.tobytes()


def folder(*parts: str | Path) -> Path:
    made = Path(*parts)
    made.mkdir(parents=True)
    return made


def test_cifar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for kind, labels, names in ((CIFAR10, "labels", 10), (CIFAR100, "fine_labels", 100)):
        own = folder(tmp_path, kind.base_folder)
        batch = pickle.dumps({"data": PIXELS.transpose(0, 3, 1, 2).reshape(40, -1), labels: LABELS})
        meta = pickle.dumps({kind.meta["key"]: [str(label) for label in range(names)]})
        for part in ("train_list", "test_list"):
            (own / part).write_bytes(batch)
            monkeypatch.setattr(kind, part, [[part, hashlib.md5(batch).hexdigest()]])
        (own / "meta").write_bytes(meta)
        changed = {"filename": "meta", "md5": hashlib.md5(meta).hexdigest()}
        monkeypatch.setattr(kind, "meta", kind.meta | changed)
    data = read(tmp_path, "cifar10")
    assert data.image_shape == (3, 32, 32) and data.num_classes == 10
    assert pixels_of(data) == {image.transpose(2, 0, 1).tobytes() for image in PIXELS}
    assert data.test[1].tolist() == LABELS.tolist()
    with pytest.raises(ConfigError, match=r"^data\.source: label 10 has no training image$"):
        read(tmp_path, "cifar100")  # of the other 90 labels there is none


def test_emnist_stands_upright_and_qmnist_has_more_columns(tmp_path: Path) -> None:
    raw, labels = folder(tmp_path, "EMNIST", "raw"), np.arange(94, dtype=np.uint8) % 47
    images = np.random.default_rng(1).integers(0, 256, (94, 28, 28), dtype=np.uint8)
    for part in ("train", "test"):
        (raw / f"emnist-balanced-{part}-images-idx3-ubyte").write_bytes(idx(images))
        (raw / f"emnist-balanced-{part}-labels-idx1-ubyte").write_bytes(idx(labels))
    data = read(tmp_path, "emnist")
    assert data.num_classes == 47
    assert pixels_of(data) == {image.T.tobytes() for image in images}
    raw, columns = folder(tmp_path, "QMNIST", "raw"), np.zeros((94, 8), dtype=">i4")
    columns[:, 0] = labels % 10
    for part in ("train", "test"):
        files = [raw / Path(url).stem for url, _ in QMNIST.resources[QMNIST.subsets[part]]]
        files[0].write_bytes(idx(images))
        files[1].write_bytes(idx(columns, code=12))
    data = read(tmp_path, "qmnist")
    assert pixels_of(data) == {image.tobytes() for image in images}
    assert data.test[1].tolist() == (labels % 10).tolist()


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
    (tmp_path / "usps.bz2").write_bytes(b"no archive")
    with pytest.raises(ConfigError, match=r"^data\.dir: .* no complete USPS in .* download failed"):
        read(tmp_path, "usps")


def test_a_folder_or_zip_of_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for part, count in (("train", 3), ("test", 1)):
        for label, grey in (("cat", 20), ("dog", 200)):
            own = folder(tmp_path, part, label)
            for number in range(count):
                Image.new("RGB", (60 - 9 * number, 40), (grey,) * 3).save(own / f"{number}.png")
            (own / ".hidden").write_text("")
    data = read(tmp_path, "folder")
    assert (data.image_shape, data.class_names) == ((1, 28, 28), ["cat", "dog"])
    assert "6 of 6 training images have a single colour" in capsys.readouterr().out
    images, labels = data.test
    assert [int(image.max()) for image in images] == pytest.approx([20, 200], abs=1)
    assert labels.tolist() == [0, 1]
    shutil.make_archive(str(tmp_path / "all"), "zip", tmp_path)
    colour = read(tmp_path, "folder", colours=3, size=32)
    assert read(tmp_path, "zip", file="all.zip").sha256 == colour.sha256
    assert colour.image_shape == (3, 32, 32)
    shutil.copytree(tmp_path / "test/dog", tmp_path / "test/elk")
    with pytest.raises(ConfigError, match=r"^data\.dir: .* has test/elk/0.png, but no train/elk$"):
        read(tmp_path, "folder")
    with pytest.raises(ConfigError, match=r"^data\.dir: .*nowhere must have a folder for each"):
        read(tmp_path / "nowhere", "folder")
    for name in ("none", "train/cat/0.png"):
        with pytest.raises(ConfigError, match=rf"^data\.dir: .*/{name} cannot be read: "):
            read(tmp_path, "zip", file=name)


def test_folders_of_classes_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, count in (("10", 10), ("2", 5), ("one", 1), (".ipynb_checkpoints", 1)):
        own = folder(tmp_path, name)
        for number in range(count):
            Image.fromarray(PIXELS[number]).save(own / f"{number}.png")
    images = read_folder(tmp_path)
    assert images.class_names == ["2", "10", "one"]
    assert [own.bincount().tolist() for _, own in images.splits()] == [[4, 8, 1], [1, 2]]
    assert " are left out: 1, such as .ipynb_checkpoints/0.png\n" in capsys.readouterr().out
    (tmp_path / "2/w.gif").symlink_to("nowhere")
    (tmp_path / "2/x.gif").write_bytes((tmp_path / "2/0.png").read_bytes()[:-40])
    with pytest.raises(ConfigError, match=r"^data\.dir: 2/w\.gif is no whole image; data\.sour"):
        read_folder(tmp_path)
    assert read_folder(tmp_path, skip_broken=True).checksum() == images.checksum()
    folder(tmp_path, "3")
    with pytest.raises(ConfigError, match=r"^data\.dir: class 3 has no training image; add some"):
        read_folder(tmp_path, skip_broken=True)


def test_every_mode_of_pillow_gives_the_pixels_of_8_bits(tmp_path: Path) -> None:
    grey = PIXELS[0, ..., 0]
    image, wide = Image.fromarray(grey), Image.fromarray(grey * np.uint16(257))
    for kind in ("png", "tif", "pgm"):
        wide.save(tmp_path / f"wide.{kind}")
    clear = Image.merge("LA", (Image.new("L", (32, 32)), Image.fromarray(255 - grey)))
    modes = map(image.convert, ("L", "P", "LA", "PA", "RGB", "RGBA", "CMYK", "YCbCr"))
    for own in (*map(Image.open, tmp_path.iterdir()), *modes, clear):
        assert np.array_equal(to_pixels(own, 32, 1)[0], grey), own
    assert to_pixels(clear, 32, 1, "black").max() == 0
    assert np.array_equal(to_pixels(Image.fromarray(grey > 99), 32, 1)[0], 255 * (grey > 99))
    with pytest.raises(ValueError, match="32-bit pixels have no known range"):
        to_pixels(image.convert("F"), 32)


def test_a_plain_training_on_many_small_classes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(2100):
        (own := tmp_path / f"images/class {number % 300}").mkdir(parents=True, exist_ok=True)
        Image.fromarray(PIXELS[number % 40, :8, :8]).save(own / f"{number}.png")
    given = ["data/source=folder", f"data.dir={tmp_path}/images", "data.source.size=8", "model=cnn"]
    given += ["data.minority=[]", "data.shots=null", "trainer=cpu", "trainer.max_epochs=1"]
    monkeypatch.setattr(sys, "argv", ["train", *given, f"runs_dir={tmp_path}"])
    train.main()
    assert "299: class 299" in capsys.readouterr().out
    table.pack(table.read([tmp_path])[0], tmp_path / "packed.parquet")
    runs, _ = table.read([tmp_path / "packed.parquet"])
    assert (runs.class_names[0][10], [*runs.groups[0]]) == ("class 10", ["all"])
    [predicted] = table.predictions(runs).values()
    counts = np.bincount(predicted, minlength=300)
    assert predicted.dtype == "uint16" and np.array_equal(counts, runs.test_confusion[0].sum(0))


GREY: dict[str, Any] = {"train_images": PIXELS[..., 0], "train_labels": LABELS[:, None]}
GREY |= {"test_images": PIXELS[:9, ..., 0], "test_labels": LABELS[:9]}
WRONG: list[tuple[dict[str, Any], str]] = [
    ({"test_labels": None}, r"source: a\.npz has no test_labels"),
    (
        {"train_labels": LABELS / 2},
        r"source: train_labels must be integers \(N,\), is float64 \(40",
    ),
    ({"train_labels": LABELS * 2}, "source: label 1 has no training image"),
    ({"train_labels": LABELS - 1}, "source: labels must be from 0 to 8 "),
    ({"train_labels": np.ones((40, 14), int)}, r"source: train_labels must be .* \(40, 14\)"),
    (
        {"train_labels": LABELS[:39]},
        "source: needs images, one label each; .* 40 images, 39 labels",
    ),
    ({"train_labels": np.array([{}] * 40)}, r"dir: no npz file of numbers at .*a\.npz"),
    ({"train_images": PIXELS / 255}, "source: train_images must be uint8 .*, is float64"),
    ({"train_images": PIXELS[0]}, "source: needs images, one label each"),
    ({"test_images": PIXELS[:9, :8, :, 0]}, "source: images of all splits must be alike"),
]


@pytest.mark.parametrize(("changed", "message"), WRONG)
def test_wrong_arrays_are_named(tmp_path: Path, changed: dict[str, Any], message: str) -> None:
    arrays = {name: array for name, array in (GREY | changed).items() if array is not None}
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(ConfigError, match=rf"^data\.{message}"):
        read(tmp_path, "npz", file="a.npz")


def test_arrays_in_medmnists_layout(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez(tmp_path / "a.npz", **GREY, patient=np.arange(40) // 20)
    assert read(tmp_path, "npz", file="a.npz").image_shape == (1, 32, 32)
    read(tmp_path, "npz", file="a.npz")
    said = "data: no test images of labels [9]; means leave them out\n"
    assert capsys.readouterr().out == said  # once
    colour = {"train_images": PIXELS, "test_images": PIXELS, "test_labels": LABELS}
    np.savez(tmp_path / "a.npz", **GREY | colour, val_images=PIXELS[:10], val_labels=LABELS[:10])
    data = read(tmp_path, "npz", file="a.npz")  # whose split is taken
    assert data.class_counts == [4] * 10 and data.counts["validation"] == [1] * 10
    assert torch.equal(data.val[0], torch.from_numpy(PIXELS[:10]).movedim(-1, 1))


def tracks_of(data: MNISTData) -> list[set[int]]:
    """The tracks in training and in validation, of images whose first pixel is their track."""
    return [{*part[0][:, 0, 0, 0].tolist()} for part in (data.train, data.val)]


@pytest.mark.parametrize("kind", ["npz", "ppm"])
def test_tracks_of_gtsrb_are_held_out_together(tmp_path: Path, kind: str) -> None:
    labels, tracks = np.arange(43).repeat(12), np.arange(172).repeat(3)  # four of each label
    images = np.zeros((516, 32, 32, 3), np.uint8) + tracks[:, None, None, None].astype(np.uint8)
    if kind == "npz":
        arrays: dict[str, Any] = {"train_images": images, "train_labels": labels}
        arrays |= {"test_images": images[::12], "test_labels": labels[::12]}
        np.savez(tmp_path / "gtsrb.npz", **arrays, train_tracks=tracks % 4)
    else:
        top = tmp_path / "gtsrb"
        for number, image in enumerate(images):
            own = top / f"GTSRB/Training/{number // 12:05d}"
            own.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(own / f"{number // 3 % 4:05d}_{number % 3:05d}.ppm")
        own = folder(top, "GTSRB/Final_Test/Images")
        for label in range(43):
            Image.fromarray(images[12 * label]).save(own / f"{label:05d}.ppm")
        rows = "".join(f"{label:05d}.ppm;{label}\n" for label in range(43))
        (top / "GT-final_test.csv").write_text("Filename;ClassId\n" + rows)
    config: Any = OmegaConf.load(CONF / "data/source/gtsrb.yaml")
    for fraction, count in ((0.1, 1), (0.5, 2), (0.99, 3)):  # one track stays
        source = instantiate(config.source)
        data = MNISTData(tmp_path, source=source, val_fraction=fraction, minority="rare")
        data.setup()
        train, val = tracks_of(data)
        assert not train & val and len(train | val) == 172
        assert data.counts["validation"] == [3 * count] * 43 and data.minority == []
    data = MNISTData(tmp_path, source=instantiate(config.source, by_track=False), val_per_label=1)
    data.setup()
    train, val = tracks_of(data)
    assert val <= train


REAL = REPOSITORY.parent / "shared/data"


@pytest.mark.skipif(not REAL.exists(), reason="has no shared files of real images")
def test_the_real_files() -> None:
    signs = read_gtsrb(REAL)
    assert (len(signs.train[1]), len(signs.test[1]), signs.num_classes) == (39_209, 12_630, 43)
    assert signs.groups is not None and len(signs.groups.unique()) == 1_307
    photographs = read_folder(REAL, 32, 3, "cifar10_jpeg.zip")
    assert [len(labels) for _, labels in photographs.splits()] == [50_000, 10_000]


def test_an_unpacking_that_was_killed_is_repaired(tmp_path: Path) -> None:
    raw = folder(tmp_path, "FashionMNIST", "raw")  # which has MNIST's layout
    for archive in ARCHIVES:
        (raw / archive.stem).write_bytes(gzip.decompress(archive.read_bytes()))
    whole = read_torchvision(tmp_path, "FashionMNIST").checksum()
    raw = shutil.copytree(raw, tmp_path / "MNIST/raw")
    for archive in ARCHIVES:
        shutil.copy(archive, raw)
    cut = raw / "t10k-images-idx3-ubyte"
    cut.write_bytes(cut.read_bytes()[:100_000])
    assert read_torchvision(tmp_path).checksum() == whole


@pytest.mark.parametrize("damage", ["missing", "damaged", "unpacked"])
def test_damaged_archives_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    monkeypatch.setattr(MNIST, "mirrors", [])  # no download, on any machine
    raw = tmp_path / "MNIST" / "raw"
    folder(raw)
    for archive in ARCHIVES:
        if damage == "damaged":
            content = bytearray(archive.read_bytes())
            content[4000] ^= 255
            (raw / archive.name).write_bytes(content)
        elif damage == "unpacked":  # without the archives
            (raw / archive.stem).write_bytes(gzip.decompress(archive.read_bytes())[:1000])
    before = {path.name for path in tmp_path.rglob("*")}
    with pytest.raises(ConfigError, match=r"^data\.dir: .* has no complete MNIST in "):
        read_torchvision(tmp_path)
    assert {path.name for path in tmp_path.rglob("*")} - {".download.lock"} == before
