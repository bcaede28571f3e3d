"""Caches on disk, kept by one worker and found by the next."""

from __future__ import annotations

import errno
import json
import os
import resource
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors import safe_open

from localapi.worker.llm.prefix_cache import disk_store
from localapi.worker.llm.prefix_cache.cache import PrefixCache
from localapi.worker.llm.prefix_cache.disk_store import PrefixStore, fingerprint
from tests.worker.llm.prefix_cache.test_cache import MODELS, PLENTY, Prompt, answers, cache_of, cold, words

LONG_AGO = 1_000_000_000


@pytest.fixture
def opened(tmp_path: Path) -> Callable[..., PrefixCache]:
    """A worker that has just loaded the model."""

    def opened(kind: str, *, mark: str = "a" * 32, max_bytes: int = PLENTY) -> PrefixCache:
        return cache_of(kind, store=PrefixStore(tmp_path / "prefixes", mark, max_bytes=max_bytes))

    return opened


@pytest.fixture
def files(tmp_path: Path) -> Callable[[], list[Path]]:
    return lambda: sorted((tmp_path / "prefixes").glob("*/*"))


def save(cache: PrefixCache) -> None:
    while cache.save_some():
        pass


def after(prompt: Prompt, kind: str) -> Prompt:
    """The next turn."""
    return [*prompt, *cold(kind, prompt), *words(6, "next turn")]


@pytest.mark.parametrize("kind", MODELS)
def test_a_new_worker_goes_on_where_the_old_one_ended_and_says_the_same(
    kind: str, opened: Callable[..., PrefixCache]
) -> None:
    old, prompt = opened(kind), words(40, "kept")
    answers(kind, [prompt], old, ends=[20])
    save(old)
    new = opened(kind)
    assert (len(new), new.nbytes) == (0, 0), "only what the files are about was read"
    for _ in range(2):
        (answer,), (reused,) = answers(kind, [after(prompt, kind)], new, ends=[20])
        assert answer == cold(kind, after(prompt, kind))
        assert reused >= 48
    assert answers(kind, [prompt[:20] + words(9, "fork")], opened(kind)) == (
        [cold(kind, prompt[:20] + words(9, "fork"))],
        [20],
    )


@pytest.mark.parametrize("kind", MODELS)
def test_a_conversation_that_forks_after_a_restart_can_be_kept_and_read_again(
    kind: str, opened: Callable[..., PrefixCache]
) -> None:
    prompt = words(40, "kept")
    fork = prompt[:30] + words(9, "fork")
    for asked in (prompt, fork, prompt, fork):
        worker = opened(kind)
        assert answers(kind, [asked], worker, ends=[20, 30])[0] == [cold(kind, asked)]
        save(worker)
    worker = opened(kind)
    assert answers(kind, [after(p, kind) for p in (prompt, fork)], worker)[1] == [48, 47]


def test_a_beginning_that_is_in_a_longer_conversations_file_serves_the_shorter_ones_too(
    opened: Callable[..., PrefixCache],
) -> None:
    old, system = opened("qwen3"), words(20, "system")
    prompts = [system + words(count, f"user {count}") for count in (60, 20, 30)]
    for prompt in prompts:
        answers("qwen3", [prompt], old)
        save(old)
    assert answers("qwen3", [after(prompt, "qwen3") for prompt in prompts], opened("qwen3"))[1] == [88, 48, 58]


def test_a_longer_conversation_adds_only_its_tail_to_the_disk(
    opened: Callable[..., PrefixCache], files: Callable[[], list[Path]]
) -> None:
    cache, prompt = opened("qwen3"), words(200, "kept")
    answers("qwen3", [prompt], cache)
    save(cache)
    (first,) = files()
    answers("qwen3", [after(prompt, "qwen3")], cache)
    save(cache)
    (second,) = set(files()) - {first}
    assert second.stat().st_size < first.stat().st_size / 5


def test_files_are_whole_safetensors_for_the_user_alone(
    opened: Callable[..., PrefixCache], files: Callable[[], list[Path]], tmp_path: Path
) -> None:
    cache = opened("falcon_h1")
    answers("falcon_h1", [words(40, "kept")], cache)
    save(cache)
    assert len(files()) == 2
    for file in files():
        assert file.stat().st_mode & 0o777 == 0o600
        with safe_open(file, "np") as content:
            assert content.get_tensor("tokens").tolist()[:40] == words(40, "kept")
    assert {folder.stat().st_mode & 0o777 for folder in (tmp_path / "prefixes", files()[0].parent)} == {0o700}


def test_a_worker_killed_while_it_writes_leaves_nothing_that_another_one_would_use(
    opened: Callable[..., PrefixCache], files: Callable[[], list[Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("localapi.worker.llm.prefix_cache.disk_store.PORTION_BYTES", 1024)
    cache, prompt = opened("qwen3"), words(40, "kept")
    answers("qwen3", [prompt], cache)
    assert cache.save_some()
    (unfinished,) = files()
    assert unfinished.suffix == ".tmp"
    killed = unfinished.with_name("killed.1.tmp")
    shutil.copy(unfinished, killed)
    os.utime(killed, (LONG_AGO, LONG_AGO))
    assert opened("qwen3").fetch(prompt) is None
    assert files() == [unfinished], "what has not grown for long was swept away, and what may grow was not"


@pytest.mark.parametrize("place", [0, 30, 300, -1, -3000])
def test_a_damaged_file_costs_a_line_and_is_not_used(
    place: int, opened: Callable[..., PrefixCache], files: Callable[[], list[Path]], capfd: pytest.CaptureFixture[str]
) -> None:
    cache, prompt = opened("qwen3"), words(40, "kept")
    answers("qwen3", [prompt], cache)
    save(cache)
    (file,) = files()
    content = bytearray(file.read_bytes())
    content[place] ^= 4
    file.write_bytes(content)
    new = opened("qwen3")
    assert answers("qwen3", [prompt], new) == ([cold("qwen3", prompt)], [0])
    (line,) = capfd.readouterr().err.splitlines()
    assert str(file) in line
    assert "damaged" in line
    save(new)
    assert answers("qwen3", [prompt], opened("qwen3"))[1] == [39], "it is written anew"


@pytest.mark.parametrize("size", [0, 7, 100, 5000])
def test_a_file_that_was_cut_short_costs_a_line_and_is_not_used(
    size: int, opened: Callable[..., PrefixCache], files: Callable[[], list[Path]], capfd: pytest.CaptureFixture[str]
) -> None:
    cache, prompt = opened("lfm2"), words(40, "kept")
    answers("lfm2", [prompt], cache, ends=[20])
    save(cache)
    for file in files():
        os.truncate(file, min(size, file.stat().st_size - 1))
    assert answers("lfm2", [prompt], opened("lfm2")) == ([cold("lfm2", prompt)], [0])
    assert len(capfd.readouterr().err.splitlines()) == 4


@pytest.mark.parametrize("kind", ["qwen3", "gemma3_text", "lfm2"])
def test_files_may_vanish_at_any_time(
    kind: str, opened: Callable[..., PrefixCache], files: Callable[[], list[Path]], capfd: pytest.CaptureFixture[str]
) -> None:
    prompt = words(40, "kept")
    for victim in range(4):
        worker = opened(kind)
        answers(kind, [prompt], worker, ends=[20])
        save(worker)
        new = opened(kind)
        if victim < len(files()):
            files()[victim].unlink()
        assert answers(kind, [prompt], new)[0] == [cold(kind, prompt)]
    assert capfd.readouterr().err == ""


def test_another_fingerprints_files_are_not_used(opened: Callable[..., PrefixCache]) -> None:
    cache, prompt = opened("qwen3"), words(40, "kept")
    answers("qwen3", [prompt], cache)
    save(cache)
    assert opened("qwen3", mark="b" * 32).fetch(prompt) is None
    assert opened("qwen3").fetch(prompt) is not None


def test_the_folder_stays_below_its_cap_and_the_least_recently_used_go_first_whosever_they_are(
    opened: Callable[..., PrefixCache], files: Callable[[], list[Path]]
) -> None:
    one, two, three = (words(40, i) for i in range(3))
    for mark, prompt in (("b" * 32, one), ("a" * 32, two)):
        cache = opened("qwen3", mark=mark)
        answers("qwen3", [prompt], cache)
        save(cache)
    cap = int(2.5 * files()[0].stat().st_size)
    assert opened("qwen3", mark="b" * 32).fetch(one), "which is its use"
    cache = opened("qwen3", max_bytes=cap)
    answers("qwen3", [three], cache)
    save(cache)
    assert sum(file.stat().st_size for file in files()) <= cap
    assert opened("qwen3", mark="b" * 32).fetch(one)
    assert opened("qwen3").fetch(two) is None
    assert opened("qwen3").fetch(three)


def test_what_memory_had_no_room_for_comes_back_from_disk(tmp_path: Path) -> None:
    cache = cache_of("qwen3", 256 * 60, store=PrefixStore(tmp_path, "a" * 32, max_bytes=PLENTY))
    prompts = [words(40, i) for i in range(4)]
    for prompt in prompts:
        answers("qwen3", [prompt], cache)
        save(cache)
    for prompt in prompts:
        assert answers("qwen3", [prompt], cache) == ([cold("qwen3", prompt)], [39])
        assert cache.nbytes <= 256 * 60


def test_a_disk_that_cannot_be_written_costs_a_line_and_nothing_else(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    cache, prompt = (
        cache_of("qwen3", store=PrefixStore(tmp_path / "file" / "in", "a" * 32, max_bytes=PLENTY)),
        words(40, 1),
    )
    for _ in range(2):
        assert answers("qwen3", [prompt], cache)[0] == [cold("qwen3", prompt)]
        save(cache)
    assert len(capfd.readouterr().err.splitlines()) == 1


def test_a_disk_without_room_is_used_again_when_it_has_some(
    opened: Callable[..., PrefixCache],
    files: Callable[[], list[Path]],
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(disk_store, "REST_SECONDS", 0)
    cache, (soft, hard) = opened("qwen3"), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        assert answers("qwen3", [words(40, 1)], cache)[0] == [cold("qwen3", words(40, 1))]
        save(cache)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    told = capfd.readouterr().err
    assert "are not stored in" in told
    assert "free some disk space" in told
    assert files() == []
    answers("qwen3", [words(40, 2)], cache)
    save(cache)
    assert files()


def test_a_file_that_cannot_be_read_now_is_kept(
    opened: Callable[..., PrefixCache],
    files: Callable[[], list[Path]],
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cache, prompt = opened("qwen3"), words(40, 1)
    answers("qwen3", [prompt], cache)
    save(cache)
    before = files()

    def away(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", away)
        assert answers("qwen3", [prompt], opened("qwen3")) == ([cold("qwen3", prompt)], [0])
    assert "cannot be read now: Input/output error: is the drive connected?" in capfd.readouterr().err
    assert files() == before
    assert answers("qwen3", [prompt], opened("qwen3"))[1] == [39]


def test_a_fingerprint_changes_with_weights_tokenizer_template_and_settings_and_with_nothing_else(
    tiny_model: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    (folder / "model.safetensors").chmod(0o644)
    seen = [fingerprint(folder), fingerprint(folder, "kv_bits=8")]
    os.utime(folder / "model.safetensors", (LONG_AGO, LONG_AGO))
    seen.append(fingerprint(folder))
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        content = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps({**content, "extra": 1}))
        seen.append(fingerprint(folder))
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    seen.append(fingerprint(folder))
    assert len(set(seen)) == len(seen)
    (folder / "README.md").write_text("new")
    os.utime(folder / "config.json")
    assert fingerprint(folder) == seen[-1]
