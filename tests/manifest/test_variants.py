"""Variants in the manifest: names, defaults, locks and keys."""

from __future__ import annotations

import dataclasses

import pytest

pytestmark = pytest.mark.everyday

BASE = """
chat:
  base:
    backend: echo
    aliases: [b]
    description: of the base
    defaults: {temperature: 0.5, max_tokens: 100}
    locked: {top_p: 0.9}
    variants:
      terse: {aliases: [t], defaults: {max_tokens: 5, system: Be short}, description: short}
      strict: {locked: {temperature: 0}}
"""


def said(entry) -> tuple[dict[str, object], dict[str, object]]:
    return entry.options.defaults.model_dump(exclude_none=True), entry.options.locked.model_dump(exclude_none=True)


def test_a_variant_has_what_its_entry_has_and_its_own_over_it(manifest_of):
    manifest = manifest_of(BASE)
    terse, strict = manifest.resolve("t"), manifest.resolve("strict")

    assert list(manifest.entries) == ["base"]
    assert [entry.id for entry in manifest.offered] == ["base", "terse", "strict"]
    assert said(terse) == ({"temperature": 0.5, "max_tokens": 5, "system": "Be short"}, {"top_p": 0.9})
    assert said(strict) == ({"temperature": 0.5, "max_tokens": 100}, {"top_p": 0.9, "temperature": 0})
    assert (terse.model_id, terse.options.description, strict.options.description) == ("base", "short", "of the base")
    assert terse.options.aliases == ["t"]


def test_an_edit_of_a_variant_changes_the_settings_and_not_the_identity(manifest_of):
    before, after = (
        manifest_of(BASE).entries["base"],
        manifest_of(BASE.replace("5, system", "6, system")).entries["base"],
    )

    assert before.identity == after.identity
    assert before.settings != after.settings


@pytest.mark.parametrize(
    ("more", "key"),
    [
        ("  terse: {backend: echo}", "chat.base.variants.terse"),
        ("  x: {backend: echo, aliases: [strict]}", "chat.x.aliases.0"),
        ("  x: {backend: echo, aliases: [t]}", "chat.x.aliases.0"),
        ("  x: {backend: echo, variants: {terse: {}}}", "chat.x.variants.terse"),
        ("  x: {backend: echo, variants: {y: {aliases: [base]}}}", "chat.x.variants.y.aliases.0"),
        ("speech:\n  strict: {backend: echo}", "chat.base.variants.strict"),
    ],
)
def test_names_must_not_clash(problems_of, more, key):
    (problem,) = problems_of(f"{BASE}{more}\n")

    assert f": {key}: " in problem


@pytest.mark.parametrize(
    ("variant", "key"),
    [
        ("{max_batch: 3}", "v.max_batch"),
        ("{defaults: {temprature: 1}}", "v.defaults.temprature"),
        ("{locked: {temperature: 9}}", "v.locked.temperature"),
        ("{defaults: {system: ''}}", "v.defaults.system"),
        ("3", "v"),
    ],
)
def test_a_mistake_in_a_variant_has_its_place(problems_of, variant, key):
    (problem,) = problems_of(f"chat: {{a: {{backend: echo, variants: {{v: {variant}}}}}}}")

    assert f": chat.a.variants.{key}: " in problem


def test_a_variant_is_no_member_of_a_pool_and_speech_has_none(problems_of):
    assert "variant" in problems_of(f"{BASE}  p: {{backend: pool, of: [terse]}}\n")[0]
    assert problems_of("speech: {a: {backend: echo, variants: {v: {}}}}")


def test_a_key_opens_a_variant_by_its_own_name(manifest_of, monkeypatch):
    monkeypatch.setenv("K", "k" * 16)
    keys = "server: {api_keys: {k: {env: K, models: [t]}}}"

    (key,) = manifest_of(f"{BASE}{keys}").keys

    assert key.opens("terse")
    assert not key.opens("base")
    assert not key.opens("strict")


def test_an_entry_that_is_kept_has_the_new_names(manifest_of):
    old, new = manifest_of(BASE), manifest_of(BASE.replace("strict:", "new:"))

    kept = new.keeping(old, ["base"])

    assert [entry.id for entry in kept.offered] == ["base", "terse", "new"]
    assert dataclasses.replace(old, entries={}).offered == ()
