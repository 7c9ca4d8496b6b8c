from pathlib import Path

import pytest

from mnist_imbalance.files import new_folder, remove_if_empty, write_whole


def test_a_file_is_replaced_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "new" / "file"
    write_whole(path, "old")

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("os.replace", die)
    with pytest.raises(KeyboardInterrupt):
        write_whole(path, "new")
    assert path.read_text() == "old"


def test_only_empty_folders_below_the_top_go(tmp_path: Path) -> None:
    (tmp_path / "top" / "a" / "b").mkdir(parents=True)
    remove_if_empty(tmp_path / "top" / "a" / "b", top=tmp_path / "top")
    assert [path.name for path in tmp_path.rglob("*")] == ["top"]
    (tmp_path / "top" / "a").mkdir()
    (tmp_path / "top" / "a" / "kept").write_text("")
    remove_if_empty(tmp_path / "top" / "a", top=tmp_path)
    remove_if_empty(tmp_path, top=tmp_path / "elsewhere")
    assert (tmp_path / "top" / "a" / "kept").exists()


def test_a_failing_block_unmakes_its_own_empty_folders_only(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    with pytest.raises(KeyError), new_folder(tmp_path / "theirs" / "a" / "b"):
        raise KeyError
    assert [path.name for path in tmp_path.rglob("*")] == ["theirs"]
    with pytest.raises(KeyError), new_folder(tmp_path / "theirs" / "a" / "b"):
        (tmp_path / "theirs" / "a" / "kept").write_text("")
        raise KeyError
    assert (tmp_path / "theirs" / "a" / "kept").exists()
    with new_folder(tmp_path / "stays"):
        pass
    assert (tmp_path / "stays").is_dir()
