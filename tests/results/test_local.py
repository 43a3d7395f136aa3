"""Folders as result storages: modes, links, full disks, what is left behind."""

from __future__ import annotations

import os
import resource
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from penstock.errors import ResultMissing, ResultStorageError
from penstock.results.base import Content
from penstock.results.local import LocalStorage
from tests.results.storages import content


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "results"


@pytest.fixture
def storage(folder: Path) -> LocalStorage:
    return LocalStorage(str(folder))


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_nobody_else_may_look(storage: LocalStorage, folder: Path) -> None:
    old = os.umask(0)
    try:
        storage.write("run/task-1", content(b"x"))
    finally:
        os.umask(old)
    assert (mode(folder), mode(folder / "run"), mode(folder / "run" / "task-1")) == (
        0o700,
        0o700,
        0o600,
    )


def test_link_to_a_folder_is_not_followed(
    storage: LocalStorage, folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "outside").mkdir()
    folder.mkdir()
    (folder / "run").symlink_to(tmp_path / "outside")
    with pytest.raises(ResultStorageError, match="run/task-1 cannot be stored"):
        storage.write("run/task-1", content(b"x"))
    assert os.listdir(tmp_path / "outside") == []


def test_link_in_place_of_an_object_is_replaced(
    storage: LocalStorage, folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "precious").write_text("precious")
    folder.mkdir()
    (folder / "a").symlink_to(tmp_path / "precious")
    storage.write("a", content(b"x"))
    assert (tmp_path / "precious").read_text() == "precious"
    assert not (folder / "a").is_symlink()


def test_link_is_not_read(storage: LocalStorage, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    folder.mkdir()
    (folder / "a").symlink_to(tmp_path / "secret")
    with pytest.raises(ResultStorageError, match="Symbolic links are not followed"):
        storage.read("a")
    assert list(storage.objects()) == []


def test_storage_itself_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    LocalStorage(str(tmp_path / "link")).write("a/b", content(b"x"))
    assert (tmp_path / "real" / "a" / "b").read_bytes() == b"headx"


def test_pipe_does_not_hold_up_a_reader(storage: LocalStorage, folder: Path) -> None:
    folder.mkdir()
    os.mkfifo(folder / "a")
    with pytest.raises(ResultStorageError, match="is no file"):
        storage.read("a")


def test_nothing_is_left_of_what_fails(storage: LocalStorage, folder: Path) -> None:
    def head() -> bytes:
        raise RuntimeError("no digest")

    with pytest.raises(RuntimeError):
        storage.write("run/a", Content(4, head, [b"x" * 100_000], 100_004))
    assert os.listdir(folder / "run") == []


def test_limit_on_the_size_of_files_is_told_and_nothing_is_left(
    storage: LocalStorage, folder: Path
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))
    try:
        with pytest.raises(ResultStorageError, match="run/a cannot be stored: File too large"):
            storage.write("run/a", content(b"x" * 3_000_000, pieces=7))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert os.listdir(folder / "run") == []
    storage.write("run/a", content(b"x" * 3_000_000, pieces=7))
    assert storage.size("run/a") == 3_000_004


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a disk")
def test_full_disk_is_told_and_the_next_attempt_works(folder: Path) -> None:
    folder.mkdir()
    mounted = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    if subprocess.run(mounted, capture_output=True, check=False).returncode:
        pytest.skip("this system does not let us mount a disk")
    try:
        storage = LocalStorage(str(folder))
        (folder / "other").write_bytes(b"x" * 1_500_000)
        with pytest.raises(ResultStorageError, match="No space left on device. The disk is full"):
            storage.write("run/a", content(b"x" * 1_000_000))
        assert os.listdir(folder / "run") == []
        (folder / "other").unlink()
        storage.write("run/a", content(b"x" * 1_000_000))
        assert storage.size("run/a") == 1_000_004
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_temporary_file_is_told_from_an_object(storage: LocalStorage, folder: Path) -> None:
    storage.write("run/a", content(b"x"))
    (folder / "run" / ".a.0123456789abcdef.part").write_bytes(b"x")
    assert {each.name: each.is_temporary for each in storage.objects()} == {
        "run/a": False,
        "run/.a.0123456789abcdef.part": True,
    }


def test_emptied_folder_is_removed(storage: LocalStorage, folder: Path) -> None:
    storage.write("run/a", content(b"x"))
    storage.write("run/b", content(b"x"))
    storage.delete("run/a")
    assert os.listdir(folder) == ["run"]
    storage.delete("run/b")
    assert os.listdir(folder) == []


def test_folder_that_is_removed_meanwhile_is_made_again(
    storage: LocalStorage, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = LocalStorage._made
    removed: list[Any] = []

    def make(self: LocalStorage, folders: list[str]) -> int:
        handle = made(self, folders)
        if not removed:
            os.rmdir(folder / "run")
            removed.append(1)
        return handle

    monkeypatch.setattr(LocalStorage, "_made", make)
    storage.write("run/a", content(b"x"))
    assert storage.read("run/a") == b"headx"


def test_killed_writer_leaves_no_object_behind(folder: Path) -> None:
    code = (
        "import os, signal, sys\n"
        "from penstock.results.local import LocalStorage\n"
        "from penstock.results.base import Content\n"
        "def head():\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "body = [b'x' * 1_000_000]\n"
        "LocalStorage(sys.argv[1]).write('run/a', Content(4, head, body, 1_000_004))\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(folder)], timeout=50, check=False)
    assert done.returncode == -9
    storage = LocalStorage(str(folder))
    with pytest.raises(ResultMissing):
        storage.read("run/a")
    assert [each.is_temporary for each in storage.objects()] == [True]
