"""Make a manifest of merged layers: check every value, locate every path, and reject duplicate names."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from localapi.backends.options import EntryOptions, Name, OptionPath, PathProblem
from localapi.backends.peer import SEPARATOR, PeerOptions
from localapi.backends.pool import PoolOptions
from localapi.backends.secret import NoSecret, SecretElsewhere, secret_variables
from localapi.errors import Problem, shown
from localapi.kinds import KINDS
from localapi.manifest.complaints import Place, check, expectation, suggestion
from localapi.manifest.entries import Entry, Manifest, Said
from localapi.manifest.keys import Key, digest, files_of, secret_of
from localapi.manifest.origin import Items, KeyPath, Node, Origin, Scalar, Table, follow, leaves, noun, plain, written
from localapi.manifest.server_options import ServerOptions, TopLevel, document
from localapi.manifest.text import Text

EntryPath = tuple[str, str]
"""Section and id of an entry."""

_NAME: TypeAdapter[str] = TypeAdapter(Name)


def manifest_of(
    root: Table,
    files: tuple[Text, ...],
    problems: list[Problem],
    *,
    needs_secrets: bool = True,
    served: Manifest | None = None,
) -> Manifest | None:
    """Return the manifest that the merged layers describe; None if there are problems, which are added to the list.

    Only the first problem at each key is reported, because later ones follow from it. `served` is the active manifest.
    """
    found: list[Problem] = []
    top = check(document(), Place(root, root.origin, ()), found)
    options = _options(root, found)
    _check_names(root, options, found)
    _check_peers_names(root, options, found)
    _check_pools(root, options, found)
    _check_replicas(root, options, found)
    if top is not None and top.server.cluster is None:
        _check_places(root, options, found)
    with_secrets = [*options.values(), *(top.peers.values() if top is not None else ())]
    echo = top is not None and top.echo
    said = {path: Said(written(node), node.origin, plain(node)) for path, node in leaves(root) if path}
    absent: list[Problem] = []
    for path, entry in options.items():
        if echo:
            options[path] = _as_echo(entry)
        else:
            before = _said_before(path, said, served)
            options[path] = _located(root, path, entry, found if before is None else absent, before=before)
    peers = _peers(root, top, found) if top is not None and not echo else {}
    missing = found if needs_secrets else []
    keys, key_files = _keys(root, top.server, options, found, missing) if top is not None else ((), ())
    known = {problem.key for problem in problems if problem.key}
    problems.extend(problem for problem in found if problem.key not in known)
    if problems or top is None:
        return None
    return Manifest(
        entries={entry_id: Entry.of(entry_id, entry, server=top.server) for (_, entry_id), entry in options.items()},
        server=top.server,
        echo=echo,
        peers=peers,
        keys=keys,
        key_files=key_files,
        key_variables=(
            *(key.env for key in top.server.api_keys.values() if key.env is not None),
            *(name for each in with_secrets for name in secret_variables(each)),
        ),
        missing_secrets=() if needs_secrets else tuple(missing),
        files=files,
        absent=tuple(absent),
        said=said,
    )


def _options(root: Table, problems: list[Problem]) -> dict[EntryPath, EntryOptions]:
    """Return the valid entries of all sections."""
    checked: dict[EntryPath, EntryOptions] = {}
    for section in KINDS:
        for entry_id, member in root.section(section).items():
            try:
                _NAME.validate_python(entry_id)
            except ValidationError as error:
                message = f"a model's id should be {expectation(error.errors()[0])}; found {shown(entry_id)}"
                problems.append(member.origin.problem(message, (section, entry_id)))
            if isinstance(member.node, Table):
                place = Place(member.node, member.origin, (section, entry_id))
                options = _checked_entry(section, place, problems)
                if options is not None:
                    checked[section, entry_id] = options
    return checked


def _checked_entry(section: str, place: Place, problems: list[Problem]) -> EntryOptions | None:
    backends, path = KINDS[section].backends, (*place.path, "backend")
    backend = place.node.get("backend")
    known = ", ".join(backends)
    if backend is None:
        near = difflib.get_close_matches("backend", place.node.members, n=1)
        if near:
            message = f"unknown key {near[0]!r}; did you mean 'backend'? (one of {known})"
            problems.append(place.node.members[near[0]].origin.problem(message, (*place.path, near[0])))
        else:
            problems.append(place.origin.problem(f"is missing: name the entry's backend (one of {known})", path))
    elif not isinstance(backend, Scalar) or not isinstance(backend.value, str):
        message = f"should be one of {known}; found {noun(backend)}"
        problems.append(backend.origin.problem(message, path))
    elif backend.value not in backends:
        message = f"unknown backend {shown(backend.value)}{suggestion(backend.value, list(backends))}"
        problems.append(backend.origin.problem(message, path))
    else:
        return check(backends[backend.value], place, problems)
    return None


def _check_names(root: Table, options: dict[EntryPath, EntryOptions], problems: list[Problem]) -> None:
    """Check that ids and aliases are unique; the second use of a name is reported."""
    taken: dict[str, tuple[KeyPath, Origin]] = {}
    for path, origin, name in _names(root, options):
        if name in taken:
            other, at = taken[name]
            message = f"the name {name!r} is already taken by {'.'.join(map(str, other))} at {at}; choose another"
            problems.append(origin.problem(message, path))
        else:
            taken[name] = (path, origin)


def _check_peers_names(root: Table, options: dict[EntryPath, EntryOptions], problems: list[Problem]) -> None:
    """Check that no entry has a name that a peer's models may have."""
    peers = root.section("peers")
    for path, origin, name in _names(root, options):
        peer, separator, _ = name.partition(SEPARATOR)
        if separator and peer in peers:
            at = peers[peer].origin
            message = (
                f"names that begin with {peer}{SEPARATOR} are reserved for the models of the peer at {at}; "
                f"choose another"
            )
            problems.append(origin.problem(message, path))


def _peers(root: Table, top: TopLevel, problems: list[Problem]) -> dict[str, PeerOptions]:
    """Return the peers with located paths."""
    section = root.table("peers")
    located: dict[str, PeerOptions] = {}
    for name, peer in top.peers.items():
        table = section.table(name) if section else None
        assert table is not None  # noqa: S101  # checked by then
        try:
            located[name] = peer.located(lambda field, table=table: _deepest(table, field).folder)
        except PathProblem as error:
            keys = (error.field,) if isinstance(error.field, str) else error.field
            problems.append(_deepest(table, error.field).problem(str(error), ("peers", name, *keys)))
    return located


def _of_peer(root: Table, name: str) -> bool:
    """Return True if a peer's model may have this name, known or not."""
    peer, separator, model = name.partition(SEPARATOR)
    return bool(separator and model) and peer in root.section("peers")


def _check_pools(  # noqa: C901  # one branch for each thing that a member must not be
    root: Table, options: dict[EntryPath, EntryOptions], problems: list[Problem]
) -> None:
    """Check that the members of pools exist, are of the pool's kind, and are not pools."""
    names = list(_names(root, options))
    entries = {name: (str(path[0]), str(path[1])) for path, _, name in names if path[2:3] != ("variants",)}
    variants = {name: str(path[1]) for path, _, name in names if path[2:3] == ("variants",)}
    for path, pool in options.items():
        if not isinstance(pool, PoolOptions):
            continue
        table = _entry_table(root, path)
        for name in pool.for_members:
            if name in table.members:
                message = "should be an option of the pool's members, because a pool loads nothing itself"
                problems.append(table.members[name].origin.problem(message, (*path, name)))
        node = table.get("of")
        assert isinstance(node, Items)  # noqa: S101  # checked by then
        members: set[EntryPath] = set()
        for index, (name, item) in enumerate(zip(pool.of, node.nodes, strict=True)):
            member = entries.get(name)
            message = ""
            if member is None and _of_peer(root, name):
                continue  # its peer reports its kind
            if member is None:
                possible = [each for each, entry in entries.items() if not _wrong_member(path, entry, options)]
                message = (
                    f"the manifest has no model {shown(name)}{suggestion(name, possible, what=f'{path[0]} models')}"
                )
                if name in variants:
                    message = f"{shown(name)} is a variant; name its model, {shown(variants[name])}"
            elif member in members:
                message = f"{shown(member[1])} is a member already"
            else:
                message = _wrong_member(path, member, options)
                members.add(member)
            if message:
                problems.append(item.origin.problem(message, (*path, "of", index)))


def _check_replicas(root: Table, options: dict[EntryPath, EntryOptions], problems: list[Problem]) -> None:
    for path, entry in options.items():
        if entry.replicas is not None and not entry.can_have_replicas():
            message = f"the backend {entry.backend_name} has no worker that could be replicated"
            problems.append(_entry_table(root, path).members["replicas"].origin.problem(message, (*path, "replicas")))


def _wrong_member(pool: EntryPath, member: EntryPath, options: Mapping[EntryPath, EntryOptions]) -> str:
    """Return why an entry cannot be a member of a pool; "" if it can."""
    if member == pool:
        return "a pool cannot be a member of itself"
    if member[0] != pool[0]:
        return f"{shown(member[1])} is a {member[0]} model; the members of this pool must be {pool[0]} models"
    if member in options and options[member].is_pool:
        return f"{shown(member[1])} is a pool too; name its members here instead"
    return ""


def _names(root: Table, options: dict[EntryPath, EntryOptions]) -> Iterator[tuple[KeyPath, Origin, str]]:
    """Yield all ids, then all aliases, with their places."""
    for section in KINDS:
        for key, member in root.section(section).items():
            yield (section, key), member.origin, key
    for section, entry_id in options:
        node = _entry_table(root, (section, entry_id)).get("aliases")
        yield from _aliases(node, (section, entry_id, "aliases"))
        variants = _entry_table(root, (section, entry_id)).get("variants")
        for name, member in variants.members.items() if isinstance(variants, Table) else ():
            path = (section, entry_id, "variants", name)
            yield path, member.origin, name
            if isinstance(member.node, Table):
                yield from _aliases(member.node.get("aliases"), (*path, "aliases"))


def _aliases(node: Node | None, path: KeyPath) -> Iterator[tuple[KeyPath, Origin, str]]:
    for index, item in enumerate(node.nodes if isinstance(node, Items) else ()):
        assert isinstance(item, Scalar)  # noqa: S101  # checked by then
        yield (*path, index), item.origin, str(item.value)


def _named(path: KeyPath) -> str:
    """Return the id of the entry, or the name of the variant, to which the name at a path of `_names` refers."""
    return str(path[3] if path[2:3] == ("variants",) else path[1])


def _check_places(root: Table, options: dict[EntryPath, EntryOptions], problems: list[Problem]) -> None:
    """Check that no entry is placed on a missing cluster."""
    for path, entry in options.items():
        if entry.is_remote:
            message = "needs a cluster, and server.cluster is not set; set it: cluster: {ray: auto}"
            problems.append(_deepest(_entry_table(root, path), "place").problem(message, (*path, "place")))


def _keys(
    root: Table,
    server: ServerOptions,
    options: dict[EntryPath, EntryOptions],
    problems: list[Problem],
    missing: list[Problem],
) -> tuple[tuple[Key, ...], tuple[Path, ...]]:
    """Return the keys with their secrets, and the files to watch for changes of secrets.

    `missing` collects problems of secrets that this process cannot read, but the server may.
    """
    section = root.table("server")
    table = section.table("api_keys") if section else None
    entries = {name: _named(path) for path, _, name in _names(root, options)}
    keys: list[Key] = []
    files: list[Path] = []
    for name, member in table.members.items() if table else ():
        said, node, path = server.api_keys[name], member.node, ("server", "api_keys", name)
        assert isinstance(node, Table)  # noqa: S101  # checked by then
        field = "env" if said.env is not None else "file"
        origin = node.members[field].node.origin
        files += files_of(said, origin.folder)
        if said.models is not None:
            problems += _unknown_models(root, node, path, entries)
        opens = None if said.models is None else frozenset(entries.get(model, model) for model in said.models)
        try:
            key = Key(name, digest(secret_of(said, origin.folder)), opens, said.admin)
        except NoSecret as error:
            wrong = missing if isinstance(error, SecretElsewhere) else problems
            wrong.append(origin.problem(str(error), (*path, field)))
            continue
        if (same := next((other.name for other in keys if other.digest == key.digest), None)) is not None:
            message = f"is also the secret of the key {same!r}; use a different one for each key"
            problems.append(origin.problem(message, (*path, field)))
        keys.append(key)
    return tuple(keys), tuple(dict.fromkeys(files))


def _unknown_models(root: Table, key: Table, path: KeyPath, known: Mapping[str, str]) -> Iterator[Problem]:
    models = key.get("models")
    for index, item in enumerate(models.nodes if isinstance(models, Items) else ()):
        if isinstance(item, Scalar) and str(item.value) not in known and not _of_peer(root, str(item.value)):
            message = f"the manifest has no model {shown(item.text)}{suggestion(item.text, list(known))}"
            yield item.origin.problem(message, (*path, "models", index))


def _said_before(path: EntryPath, said: Mapping[KeyPath, Said], served: Manifest | None) -> EntryOptions | None:
    """Return the options of the active entry if the new manifest has the same entry."""
    entry = served.entries.get(path[1]) if served is not None and not served.echo else None
    if served is None or entry is None:
        return None
    now, before = ({key: value for key, value in each.items() if key[:2] == path} for each in (said, served.said))
    same = now.keys() == before.keys() and all(
        (value.value, value.origin.folder) == (before[key].value, before[key].origin.folder)
        for key, value in now.items()
    )
    return entry.options if same else None


def _located(
    root: Table, path: EntryPath, options: EntryOptions, problems: list[Problem], *, before: EntryOptions | None = None
) -> EntryOptions:
    """Return the options with located paths, each relative to the folder of its source.

    If a file is missing, return the options from `before`.
    """
    table = _entry_table(root, path)
    try:
        return options.located(lambda field: _deepest(table, field).folder)
    except PathProblem as error:
        field, message, passing = error.field, str(error), _may_pass(error)
    except (OSError, RuntimeError, ValueError) as error:
        # an unreadable folder, a name too long for the file system, or ~user of an unknown user
        reason = error.strerror if isinstance(error, OSError) else error
        field, message, passing = "path", f"cannot be looked up: {reason}", _may_pass(error)
    keys = (field,) if isinstance(field, str) else field
    problem = _deepest(table, field).problem(message, (*path, *keys))
    problems.append(replace(problem, passing=passing))
    return options if before is None else before


def _deepest(table: Table, field: OptionPath) -> Origin:
    """Return the origin of an option, or of the last key below it."""
    keys = (field,) if isinstance(field, str) else field
    found = [node.origin for _, _, node in follow(table, keys)]
    return found[-1] if found else table.origin


def _may_pass(error: BaseException | None) -> bool:
    """Return whether the system, and not a missing file, is the cause."""
    while error is not None and not isinstance(error, OSError):
        error = error.__cause__
    return isinstance(error, OSError) and not isinstance(error, FileNotFoundError)


def _entry_table(root: Table, path: EntryPath) -> Table:
    section = root.table(path[0])
    entry = section.table(path[1]) if section else None
    assert entry is not None  # noqa: S101  # the path was made from this tree
    return entry


def _as_echo(options: EntryOptions) -> EntryOptions:
    """Return the entry with the same settings and the backend echo."""
    echo = KINDS[options.section].backends["echo"]
    settings = [name for name in echo.setting_names() if hasattr(options, name)]  # a pool has only some of them
    make: Callable[..., EntryOptions] = echo
    return make(backend="echo", **{name: getattr(options, name) for name in settings})
