"""Files that are whole or not there."""

import os

import pytest

from skbgmd._utils.saving import written_whole


def write(targets, error=None):
    with written_whole(targets) as files:
        for file in files.values():
            if isinstance(file, str):
                with open(file, "w") as opened:
                    opened.write("new")
        if error is not None:
            raise error
    return files


def test_files_take_their_places_when_all_are_written(tmp_path):
    old, new = tmp_path / "old", tmp_path / "new"
    old.write_text("old")
    files = write({"a": old, "b": str(new), "c": None})
    assert files["c"] is None
    assert old.read_text() == new.read_text() == "new"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "old"]
    # As any other file would be.
    (tmp_path / "plain").write_text("")
    assert new.stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize("error", [OSError("no space"), RuntimeError("no space")])
def test_a_failure_is_named_and_leaves_what_was_there(tmp_path, error):
    old = tmp_path / "old"
    old.write_text("old")
    with pytest.raises(OSError, match=r"/old, .*/new can't be written: no space"):
        write({"a": old, "b": tmp_path / "new"}, error)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("old", "old")]


@pytest.mark.parametrize("error", [KeyboardInterrupt, TypeError])
def test_what_is_no_failure_to_write_goes_through(tmp_path, error):
    with pytest.raises(error):
        write({"a": tmp_path / "new"}, error())
    assert not list(tmp_path.iterdir())


def test_links_stay_links(tmp_path):
    link, file = tmp_path / "link", tmp_path / "folder" / "file"
    file.parent.mkdir()
    link.symlink_to(file)
    write({"a": link})
    assert link.is_symlink()
    assert file.read_text() == "new"


def test_what_cannot_be_replaced_is_written_to(tmp_path, monkeypatch):
    assert write({"a": "/dev/null"}) == {"a": "/dev/null"}
    stream = object()
    assert write({"a": stream}) == {"a": stream}
    with pytest.raises(OSError, match=r"/dev/full can't be written: .*No space"):
        write({"a": "/dev/full"})
    # The folder is sealed, the file isn't.
    file = tmp_path / "file"
    file.write_text("old")
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert write({"a": file}) == {"a": file}
