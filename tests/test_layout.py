"""Imports point one way: every import of localapi is followed in its source, and an edge against the order fails.

Imports inside functions and below `TYPE_CHECKING` count like all others. Docstrings begin with a verb or a noun.
"""

from __future__ import annotations

import ast
import functools
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

pytestmark = pytest.mark.everyday

PACKAGE = Path(__file__).parent.parent / "localapi"

MAY_IMPORT = {
    "errors": set(),
    "system": set(),
    "worker.protocol": set(),
    "cluster.protocol": {"worker.protocol"},
    "cluster.rooms": {"system", "cluster.protocol"},
    "audio": {"system"},
    "images": set(),
    "text": set(),
    "observability": {"system"},
    "settings": {"errors"},
    "environments": {"errors", "system"},
    "backends": {
        *("errors", "system", "worker.protocol", "cluster.protocol", "audio", "images", "text", "environments"),
    },
    "cluster": {"system", "worker.protocol", "cluster.protocol", "cluster.rooms", "backends"},
    "kinds": {"backends", "worker.protocol", "observability"},
    "manifest": {"errors", "system", "backends", "kinds"},
    "runtime": {"errors", "system", "worker.protocol", "cluster.protocol", "backends", "kinds", "manifest"},
    "reload": {"errors", "system", "worker.protocol", "backends", "kinds", "manifest", "runtime"},
    "http": {"errors", "system", "observability", "worker.protocol", "backends", "kinds", "manifest", "runtime"},
    "api": {
        *("errors", "system", "observability", "worker.protocol", "cluster.protocol", "audio", "images", "text"),
        *("backends", "kinds", "manifest", "runtime"),
        *("reload", "http"),
    },
    "app": {
        *("errors", "system", "observability", "settings", "backends", "kinds", "manifest"),
        *("runtime", "reload", "http", "api"),
    },
    "client": {"errors"},
    "service": {"errors", "system"},
    "diagnosis": {
        *("errors", "system", "settings", "environments", "cluster.protocol", "cluster.rooms", "backends"),
        *("manifest", "observability", "client", "service"),
    },
    "cli": {
        *("errors", "system", "observability", "settings", "text", "backends", "kinds"),
        *("manifest", "reload", "client", "app"),
        *("environments", "service", "diagnosis"),
    },
    "__main__": {"cli"},
    "worker": {"system", "worker.protocol", "audio", "images"},
}
"""The order: what each part may import of the others; whatever is not here imports nothing and is imported by nobody.

`worker` is everything that runs inside a worker; its files import each other freely.
"""

ENGINES = {"mlx", "mlx_lm", "mlx_audio", "transformers", "tokenizers", "huggingface_hub", "llguidance", "tqdm"}
ENGINES |= {"faster_whisper", "mlx_vlm", "piper", "onnxruntime", "google", "espeakng_loader"}
HTTP = {"quart", "hypercorn", "werkzeug"}
DATA = {"pydantic", "pydantic_core"}
SETTINGS = {*DATA, "pydantic_settings"}

MAY_USE = {
    "settings": SETTINGS,
    "system": {"psutil"},
    "worker.protocol": {"msgspec"},
    "cluster.protocol": {"msgspec"},
    "cluster": {"ray"},
    "audio": {"av", "numpy"},
    "text": {"sentencex", "markdown_it"},
    "backends": {*DATA, "dotenv", "h11", "httpx2", "msgspec"},
    "kinds": {*DATA, "msgspec"},
    "observability": {"opentelemetry"},
    "manifest": {*SETTINGS, "yaml"},
    "reload": {"watchfiles"},
    "http": {*HTTP, *DATA, "brotli", "h11", "msgspec"},
    "api": {*HTTP, *DATA, "msgspec", "prometheus_client"},
    "app": HTTP,
    "diagnosis": {"msgspec"},
    "cli": {"click", "markdown_it", "prompt_toolkit", "rich"},
    "worker": {*ENGINES, "PIL", "jinja2", "msgspec", "numpy", "safetensors"},
}
"""The packages that each part may import beside the standard library: YAML, HTTP and engines have one home each."""


class Import(NamedTuple):
    """One import, where it stands."""

    part: str
    """Part of the importing module."""
    name: str
    """Dotted name of the import."""
    place: str


def module(path: Path) -> str:
    dotted = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
    return dotted.removesuffix(".__init__")


MODULES = {module(path): path for path in PACKAGE.rglob("*.py")}


def part_of(name: str) -> str:
    """The part of localapi that a module belongs to; the package itself is the part ''."""
    _, _, inner = name.partition(".")
    within = ".".join(inner.split(".")[:2])
    return within if within in {"worker.protocol", "cluster.protocol", "cluster.rooms"} else inner.partition(".")[0]


def names(node: ast.AST, importer: str, path: Path) -> Iterator[str]:
    """Yield the imports of a node; for `from package import name`, the module of that name if there is one."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        package = importer if path.name == "__init__.py" else importer.rpartition(".")[0]
        above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
        source = ".".join([*above, *([node.module] if node.module else [])])
        for alias in node.names:
            inner = f"{source}.{alias.name}"
            yield inner if inner in MODULES else source


@functools.cache
def imports() -> list[Import]:
    return [
        Import(part_of(name), found, f"{path.relative_to(PACKAGE.parent)}:{getattr(node, 'lineno', 0)}")
        for name, path in MODULES.items()
        for node in ast.walk(ast.parse(path.read_text()))
        for found in names(node, name, path)
    ]


def is_ours(name: str) -> bool:
    return name.partition(".")[0] == PACKAGE.name


def test_every_part_has_its_place_in_the_order() -> None:
    assert {part_of(name) for name in MODULES} - {""} <= set(MAY_IMPORT)


def test_the_order_has_no_circle() -> None:
    done: set[str] = set()
    while ready := {part for part, below in MAY_IMPORT.items() if part not in done and below <= done}:
        done |= ready
    assert done == set(MAY_IMPORT)


def test_imports_inside_the_package_follow_the_order() -> None:
    wrong = [
        f"{found.place}: {found.part or 'localapi'} imports {found.name}"
        for found in imports()
        if is_ours(found.name) and part_of(found.name) not in {"", found.part, *MAY_IMPORT.get(found.part, set())}
    ]
    assert wrong == []


def test_the_package_itself_imports_nothing_of_its_own() -> None:
    assert [found.place for found in imports() if found.part == "" and is_ours(found.name)] == []


def test_other_packages_are_imported_only_where_they_belong() -> None:
    wrong = [
        f"{found.place}: {found.part or 'localapi'} imports {found.name}"
        for found in imports()
        if not is_ours(found.name)
        and (package := found.name.partition(".")[0]) not in sys.stdlib_module_names
        and package not in MAY_USE.get(found.part, set())
    ]
    assert wrong == []


@pytest.mark.parametrize(
    ("package", "homes"),
    [
        ("yaml", {"manifest"}),
        ("quart", {"api", "app", "http"}),
        ("hypercorn", {"api", "app", "http"}),
        *((engine, {"worker"}) for engine in sorted(ENGINES)),
    ],
)
def test_a_package_has_these_homes_only(package: str, homes: set[str]) -> None:
    assert {part for part, packages in MAY_USE.items() if package in packages} == homes


def test_every_import_of_the_server_is_seen() -> None:
    """Also those that stand inside functions and below TYPE_CHECKING."""
    seen = {(found.part, found.name.partition(".")[0]) for found in imports()}
    assert {("http", "hypercorn"), ("app", "quart"), ("worker", "mlx_lm"), ("manifest", "yaml")} <= seen
    assert ("cli", "localapi.app") in {(found.part, found.name) for found in imports()}


HALF_A_QUESTION = {"What", "Whether", "Which", "Who", "Whose", "Where", "When", "Why", "How"}
"""A reader has to find the noun or the verb behind these: "Whether it is loaded" is "True if it is loaded"."""
HALF_A_PHRASE = {"Of", "As", "By", "For", "From", "In", "On", "With", "To", "If", "That", "Those", "Also", "Until"}
"""These need the name above to make sense: "Of the entry" is "Name of the entry"."""


def test_docstrings_begin_with_a_verb_or_a_noun() -> None:
    """Ruff's rule D401 knows the mood of verbs, and only in functions; this reads classes and attributes as well."""
    wrong = []
    for path in MODULES.values():
        text = path.read_text()
        for found in re.finditer(r'^ *"""(\w+)', text, re.MULTILINE):
            if found[1] in HALF_A_QUESTION | HALF_A_PHRASE:
                line = text.count("\n", 0, found.start(1)) + 1
                wrong.append(f"{path.relative_to(PACKAGE.parent)}:{line}: {found[1]} …")
    assert wrong == []
