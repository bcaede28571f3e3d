"""Stored responses: for whom, how long, in how much space, and on a disk that fails."""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from localapi.api.openai.responses import folder as folders
from localapi.api.openai.responses import store as stores
from localapi.api.openai.responses.folder import BLOCK_BYTES, Folder
from localapi.api.openai.responses.store import Record, ResponseStore
from localapi.manifest import ResponsesOptions

pytestmark = pytest.mark.everyday

Opened = Callable[..., ResponseStore]


@pytest.fixture
async def opened(tmp_path: Path) -> AsyncIterator[Opened]:
    """Open the store of a folder, as often as a server starts."""
    all_stores: list[ResponseStore] = []

    def open_one(*, now: Callable[[], float] = time.time, **options: Any) -> ResponseStore:
        one = ResponseStore(Folder(tmp_path / "kept"), lambda: ResponsesOptions(**options), now=now)
        all_stores.append(one)
        return one

    yield open_one
    for each in all_stores:
        await each.close()


def record(number: int, *, owner: str | None = None, text: str = "Hi", previous: str | None = None) -> Record:
    response = {"id": f"resp_{number:032x}", "output": [], "previous_response_id": previous, "status": "completed"}
    return Record(owner, response, [{"id": "msg_1", "type": "message", "role": "user", "content": text}])


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.glob("*")}


async def test_a_response_is_found_at_once_and_after_a_restart(opened: Opened) -> None:
    first = opened()
    first.put(record(1, text="Größe"))
    found = await first.get(record(1).id, None)
    assert found == record(1, text="Größe")
    await first.close()
    assert await opened().get(record(1).id, None) == found


async def test_only_the_key_that_made_it_finds_a_response(opened: Opened) -> None:
    store = opened()
    store.put(record(1, owner="me"))
    store.put(record(2))
    for _ in range(2):  # from memory, and then from disk
        assert await store.get(record(1).id, "me")
        assert [await store.get(record(1).id, other) for other in ("you", None)] == [None, None]
        assert await store.get(record(2).id, "me") is None
        await store.close()
        store = opened()


async def test_a_response_expires_when_it_has_not_been_used(opened: Opened, tmp_path: Path) -> None:
    now = time.time()
    store = opened(now=lambda: now, keep=100.0)
    store.put(record(1))
    store.put(record(2))
    now += 90
    assert await store.get(record(1).id, None)
    now += 90
    assert await store.get(record(1).id, None)
    assert await store.get(record(2).id, None) is None
    await store.close()
    assert files(tmp_path / "kept") == {f"{record(1).id}.json"}


async def test_what_expired_while_no_server_ran_is_deleted_at_the_start(opened: Opened, tmp_path: Path) -> None:
    store = opened()
    store.put(record(1))
    store.put(record(2))
    await store.close()
    old = time.time() - 1000
    os.utime(tmp_path / "kept" / f"{record(1).id}.json", (old, old))
    later = opened(keep=100.0)
    assert await later.get(record(1).id, None) is None
    await later.close()
    again = opened(keep=100.0)
    await again.start()
    await again.close()
    assert files(tmp_path / "kept") == {f"{record(2).id}.json"}


async def test_a_deleted_response_is_gone_from_memory_and_disk(opened: Opened, tmp_path: Path) -> None:
    store = opened()
    store.put(record(1))
    store.delete(record(1).id)
    assert await store.get(record(1).id, None) is None
    await store.close()
    assert files(tmp_path / "kept") == set()


async def test_files_are_private_and_whole(opened: Opened, tmp_path: Path) -> None:
    store = opened()
    store.put(record(1))
    await store.close()
    [file] = (tmp_path / "kept").iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


@pytest.mark.parametrize("name", ["resp_1", "../resp_", "resp_" + "0" * 31 + "G", "", "resp_" + "0" * 32 + "/.."])
async def test_an_id_is_no_path(opened: Opened, name: str) -> None:
    assert await opened().get(name, None) is None


async def test_a_damaged_file_is_no_response(opened: Opened, tmp_path: Path) -> None:
    store = opened()
    store.put(record(1))
    await store.close()
    (tmp_path / "kept" / f"{record(1).id}.json").write_bytes(b'{"owner": nul')
    assert await opened().get(record(1).id, None) is None


async def test_nothing_is_stored_if_the_manifest_says_so(opened: Opened, tmp_path: Path) -> None:
    for options in ({"keep": 0}, {"max_mb": 0}):
        assert not opened(**options).keeps


async def test_a_disk_that_is_full_costs_nothing_but_a_warning(
    opened: Opened, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Folder, "write", full)
    store = opened()
    for number in range(3):
        store.put(record(number))
    await store.close()
    assert [await store.get(record(number).id, None) for number in range(3)] == [record(n) for n in range(3)]
    assert len([entry for entry in caplog.records if entry.levelname == "WARNING"]) == 1


async def test_memory_holds_the_latest_and_the_disk_all(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stores, "RECENT_BYTES", 3000)
    store = opened()
    for number in range(20):
        store.put(record(number, text="x" * 1000))
    for number in range(20):
        assert await store.get(record(number).id, None)
    await store.close()


def test_files_take_no_more_than_the_limit_and_the_longest_unused_go(tmp_path: Path) -> None:
    folder, limit = Folder(tmp_path), 10 * BLOCK_BYTES
    for number in range(10):
        folder.write(str(number), b"x", max_bytes=limit)
        os.utime(tmp_path / f"{number}.json", (number, number))
    folder.touch("0")
    folder.write("last", b"x" * (2 * BLOCK_BYTES), max_bytes=limit)
    kept = files(tmp_path)
    assert {"0.json", "9.json", "last.json"} <= kept
    assert not {"1.json", "2.json"} & kept
    assert sum(-(-path.stat().st_size // BLOCK_BYTES) for path in tmp_path.iterdir()) <= 10


def test_a_response_larger_than_the_limit_deletes_nothing(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    folder.write("1", b"x", max_bytes=BLOCK_BYTES)
    with pytest.raises(OSError, match="exceeds"):
        folder.write("2", b"x" * 5000, max_bytes=BLOCK_BYTES)
    assert files(tmp_path) == {"1.json"}


def test_files_of_other_servers_count(tmp_path: Path) -> None:
    one, other = Folder(tmp_path), Folder(tmp_path)
    for number in range(20):
        (one if number % 2 else other).write(str(number), b"x", max_bytes=8 * BLOCK_BYTES)
    one.sweep(max_bytes=8 * BLOCK_BYTES, keep_seconds=1000)
    assert len(files(tmp_path)) <= 8


def test_a_full_disk_makes_room_of_the_oldest_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Folder(tmp_path)
    for number in range(4):
        folder.write(str(number), b"x", max_bytes=10**6)
        os.utime(tmp_path / f"{number}.json", (number, number))
    write, failures = Folder._write, [OSError(errno.ENOSPC, "No space left on device")]

    def full_once(self: Folder, name: str, data: bytes) -> None:
        if failures:
            raise failures.pop()
        write(self, name, data)

    monkeypatch.setattr(Folder, "_write", full_once)
    folder.write("last", b"x", max_bytes=10**6)
    assert files(tmp_path) == {"2.json", "3.json", "last.json"}


def test_what_a_killed_server_left_is_deleted(tmp_path: Path) -> None:
    left = tmp_path / "resp_1.7.tmp"
    left.write_bytes(b"x")
    os.utime(left, (1, time.time() - folders.STALE_SECONDS - 1))
    (tmp_path / "resp_2.8.tmp").write_bytes(b"x")
    Folder(tmp_path).sweep(max_bytes=10**6, keep_seconds=1000)
    assert files(tmp_path) == {"resp_2.8.tmp"}
