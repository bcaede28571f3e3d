"""Child processes: their lines, their end, and that nothing is left of them."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import psutil
import pytest

from localapi.backends import process
from localapi.backends.process import MAX_LINE_BYTES, ChildProcess
from tests.server import until

pytestmark = pytest.mark.everyday


@pytest.fixture
def lines() -> list[str]:
    return []


async def python(code: str, lines: list[str]) -> ChildProcess:
    return await process.start(sys.executable, "-u", "-c", code, on_line=lines.append)


def ended(each: psutil.Process) -> bool:
    """Return whether it has ended. An orphan stays a zombie until the system's first process looks at it."""
    try:
        return each.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


async def test_each_line_is_told_also_of_a_progress_bar_and_the_last_one(lines: list[str]) -> None:
    child = await python(r"import sys; sys.stdout.write('one\n\n10 %\r20 %\r'); sys.stderr.write('end')", lines)
    assert await child.wait() == 0
    assert lines == ["one", "10 %", "20 %", "end"]
    await child.close()


async def test_a_line_without_an_end_is_told_in_parts(lines: list[str]) -> None:
    child = await python(f"print('x' * {3 * MAX_LINE_BYTES}, end='')", lines)
    await child.wait()
    assert "".join(lines) == "x" * 3 * MAX_LINE_BYTES
    assert len(lines) > 1
    await child.close()


@pytest.mark.parametrize(
    ("code", "how"),
    [
        ("", "ended with exit status 0"),
        ("raise SystemExit('disk full')", "ended with exit status 1 (disk full)"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "was killed by SIGKILL"),
    ],
)
async def test_how_a_process_ended(code: str, how: str, lines: list[str]) -> None:
    child = await python(code, lines)
    assert await child.how_it_ended() == how
    await child.close()


async def test_a_process_that_does_not_end_is_killed_with_what_it_started(lines: list[str]) -> None:
    started = asyncio.Event()
    child = await process.start(
        *(sys.executable, "-u", "-c", "import subprocess as s; p = s.Popen(['sleep', '600']); print(p.pid); p.wait()"),
        on_line=lambda line: (lines.append(line), started.set()),
    )
    await started.wait()
    processes = [psutil.Process(child.pid), psutil.Process(int(lines[0]))]
    assert not await child.close(0)
    until(lambda: all(ended(each) for each in processes))
    assert child.usage() is None


async def test_a_running_process_is_measured(lines: list[str]) -> None:
    child = await python("import time; time.sleep(600)", lines)
    used = child.usage()
    assert used is not None
    assert used.memory_bytes > 0
    await child.close(0)


async def test_a_process_that_grew_is_measured_anew_once_its_usage_is_forgotten(
    lines: list[str], tmp_path: Path
) -> None:
    go, grown = tmp_path / "go", asyncio.Event()
    os.mkfifo(go)
    code = f"open({str(go)!r}).read(); held = b'x' * 2**26; print(1); import time; time.sleep(600)"
    child = await process.start(sys.executable, "-u", "-c", code, on_line=lambda _: grown.set())
    before = child.usage()
    await asyncio.to_thread(go.write_text, "")
    await grown.wait()
    child.forget_usage()
    after = child.usage()
    assert before is not None
    assert after is not None
    assert after.memory_bytes > before.memory_bytes + 2**25
    await child.close(0)


def test_a_child_inherits_no_key_but_the_hub_s(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("KEY_OF_A_CLOUD", "HF_TOKEN", "SETTING"):
        monkeypatch.setenv(name, "1")
    process.withhold(["KEY_OF_A_CLOUD", "HF_TOKEN"])
    found = process.inherited()
    assert "KEY_OF_A_CLOUD" not in found
    assert (found["HF_TOKEN"], found["SETTING"]) == ("1", "1")
