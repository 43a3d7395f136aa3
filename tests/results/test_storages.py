"""The contract of result storages over a folder, memory, and a real S3 server."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from penstock import flow, task
from penstock.errors import MissingDependencyError, ResultStorageError
from penstock.results import filesystems
from penstock.results import storage as storages
from penstock.results.base import ResultStorage
from penstock.results.storage import open_storage
from penstock.task_runners import ProcessPoolTaskRunner
from penstock.testing.kept_results import held, loaded
from tests.leaks import lend_loop, lend_sockets
from tests.results.contract import StorageContract
from tests.results.storages import content


class TestLocalStorage(StorageContract):
    @pytest.fixture
    def storage(self, tmp_path: Path) -> ResultStorage:
        return open_storage(str(tmp_path / "results"))


class TestPowerSafeStorage(StorageContract):
    @pytest.fixture
    def storage(self, tmp_path: Path) -> ResultStorage:
        return open_storage(str(tmp_path / "results"), power_safe=True)


class TestMemoryStorage(StorageContract):
    @pytest.fixture
    def storage(self) -> Iterator[ResultStorage]:
        fsspec.filesystem("memory").makedirs("/results/here")
        yield open_storage("memory://results/here")
        fsspec.filesystem("memory").rm("/results", recursive=True)


@pytest.fixture(scope="module")
def s3_server() -> Iterator[str]:
    """Run an S3 server on this machine and give its address."""
    server_of = pytest.importorskip("moto.server")
    pytest.importorskip("s3fs")
    with lend_sockets(), lend_loop(fsspec.asyn.get_loop()):
        server = server_of.ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
        server.start()
        host, port = server.get_host_and_port()
        try:
            yield f"http://{host}:{port}"
        finally:
            server.stop()


@pytest.fixture
def bucket(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Make a bucket and give its name; the environment says where S3 is."""
    import s3fs

    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary-secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with lend_sockets():
        storages._storages.clear()
        s3fs.S3FileSystem.clear_instance_cache()
        files = s3fs.S3FileSystem()
        files.mkdir("penstock-results")
        yield "penstock-results"
        files.invalidate_cache()
        files.rm("penstock-results", recursive=True)
        s3fs.S3FileSystem.clear_instance_cache()
        storages._storages.clear()


class TestS3Storage(StorageContract):
    @pytest.fixture
    def storage(self, bucket: str) -> ResultStorage:
        return open_storage(f"s3://{bucket}/some/where")


def test_flow_keeps_results_in_s3(bucket: str) -> None:
    @task(persist_result=True)
    def large() -> Any:
        return b"x" * 6_000_000

    @task
    def size(data: Any) -> int:
        return len(data)

    @flow(task_runner=ProcessPoolTaskRunner(2), result_storage=f"s3://{bucket}/runs")
    def example() -> None:
        futures.append(large.submit())
        assert size.submit(futures[0]).result() == 6_000_000

    futures: list[Any] = []
    example()
    assert held(futures[0])[1] == "stored"
    assert loaded(futures[0]) == b"x" * 6_000_000


def test_missing_bucket_is_told_at_once(bucket: str) -> None:
    storage = open_storage("s3://no-such-bucket-here/runs")
    with pytest.raises(ResultStorageError, match=r"s3://no-such-bucket-here/runs/a cannot be st"):
        storage.write("a", content(b"x"))


def test_storage_that_does_not_answer_is_told_without_secrets(
    bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import s3fs

    monkeypatch.setattr(filesystems, "PATIENCE", 0.0)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free.getsockname()[1]}")
        s3fs.S3FileSystem.clear_instance_cache()
        monkeypatch.setattr(s3fs.S3FileSystem, "retries", 1)
        storage = filesystems.FsspecStorage(f"s3://{bucket}/runs")
        with pytest.raises(ResultStorageError, match="cannot be stored: ") as caught:
            storage.write("a", content(b"x"))
    assert "canary-secret" not in str(caught.value)


def test_missing_package_is_named() -> None:
    with pytest.raises(MissingDependencyError, match="requires `gcsfs`; install it with: pip inst"):
        open_storage("gs://bucket/prefix")


def test_unknown_kind_of_url_is_told() -> None:
    with pytest.raises(ResultStorageError, match="'nonsense://a/b' cannot be used"):
        open_storage("nonsense://a/b")


def test_fsspec_is_not_loaded_for_folders(tmp_path: Path) -> None:
    import subprocess
    import sys

    code = (
        "import sys\nfrom penstock import task\n"
        "@task(persist_result=True)\ndef large(): return b'x' * 100_000\n"
        "large()\nassert 'fsspec' not in sys.modules"
    )
    (tmp_path / "script.py").write_text(code)
    subprocess.run([sys.executable, str(tmp_path / "script.py")], check=True, timeout=50)
    assert os.listdir(os.environ["PENSTOCK_HOME"] + "/results/tasks")
