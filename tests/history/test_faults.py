"""What a history does when the disk, the file or another program stands in the way."""

from __future__ import annotations

import logging
import os
import random
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from penstock.errors import HistoryCorrupt, HistoryError, HistoryUnavailable
from penstock.history import filesystems, sqlite
from penstock.history.filesystems import network_filesystem
from penstock.history.sqlite import SQLiteStore
from penstock.history.sqlite_errors import told
from penstock.history.stores import open_reader
from tests.history.rows import (
    is_sound,
    let_go,
    locked_by_another_program,
    new_id,
    one_flow_run,
    select,
)

NOBODY = 65_534


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Give a history with one flow run of 300 task runs."""
    path = tmp_path / "history.db"
    with closing(SQLiteStore(path)) as store:
        store.write(one_flow_run(new_id(), 300))
    return path


def test_write_waits_while_another_program_holds_the_lock(path: Path) -> None:
    with closing(SQLiteStore(path, patience=20)) as store:
        with locked_by_another_program(path) as holder, ThreadPoolExecutor(1) as pool:
            group = one_flow_run(new_id(), 10)
            writing = pool.submit(store.write, group)
            assert not wait([writing], timeout=2.5).done
            let_go(holder)
            writing.result(20)
    assert select(path, "SELECT count(*) FROM task_runs") == [(310,)]


def test_impatient_write_says_who_is_in_the_way_and_can_be_repeated(path: Path) -> None:
    with closing(SQLiteStore(path, patience=0.2)) as store:
        group = one_flow_run(new_id(), 10)
        with locked_by_another_program(path):
            with pytest.raises(HistoryUnavailable, match="another program has locked"):
                store.write(group)
        store.write(group)
    assert select(path, "SELECT count(*) FROM task_runs") == [(310,)]


def test_opening_and_reading_do_not_mind_the_lock(path: Path) -> None:
    with locked_by_another_program(path):
        SQLiteStore(path).close()
        with closing(open_reader(str(path))) as reader:
            assert reader.find_flow_run("@last")["counts"] == {"COMPLETED": 300}


def test_writing_does_not_mind_a_reader_in_the_middle(path: Path) -> None:
    with closing(SQLiteStore(path)) as store, closing(open_reader(str(path))) as reader:
        runs = reader.task_runs(reader.find_flow_run("@last")["id"])
        next(runs)
        store.write(one_flow_run(new_id(), 10))
        assert sum(1 for _ in runs) == 299


CONTENTS = {
    "text": b"This is no database, but a letter.\n" * 300,
    "zeros": b"\0" * 8192,
    "header only": b"SQLite format 3\0",
    "header and noise": b"SQLite format 3\0" + random.Random(1).randbytes(8192),
}


@pytest.mark.parametrize("content", CONTENTS)
def test_file_that_is_no_database_is_refused_untouched(tmp_path: Path, content: str) -> None:
    path = tmp_path / "history.db"
    path.write_bytes(CONTENTS[content])
    for opener in (SQLiteStore, open_reader):
        with pytest.raises(HistoryCorrupt, match="not a Penstock history") as caught:
            opener(str(path))
        assert str(path) in str(caught.value)
    assert path.read_bytes() == CONTENTS[content]


def read_all(path: Path) -> None:
    with closing(open_reader(str(path))) as reader:
        for run in reader.flow_runs():
            list(reader.task_runs(run["id"]))
            list(reader.logs(run["id"]))
            reader.counts(run["id"])


@pytest.mark.parametrize("page", range(8))
def test_zeroed_page_is_told_without_other_errors(path: Path, page: int) -> None:
    with path.open("r+b") as file:
        file.seek(page * 4096)
        file.write(b"\0" * 4096)
    for use in (read_all, _write_one):
        complaint = complaint_of(use, path)
        assert complaint is None or str(path) in complaint


@pytest.mark.parametrize("seed", range(25))
def test_flipped_bytes_and_cuts_are_told_without_other_errors(path: Path, seed: int) -> None:
    chance = random.Random(seed)
    data = bytearray(path.read_bytes())
    for _ in range(chance.choice([1, 20, 400])):
        data[chance.randrange(len(data))] = chance.randrange(256)
    if chance.random() < 0.3:
        del data[chance.randrange(100, len(data)) :]
    path.write_bytes(data)
    for use in (read_all, _write_one):
        complaint = complaint_of(use, path)
        assert complaint is None or str(path) in complaint


def complaint_of(use: Callable[[Path], None], path: Path) -> str | None:
    """Give the text of the history's error; any other error fails the test."""
    try:
        use(path)
    except HistoryError as problem:
        return str(problem)
    return None


def _write_one(path: Path) -> None:
    with closing(SQLiteStore(path)) as store:
        store.write(one_flow_run(new_id(), 10))


def test_parent_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(HistoryUnavailable, match="PENSTOCK_DATABASE_URL") as caught:
        SQLiteStore(tmp_path / "file" / "folder" / "history.db")
    assert str(tmp_path / "file" / "folder") in str(caught.value)


def test_path_that_is_a_folder_is_refused(tmp_path: Path) -> None:
    for opener in (SQLiteStore, open_reader):
        with pytest.raises(HistoryUnavailable, match="cannot be opened"):
            opener(str(tmp_path))


def test_place_where_nobody_may_write_is_refused() -> None:
    with pytest.raises(HistoryUnavailable, match="cannot be opened"):
        SQLiteStore("/proc/penstock/history.db")


def test_missing_history_is_no_error_of_the_disk(tmp_path: Path) -> None:
    path = tmp_path / "history.db"
    with pytest.raises(HistoryUnavailable, match=f"no history yet at {path}.*Run a flow first"):
        open_reader(str(path))
    assert list(tmp_path.iterdir()) == []
    path.touch()
    with pytest.raises(HistoryUnavailable, match="no history yet"):
        open_reader(str(path))


@contextmanager
def as_nobody() -> Iterator[None]:
    """Act as a user without rights: root may write everywhere."""
    if os.geteuid():
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def public_folder() -> Iterator[Path]:
    """Give a folder that any user may enter; pytest's own are closed to others."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        yield Path(folder)
        os.chmod(folder, 0o755)


def test_read_only_folder_refuses_writing_and_allows_reading(
    path: Path, public_folder: Path
) -> None:
    place = public_folder / "history.db"
    shutil.copyfile(path, place)
    os.chmod(place, 0o444)
    os.chmod(public_folder, 0o555)
    with as_nobody():
        with pytest.raises(HistoryUnavailable, match="Make .* a folder you can write to"):
            SQLiteStore(place)
        read_all(place)
        with closing(open_reader(str(place))) as reader:
            assert reader.find_flow_run("@last")["counts"] == {"COMPLETED": 300}
    assert [file.name for file in public_folder.iterdir()] == ["history.db"]


def test_read_only_file_refuses_writing(path: Path, public_folder: Path) -> None:
    place = public_folder / "history.db"
    shutil.copyfile(path, place)
    os.chmod(place, 0o444)
    os.chmod(public_folder, 0o777)
    with as_nobody():
        with pytest.raises(HistoryUnavailable):
            _write_one(place)


ODD_NAMES = [
    "with space.db",
    "question?.db",
    "ha#sh.db",
    "per%cent%20.db",
    "amp&er=sand.db",
    "quote'\"`.db",
    "Größe-数据-😀.db",
    "new\nline.db",
    "back\\slash.db",
    os.fsdecode(b"not-utf8-\xff.db"),
    "x" * 240 + ".db",
    "no suffix",
    "file:odd?mode=memory",
]


@pytest.mark.parametrize("name", ODD_NAMES)
@pytest.mark.parametrize("prefix", ["", "sqlite:///"])
def test_odd_names_work(tmp_path: Path, name: str, prefix: str) -> None:
    path = tmp_path / name[:20] / name
    with closing(SQLiteStore(f"{prefix}{path}")) as store:
        store.write(one_flow_run(new_id(), 2))
    assert {file.name for file in path.parent.iterdir()} == {name, f"{name}.gate"}
    with closing(open_reader(f"{prefix}{path}")) as reader:
        assert len(reader.flow_runs()) == 1


def test_name_too_long_for_its_companions_is_refused(tmp_path: Path) -> None:
    with pytest.raises(HistoryUnavailable, match="File name too long"):
        SQLiteStore(tmp_path / ("x" * 255))


def test_symbolic_link_leads_to_the_same_history(path: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.db"
    link.symlink_to(path)
    _write_one(link)
    assert select(path, "SELECT count(*) FROM flow_runs") == [(2,)]


def test_relative_path_and_home_are_understood(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    SQLiteStore("sqlite:///relative.db").close()
    SQLiteStore("sqlite:///~/own.db").close()
    assert (tmp_path / "relative.db").is_file()
    assert (tmp_path / "home" / "own.db").is_file()


def test_history_deleted_in_use_is_made_anew(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with closing(SQLiteStore(path)) as store:
        shutil.rmtree(path.parent)
        store.write(one_flow_run(new_id(), 5))
    assert "was moved or deleted" in caplog.text
    assert select(path, "SELECT count(*) FROM task_runs") == [(5,)]
    assert is_sound(path)


def test_full_disk_is_told_and_leaves_nothing_half(path: Path) -> None:
    with closing(SQLiteStore(path)) as store:
        connection = store._connection
        assert connection is not None
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {pages + 5}").fetchone()
        group = one_flow_run(new_id(), 2_000)
        with pytest.raises(HistoryUnavailable, match=r"The disk of .* is full"):
            store.write(group)
        assert select(path, "SELECT count(*) FROM task_runs") == [(300,)]
        connection.execute("PRAGMA max_page_count = 100000").fetchone()
        store.write(group)
    assert select(path, "SELECT count(*) FROM task_runs") == [(2_300,)]
    assert is_sound(path)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (sqlite3.SQLITE_CORRUPT, HistoryCorrupt),
        (sqlite3.SQLITE_CORRUPT_INDEX, HistoryCorrupt),
        (sqlite3.SQLITE_NOTADB, HistoryCorrupt),
        (sqlite3.SQLITE_FULL, HistoryUnavailable),
        (sqlite3.SQLITE_IOERR_FSYNC, HistoryUnavailable),
        (sqlite3.SQLITE_READONLY_DIRECTORY, HistoryUnavailable),
        (sqlite3.SQLITE_CANTOPEN, HistoryUnavailable),
        (sqlite3.SQLITE_BUSY_SNAPSHOT, HistoryUnavailable),
        (sqlite3.SQLITE_CONSTRAINT, HistoryError),
        (None, HistoryError),
    ],
)
def test_sqlite_errors_are_told(code: int | None, kind: type[HistoryError]) -> None:
    problem = sqlite3.OperationalError("it broke")
    if code is not None:
        problem.sqlite_errorcode = code
    answer = told(problem, "/data/history.db")
    assert type(answer) is kind
    assert "/data/history.db" in str(answer)


MOUNTS = r"""/dev/vda / ext4 rw 0 0
server:/home /home nfs4 rw 0 0
/dev/vdb /home/local xfs rw 0 0
//server/share /mnt/my\040share cifs rw 0 0
proc /proc proc rw 0 0
tmpfs /over lustre rw 0 0
tmpfs /over tmpfs rw 0 0
nonsense
"""


@pytest.mark.parametrize(
    ("place", "kind"),
    [
        ("/var/lib", None),
        ("/home", "nfs4"),
        ("/home/ann/.penstock", "nfs4"),
        ("/homely", None),
        ("/home/local/x", None),
        ("/mnt/my share/x", "cifs"),
        ("/over/x", None),
    ],
)
def test_network_filesystem_is_recognised(tmp_path: Path, place: str, kind: str | None) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text(MOUNTS, "utf-8")
    assert network_filesystem(place, mounts) == kind


def test_network_filesystem_is_warned_of(
    path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "network_filesystem", lambda folder: "nfs4")
    with caplog.at_level(logging.WARNING, "penstock.history"):
        SQLiteStore(path).close()
    assert "network file system (nfs4)" in caplog.text


def test_system_without_mounts_is_silent(tmp_path: Path) -> None:
    assert filesystems.network_filesystem("/", tmp_path / "missing") is None
