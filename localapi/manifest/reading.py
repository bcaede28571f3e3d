"""From files and environment to a manifest: the one way in."""

from __future__ import annotations

import os.path
from dataclasses import dataclass, replace
from pathlib import Path

from localapi.errors import ManifestError, Problem
from localapi.kinds import KINDS
from localapi.manifest import environment
from localapi.manifest.checking import manifest_of
from localapi.manifest.entries import Manifest, ManifestFile
from localapi.manifest.environment import NO_OVERRIDES, Overrides
from localapi.manifest.excerpts import with_excerpts
from localapi.manifest.layers import overlay, without_nulls
from localapi.manifest.origin import Origin, Scalar, Table
from localapi.manifest.profiles import profile_path, unknown_profile
from localapi.manifest.text import Text
from localapi.manifest.yaml_layer import Layer, layer_of, read_layer

DEFAULT_MANIFEST = Path("models.yaml")

# os.path.exists answers where Path.exists raises: for a name that is too long, or in a folder that may not be searched.


@dataclass(frozen=True)
class ManifestSource:
    """Where a manifest comes from; reading it again may give another manifest."""

    path: Path | None = None
    """None: `models.yaml` in the current folder, which may be missing where the environment is enough."""
    profile: str | None = None
    """A name or, with a slash or .yaml, a path."""
    overrides: Overrides = NO_OVERRIDES

    @property
    def manifest(self) -> Path:
        """The manifest's file, which may not exist."""
        return DEFAULT_MANIFEST if self.path is None else self.path

    def files(self) -> tuple[Path, ...]:
        """The files to watch, whether they exist now or not: the manifest, then the profile."""
        if self.profile is None:
            return (self.manifest,)
        try:
            return (self.manifest, profile_path(self.profile, self.manifest))
        except ManifestError:
            return (self.manifest,)

    def pinned(self) -> ManifestSource:
        """The same, with `models.yaml` no longer optional if it exists now.

        A server that once read the file must not take the moment in which an editor replaces it for its absence.
        """
        return replace(self, path=self.manifest) if os.path.exists(self.manifest) else self


def read(
    source: ManifestSource, instead: Text | None = None, *, needs_secrets: bool = True, served: Manifest | None = None
) -> Manifest:
    """Read everything that the source names. Blocks on files. Raises ManifestError with every problem found.

    `instead` is taken for what the manifest's file holds: the same as if it had been saved. Only a server needs the
    keys' secrets. Others may do without those that are not in their environment. An entry that says what it says in
    `served` is not refused because its files are gone since.
    """
    alone = instead is None and source.path is None and not os.path.exists(source.manifest)
    problems: list[Problem] = []
    layers = _layers(source, problems, instead, alone=alone)
    files = tuple(ManifestFile(each.text.path, each.text.sha256, each.text.text) for each in layers if each)
    if problems and any(layer is None or layer.root is None for layer in layers):
        raise _refusal(problems, source, files)
    merged = _merged([layer.root for layer in layers if layer and layer.root])
    try:
        merged = overlay(merged, environment.layer(source.overrides, merged, alone=alone))
    except ManifestError as error:
        problems.extend(error.problems)
    if alone and not problems and not any(merged.get(section) for section in KINDS):
        raise ManifestError([_nothing_to_serve(source)])
    manifest = manifest_of(merged, files, problems, needs_secrets=needs_secrets, served=served)
    if problems or manifest is None:
        raise _refusal(problems, source, files)
    return manifest


def _layers(
    source: ManifestSource, problems: list[Problem], instead: Text | None, *, alone: bool
) -> list[Layer | None]:
    """The manifest's layer and the profile's; None for one that cannot be read. All problems are collected."""
    layers: list[Layer | None] = []
    if not alone:
        layer = _read(source.manifest, problems, instead)
        if layer and layer.root:
            problems.extend(_empty_entries(layer.root))
        layers.append(layer)
    if source.profile is not None:
        try:
            path = profile_path(source.profile, source.manifest)
        except ManifestError as error:
            problems.extend(error.problems)
            return [*layers, None]
        if os.path.exists(path):
            layers.append(_read(path, problems))
        else:
            problems.append(unknown_profile(source.profile, path, source.manifest))
            layers.append(None)
    return layers


def _read(path: Path, problems: list[Problem], instead: Text | None = None) -> Layer | None:
    try:
        layer = read_layer(path) if instead is None else layer_of(instead)
    except ManifestError as error:
        problems.extend(error.problems)
        return None
    problems.extend(layer.problems)
    return layer


def _merged(roots: list[Table]) -> Table:
    merged = Table({}, Origin("environment", Path.cwd()))
    for root in roots:
        merged = overlay(merged, root) if merged.members else without_nulls(root)
    return merged


def _empty_entries(root: Table) -> list[Problem]:
    """In a profile an entry of null removes; in the manifest there is nothing to remove, so something is forgotten."""
    return [
        member.origin.problem("is empty; say at least its backend, or remove the line", (section, key))
        for section in KINDS
        for key, member in (root.table(section) or Table({}, root.origin)).members.items()
        if isinstance(member.node, Scalar) and member.node.value is None
    ]


def _nothing_to_serve(source: ManifestSource) -> Problem:
    message = (
        "does not exist in the current folder; `localapi init` writes one, with a model that comes along. Or give "
        "another file with --manifest, or set CHAT_MODEL_PATH, AUDIO_MODEL_PATH or ECHO_MODE=1"
    )
    return Problem(str(source.manifest), message)


def _refusal(problems: list[Problem], source: ManifestSource, read_files: tuple[ManifestFile, ...]) -> ManifestError:
    """In the order of the files, then of the lines; what the environment said comes last."""
    files = [str(path) for path in source.files()]

    def place(problem: Problem) -> tuple[int, int, int]:
        index = files.index(problem.source) if problem.source in files else len(files)
        return (index, problem.line or 0, problem.column or 0)

    in_order = sorted(dict.fromkeys(problems), key=place)
    return ManifestError(with_excerpts(in_order, {str(file.path): file.text for file in read_files}))
