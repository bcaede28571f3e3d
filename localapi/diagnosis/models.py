"""Check the manifest and the files of its models."""

from __future__ import annotations

from collections.abc import Iterator

from localapi.backends.model_path import cached
from localapi.diagnosis.finding import Finding, Subject
from localapi.diagnosis.machine import size_of
from localapi.diagnosis.network import hub_answers
from localapi.errors import Problem
from localapi.manifest import Entry
from localapi.system.byte_sizes import readable


def manifest(subject: Subject) -> list[Finding]:
    """Check that the manifest is valid, and that the secrets of its keys can be read."""
    if subject.manifest is None:
        return [Finding("manifest", "missing", str(problem), _mend(problem)) for problem in subject.problems]
    files = ", ".join(str(file.path) for file in subject.manifest.files) or "the environment"
    keys = len(subject.manifest.keys)
    secrets = f"; {keys} key{'s' * (keys != 1)}, each with its secret" if keys else ""
    count = len(subject.manifest.entries)
    if not count:
        return [Finding("manifest", "note", f"{files}: valid, without models", "localapi add REPO_OR_PATH")]
    return [Finding("manifest", "ok", f"{files}: valid, {count} model{'s' * (count != 1)}{secrets}")]


def _mend(problem: Problem) -> str | None:
    """Return the command that creates a missing file; a problem with a line explains itself."""
    return None if problem.line is not None else "localapi add demo"


def files(subject: Subject) -> list[Finding]:
    """Check for each entry whether its files are on this machine."""
    entries = subject.manifest.entries.values() if subject.manifest else ()
    return [finding for entry in entries for finding in _of(entry)]


def _of(entry: Entry) -> Iterator[Finding]:
    missing = [(name, revision) for name, revision in entry.options.repositories() if cached(name, revision) is None]
    if missing:
        reachable = hub_answers() is None
        for name, revision in missing:
            command = f"localapi pull {name}" + (f" --revision {revision}" if revision else "")
            later = (
                "its first request downloads it" if reachable else "the Hugging Face Hub cannot be reached from here"
            )
            says = f"{entry.id}: {name} is not downloaded; {later}"
            yield Finding("models", "note" if reachable else "missing", says, command)
        return
    size = size_of(list(entry.options.weight_files()))
    yield Finding("models", "ok", f"{entry.id}: {entry.options.backend_name}" + (f", {readable(size)}" if size else ""))
