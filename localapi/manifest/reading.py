"""Read a manifest from files and the environment. This is the only way to get one."""

from __future__ import annotations

import contextlib
import os.path
from dataclasses import dataclass, replace
from pathlib import Path

from localapi.errors import ManifestError, Problem
from localapi.kinds import KINDS
from localapi.manifest import environment
from localapi.manifest.checking import manifest_of
from localapi.manifest.entries import Manifest
from localapi.manifest.environment import NO_OVERRIDES, Overrides
from localapi.manifest.excerpts import with_excerpts
from localapi.manifest.including import Followed, Inclusion, Place, followed
from localapi.manifest.layers import overlay, without_nulls
from localapi.manifest.origin import Origin, Scalar, Table
from localapi.manifest.profiles import profile_path, unknown_profile
from localapi.manifest.text import Text
from localapi.manifest.yaml_layer import Layer, layer_of, read_layer

DEFAULT_MANIFEST = Path("models.yaml")
NOTHING_TO_SERVE = (
    "does not exist in the current folder; create one with `localapi init`, which includes a small model. Or name "
    "another file with --manifest, or set CHAT_MODEL_PATH, AUDIO_MODEL_PATH or ECHO_MODE=1"
)

# os.path.exists returns False where Path.exists raises: for a name that is too long, or in an unreadable folder.


@dataclass(frozen=True)
class ManifestSource:
    """Source of a manifest. Reading it again may return a different manifest."""

    path: Path | None = None
    """Path of the manifest; None for `models.yaml` in the current folder, optional if the environment names a model."""
    profile: str | None = None
    """Name of the profile or, with a slash or .yaml, the path of its file."""
    overrides: Overrides = NO_OVERRIDES

    @property
    def manifest(self) -> Path:
        """Path of the manifest, which may not exist."""
        return DEFAULT_MANIFEST if self.path is None else self.path

    def files(self) -> tuple[Path, ...]:
        """Return the files to watch, existing or not.

        These are the manifest, the profile, the files that they include, and `.env` if one refers to variables. Blocks.
        """
        return self._followed().files

    def own_files(self) -> tuple[Path, ...]:
        """Return the manifest and the files that it includes, without the profile. Blocks."""
        return followed([self.manifest]).yaml

    def patterns(self) -> frozenset[Place]:
        """Return the folders, with patterns of names, in which new files would be included. Blocks."""
        return self._followed().patterns

    def _followed(self) -> Followed:
        files = [self.manifest]
        if self.profile is not None:
            with contextlib.suppress(ManifestError):
                files.append(profile_path(self.profile, self.manifest))
        return followed(files)

    def pinned(self) -> ManifestSource:
        """Return this source, but with `models.yaml` required if it exists now.

        A server that has read the file must not treat it as absent while an editor replaces it.
        """
        return replace(self, path=self.manifest) if os.path.exists(self.manifest) else self


def read(
    source: ManifestSource, instead: Text | None = None, *, needs_secrets: bool = True, served: Manifest | None = None
) -> Manifest:
    """Read everything that the source names. Blocks on files. Raise ManifestError with every problem found.

    `instead` replaces the content of one of the files, as if it had been saved. Only a server needs the secrets of
    keys; other commands may run in an environment without them. An entry that is unchanged since `served` is accepted
    even if its files are missing.
    """
    alone = instead is None and source.path is None and not os.path.exists(source.manifest)
    problems: list[Problem] = []
    layers = _layers(source, problems, instead, alone=alone)
    files = tuple(each.text for layer in layers for each in layer.layers)
    if problems and not all(layer.complete for layer in layers):
        raise _refusal(problems, files)
    merged = Table({}, Origin("environment", Path.cwd()))
    for layer in layers:
        root = layer.joined()
        merged = overlay(merged, root) if merged.members else without_nulls(root)
    try:
        merged = overlay(merged, environment.layer(source.overrides, merged, alone=alone))
    except ManifestError as error:
        problems.extend(error.problems)
    if alone and not problems and not any(merged.get(section) for section in KINDS):
        raise ManifestError([Problem(str(source.manifest), NOTHING_TO_SERVE)])
    manifest = manifest_of(merged, files, problems, needs_secrets=needs_secrets, served=served)
    if problems or manifest is None:
        raise _refusal(problems, files)
    return manifest


def _layers(source: ManifestSource, problems: list[Problem], instead: Text | None, *, alone: bool) -> list[Inclusion]:
    """Return the layers of the manifest and the profile, each with the files that it includes. Collect all problems."""

    def read_file(path: Path) -> Layer:
        return layer_of(instead) if instead is not None and path == instead.path else read_layer(path)

    layers: list[Inclusion] = []
    if not alone:
        layer = Inclusion(read_file, problems)
        layer.follow(source.manifest)
        for part in layer.layers:
            problems.extend(_empty_entries(part.root) if part.root else ())
        layers.append(layer)
    if source.profile is not None:
        layer = Inclusion(read_file, problems)
        layers.append(layer)
        try:
            path = profile_path(source.profile, source.manifest)
        except ManifestError as error:
            problems.extend(error.problems)
            layer.complete = False
            return layers
        if os.path.exists(path):
            layer.follow(path)
        else:
            problems.append(unknown_profile(source.profile, path, source.manifest))
            layer.complete = False
    return layers


def _empty_entries(root: Table) -> list[Problem]:
    """Return problems for null entries, by which a profile removes entries; in the manifest they are errors."""
    return [
        member.origin.problem("is empty; set at least its backend, or remove the line", (section, key))
        for section in KINDS
        for key, member in root.section(section).items()
        if isinstance(member.node, Scalar) and member.node.value is None
    ]


def _refusal(problems: list[Problem], read_files: tuple[Text, ...]) -> ManifestError:
    """Return an error with the problems in the order of files and lines; those of the environment come last."""
    files = [str(file.path) for file in read_files]

    def place(problem: Problem) -> tuple[int, int, int]:
        index = files.index(problem.source) if problem.source in files else len(files)
        return (index, problem.line or 0, problem.column or 0)

    in_order = sorted(dict.fromkeys(problems), key=place)
    return ManifestError(with_excerpts(in_order, {str(file.path): file.text for file in read_files}))
