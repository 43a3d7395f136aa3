"""Names of objects and locations of storages: what could lead elsewhere is refused (J10)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock import flow, task
from penstock.errors import InvalidOptionError
from penstock.results.base import checked_object_name
from penstock.results.storage import checked_location

SEGMENT = re.compile(r"[A-Za-z0-9._-]{1,128}")

REFUSED = [
    "", "/", "/etc/passwd", "..", "../x", "a/../b", "a/..", "./a", "a/.", "...", "a//b", "a/",
    "a\0b", "a\nb", "a\\b", "~", "~root/x", "C:\\x", "C:/x", "%2e%2e/x", "a b", "ä", "a" * 129,
    "a" * 5000, "/".join("a" * 17), "CON:", "a?b", "a*b", "s3://bucket/x", "\u202ea", "a/\ud800",
]  # fmt: skip


@pytest.mark.parametrize("name", REFUSED, ids=lambda name: ascii(name)[:30])
def test_name_that_leads_elsewhere_is_refused(name: str) -> None:
    with pytest.raises(InvalidOptionError, match="is to be stored as") as caught:
        checked_object_name(name)
    assert len(str(caught.value)) < 1000
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("name", [None, 7, b"a", Path("a")])
def test_name_has_to_be_a_text(name: Any) -> None:
    with pytest.raises(InvalidOptionError, match="must be a text"):
        checked_object_name(name)


@given(st.lists(st.from_regex(SEGMENT, fullmatch=True), min_size=1, max_size=16))
def test_plain_names_are_taken(segments: list[str]) -> None:
    name = "/".join(segments)
    if any(not segment.strip(".") for segment in segments):
        with pytest.raises(InvalidOptionError):
            checked_object_name(name)
    else:
        assert checked_object_name(name) == name


@given(st.text(max_size=50))
def test_whatever_is_taken_stays_inside(name: str) -> None:
    try:
        checked_object_name(name)
    except InvalidOptionError:
        return
    root = Path("/results/root")
    assert (root / name).resolve().is_relative_to(root)
    assert all(SEGMENT.fullmatch(segment) for segment in name.split("/"))


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        (None, None),
        ("/a/b", "/a/b"),
        ("/a/b/", "/a/b"),
        (Path("/a/b"), "/a/b"),
        ("file:///a/b", "/a/b"),
        ("s3://bucket/prefix/", "s3://bucket/prefix"),
        ("memory://x", "memory://x"),
    ],
)
def test_location_is_taken(given: Any, taken: str | None) -> None:
    assert checked_location(given) == taken


def test_relative_folder_is_that_of_where_it_is_said(monkeypatch: Any, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert checked_location("a") == str(tmp_path / "a")
    assert checked_location("~/x") == str(Path.home() / "x")


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (7, "result_storage is 7; it must be a folder, or a URL"),
        (b"/a", "result_storage is b'/a'"),
        ("", "result_storage is ''"),
        ("a\0b", r"result_storage is 'a\\x00b'"),
        ("s3://", "names no bucket or folder"),
        ("s3://bucket/../x", "with '\\?', '#' or '..' in it"),
        ("s3://bucket/x?versionId=1", "with '\\?', '#' or '..' in it"),
        ("file://host/a", "write file:///PATH"),
        ("ftp://me:canary-pw@host/x", "URL with a password in it"),
        ("s3://[/x", "is no URL"),
        ("simplecache::s3://bucket/x", "neither a folder nor a URL"),
    ],
)
def test_location_that_cannot_be_is_refused(given: Any, text: str) -> None:
    with pytest.raises(InvalidOptionError, match=text) as caught:
        checked_location(given)
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"persist_result": "yes"}, "persist_result is 'yes'; it must be True or False"),
        ({"result_storage": 7}, "result_storage is 7"),
        ({"result_serializer": "yaml"}, "result_serializer is 'yaml'"),
        ({"result_storage_key": 7}, "result_storage_key is 7"),
        ({"result_storage_key": "../x"}, "'../x'"),
        ({"result_storage_key": "{nobody}"}, "has no parameter 'nobody'"),
        ({"result_storage_key": "{"}, "no format string"),
    ],
)
def test_options_are_checked_at_decoration(options: dict[str, Any], text: str) -> None:
    with pytest.raises(InvalidOptionError, match=text):
        task(**options)(lambda value: value)
    if "result_storage_key" not in options:
        with pytest.raises(InvalidOptionError, match=text):
            flow(**options)(lambda value: value)


def test_options_are_kept_and_changed_by_with_options() -> None:
    @task(persist_result=True, result_storage="/a", result_serializer="json")
    def one() -> None: ...

    assert one.results is not None
    assert (one.results.persist, one.results.storage) == (True, "/a")
    other = one.with_options(persist_result=None, result_storage=None, result_serializer=None)
    assert other.results is None
    assert one.with_options(name="other").results == one.results
