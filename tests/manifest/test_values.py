"""YAML as it is read here: the core schema of YAML 1.2, anchors and merge keys."""

from __future__ import annotations

import math

import pytest

from localapi.manifest import fingerprint

pytestmark = pytest.mark.everyday


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("no", "no"),
        ("on", "on"),
        ("2026-01-01", "2026-01-01"),
        ("12:30:45", "12:30:45"),
        ("0x10", "0x10"),
        ("0o17", "0o17"),
        ("1_000", "1_000"),
        ("0b11", "0b11"),
        ("'1.10'", "1.10"),
        ('"true"', "true"),
        ("!!str 1.10", "1.10"),
        ("! 5", "5"),
        ("|-\n      two\n      lines", "two\nlines"),
    ],
)
def test_text_is_what_looks_like_text(written, meant, manifest_of):
    manifest = manifest_of(f"chat:\n  a:\n    backend: echo\n    description: {written}\n")

    assert manifest.entries["a"].options.description == meant


@pytest.mark.parametrize(("written", "meant"), [("010", 10), ("+7", 7), ("-3", -3)])
def test_whole_numbers_are_decimal(written, meant, manifest_of):
    manifest = manifest_of(f"chat: {{a: {{backend: echo, defaults: {{seed: {written}}}}}}}")

    assert manifest.entries["a"].options.defaults.seed == meant


@pytest.mark.parametrize(
    ("written", "seconds"),
    [("90", 90), ("1.5h", 5400), ("15m", 900), ("2d", 172800), ("0", 0), ("forever", math.inf), (".inf", math.inf)],
)
def test_a_duration_is_read_in_seconds(written, seconds, manifest_of):
    manifest = manifest_of(f"chat: {{a: {{backend: echo, keep_alive: {written}}}}}")

    assert manifest.entries["a"].keep_alive == seconds


def test_anchors_and_merge_keys_repeat_values(manifest_of):
    manifest = manifest_of(
        """
chat:
  a: &usual {backend: echo, preload: true, defaults: &cool {temperature: 0.1}}
  b: {<<: *usual, preload: false}
  c: {<<: [{swap: cold}, *usual], defaults: {<<: *cool, top_p: 0.5}}
"""
    )

    a, b, c = (manifest.entries[name].options for name in "abc")
    assert (a.preload, b.preload, c.preload, c.swap) == (True, False, True, "cold")
    assert (b.defaults.temperature, c.defaults.temperature, c.defaults.top_p) == (0.1, 0.1, 0.5)


def test_a_byte_order_mark_and_windows_line_ends_are_read(folder, manifest_of):
    (folder / "models.yaml").write_bytes(b"\xef\xbb\xbfchat:\r\n  a: {backend: echo}\r\n")

    assert list(manifest_of(None).entries) == ["a"]


def test_entries_keep_the_order_of_the_file_chat_first(manifest_of):
    manifest = manifest_of("speech: {z: {backend: echo}}\nchat: {b: {backend: echo}, a: {backend: echo}}")

    assert list(manifest.entries) == ["b", "a", "z"]


def test_a_manifest_may_have_no_models(manifest_of):
    assert manifest_of("chat:\nspeech:\n").entries == {}


def test_a_name_leads_to_its_entry_by_id_or_alias(manifest_of):
    manifest = manifest_of("chat: {a: {backend: echo, aliases: [gpt-4o, org/name]}}")

    assert [manifest.resolve(name) for name in ("a", "gpt-4o", "org/name", "GPT-4o")] == [
        *[manifest.entries["a"]] * 3,
        None,
    ]


def test_the_servers_keep_alive_is_every_entrys_that_does_not_say(manifest_of):
    manifest = manifest_of("server: {keep_alive: 5m}\nchat: {a: {backend: echo}, b: {backend: echo, keep_alive: 0}}")

    assert [entry.keep_alive for entry in manifest.entries.values()] == [300, 0]


def test_what_is_served_differently_is_still_the_same_model(manifest_of):
    before = manifest_of("chat: {a: {backend: mlx-lm, path: demo, aliases: [x]}}").entries["a"]
    after = manifest_of("chat: {a: {backend: mlx-lm, path: demo, aliases: [y]}}").entries["a"]

    assert before.identity == after.identity
    assert fingerprint(before.identity) == fingerprint(after.identity)
    assert before.settings != after.settings
    assert fingerprint(before.settings) != fingerprint(after.settings)


def test_what_is_loaded_differently_is_another_model(manifest_of):
    before = manifest_of("chat: {a: {backend: mlx-lm, path: demo}}").entries["a"]
    after = manifest_of("chat: {a: {backend: mlx-lm, path: demo, max_batch: 4}}").entries["a"]

    assert before.identity != after.identity
    assert fingerprint(before.identity) != fingerprint(after.identity)
    assert before.settings == after.settings


def test_a_manifest_names_its_files_by_hash(manifest_of):
    before, after = manifest_of("chat: {}"), manifest_of("chat: { }")

    assert [str(file.path) for file in before.files] == ["models.yaml"]
    assert before.files != after.files
    assert before == after
