"""Files that appear whole or not at all, through links too."""

import os
import stat
import threading
from pathlib import Path

import pytest

from planner.whole_files import put


def test_a_link_stays_one_and_the_file_behind_it_is_written(tmp_path: Path) -> None:
    target = tmp_path / "elsewhere" / "constants.json"
    target.parent.mkdir()
    target.write_text("old")
    link, second = tmp_path / "link.json", tmp_path / "second.json"
    link.symlink_to(Path("elsewhere") / "constants.json")  # relative, as `ln -s` makes them
    second.symlink_to(link)
    put(second, "new")
    assert (link.is_symlink(), second.is_symlink()) == (True, True)
    assert target.read_text() == "new"
    assert sorted(path.name for path in target.parent.iterdir()) == ["constants.json"]


def test_a_link_to_what_is_not_there_yet_makes_it(tmp_path: Path) -> None:
    link = tmp_path / "link.json"
    link.symlink_to(tmp_path / "later.json")
    put(link, b"new")
    assert link.is_symlink()
    assert (tmp_path / "later.json").read_bytes() == b"new"


def test_a_link_in_a_circle_is_an_error_and_stays(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.symlink_to(other)
    other.symlink_to(one)
    with pytest.raises(OSError, match="symbolic links"):
        put(one, "new")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "other"]
    assert one.is_symlink()


def test_nothing_half_written_behind_a_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target, link = tmp_path / "kept.json", tmp_path / "link.json"
    target.write_text("old")
    link.symlink_to(target)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        put(link, "new")
    assert target.read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kept.json", "link.json"]


def test_a_file_keeps_its_permissions_and_a_new_one_has_the_masks(tmp_path: Path) -> None:
    private, new = tmp_path / "private.json", tmp_path / "new.json"
    private.write_text("old")
    private.chmod(0o600)
    mask = os.umask(0o027)
    try:
        put(private, "new")
        put(new, "new")
    finally:
        os.umask(mask)
    assert [stat.S_IMODE(path.stat().st_mode) for path in (private, new)] == [0o600, 0o640]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_is_written_to(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()), daemon=True)
    reader.start()
    put(pipe, "through")
    reader.join(10)
    assert read == [b"through"]
    assert stat.S_ISFIFO(pipe.stat().st_mode)
