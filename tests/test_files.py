from pathlib import Path

import pytest

from mnist_imbalance.files import remove_if_empty, write_whole


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
    remove_if_empty(tmp_path / "top" / "a" / "b", top=tmp_path / "top" / "a")
    assert [path.name for path in tmp_path.rglob("*")] == ["top"]
    (tmp_path / "top" / "kept").write_text("")
    remove_if_empty(tmp_path / "top", top=tmp_path)
    assert (tmp_path / "top" / "kept").exists()
