"""Wiring: the one place that knows all parts, and how they start and stop."""

from __future__ import annotations

import asyncio
import errno
import gc
import logging
import os
import secrets
import signal
import socket
import threading
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path

from hypercorn.config import Config
from quart import Quart, Response
from quart import request as http_request
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge
from werkzeug.exceptions import MethodNotAllowed as NoSuchMethod
from werkzeug.exceptions import NotFound as NoSuchPath

from localapi.api import console, openapi
from localapi.api.admin import (
    actions,
    captures,
    first_models,
    health,
    history,
    metrics,
    profiles,
    status,
    status_events,
)
from localapi.api.admin.manifest import ManifestEndpoints
from localapi.api.admin.model_status import memory_of
from localapi.api.body_limits import LimitedRequest, limit_of
from localapi.api.dialect import error_body_of
from localapi.api.openai import models
from localapi.api.openai.wire import error_body
from localapi.api.operation import MAX_BODY_BYTES, MEGABYTE
from localapi.api.wrong_path import MAX_SHOWN, no_such_path
from localapi.backends.process import withhold
from localapi.errors import (
    ApiError,
    GenerationFailed,
    InvalidRequest,
    MethodNotAllowed,
    ModelUnavailable,
    NotFound,
    RequestTooLarge,
    StartError,
)
from localapi.http import auth, request_context
from localapi.http.capturing import CaptureMiddleware
from localapi.http.edit_rights import EditRights
from localapi.http.host_check import Guard, exposure
from localapi.http.hypercorn_server import serve
from localapi.http.loops import LoopCheck
from localapi.http.paced_body import PacedConnection
from localapi.http.replies import error_reply
from localapi.http.second_port import SecondPort
from localapi.http.tracing import TraceMiddleware
from localapi.kinds import KINDS
from localapi.kinds.chat import TIME_PER_OUTPUT_TOKEN
from localapi.manifest import Manifest, ManifestSource, ServerOptions, read
from localapi.observability import log as logs
from localapi.observability.captures import Captures
from localapi.observability.counters import Counters
from localapi.observability.log_buffer import History
from localapi.observability.traces import Traces
from localapi.observability.usage_keeper import UsageKeeper
from localapi.reload.editor import Editor
from localapi.reload.reloader import Attempt, Reloader
from localapi.reload.settling import Settling
from localapi.reload.watcher import Watch
from localapi.runtime.cluster import ClusterWatch
from localapi.runtime.downloads import Downloads
from localapi.runtime.peers import Peers
from localapi.runtime.registry import Registry
from localapi.runtime.watchdog import Watchdog
from localapi.settings import Settings
from localapi.system.folders import WorkingFolder
from localapi.system.memory import share_memory
from localapi.system.os_errors import NO_DESCRIPTOR, NO_ROOM, advise
from localapi.system.threads import aside

log = logging.getLogger(__name__)


class Service:
    """Server that follows a manifest. `settings` needs a restart to change; everything else follows the files."""

    def __init__(self, settings: Settings, source: ManifestSource) -> None:
        self.settings = settings
        self._source = source
        self.profile = source.profile
        """Name of the active profile, or the path of its file."""
        self.folder = WorkingFolder()
        self.peers = Peers(secrets.token_hex(8), self._peers_changed)
        self.registry = Registry(may_use=auth.may_use, peers=self.peers, downloads=Downloads(self._files_came))
        self.counters = Counters()
        self.captures = Captures()
        self.traces = Traces()
        self.usage = UsageKeeper(self.counters, TIME_PER_OUTPUT_TOKEN.name, self._memory)
        self.history = History(self._recorded)
        self.live = status_events.Live(self.status, self.history)
        self.reloader = Reloader(
            self.registry,
            self._read,
            settling=Settling(self._files),
            extend=self.peers.extend,
            apply=self._apply,
            tell=self._tell,
        )
        self.watch = Watch(lambda: self.source, self.reloader.trigger, self.folder)
        self.editor = Editor(lambda: self.source, lambda: self.reloader.served)
        self.started = False
        """True once the first revision is active and the terminal has shown its address."""
        self.cluster = ClusterWatch(self.live.poke)
        self.watchdog = Watchdog(self.reloader.instances, self.registry.memory)
        self.draining = False
        self.ollama = SecondPort(
            "Ollama's API", lambda port: listen(settings.host, port), lambda: self.registry.drain_seconds
        )
        self.own_port: int | None = None
        """The port that the server was started with."""
        self.app = create_app(self)

    @property
    def source(self) -> ManifestSource:
        """Source of the manifest, with the active profile."""
        return replace(self._source, profile=self.profile)

    async def use_profile(self, profile: str | None) -> Attempt:
        """Merge another profile over the manifest. Raise ManifestError and keep the old one if it is invalid."""
        served = self.reloader.served
        await aside(lambda: read(replace(self._source, profile=profile), served=served))
        self.profile = profile
        self.watch.look_anew()
        return await self.reloader.reload()

    def _files(self) -> tuple[Path, ...]:
        """Return the manifest's files to watch."""
        self.folder.return_to_it()
        return self.source.files()

    def _read(self) -> Manifest:
        """Read the manifest. A file that once existed is required from then on."""
        self.folder.return_to_it()
        manifest = read(self.source, served=self.reloader.served)
        withhold(manifest.key_variables)
        self.registry.downloads.look(manifest)
        self._source = self._source.pinned()
        return manifest

    def _apply(self, manifest: Manifest) -> None:
        logs.set_level(self.settings.log_level or manifest.server.log_level)
        self.counters.keep(manifest.entries, [key.name for key in manifest.keys])
        self.captures.follow(manifest.server.capture)
        self.traces.follow(manifest.server.traces)
        self.usage.follow(self.source.path, enabled=manifest.server.history)
        self.watch.follow(manifest.files_beside)
        port = manifest.server.ollama_port
        self.ollama.follow(None if port == self.own_port else port)
        self.cluster.follow(manifest.cluster)
        self.peers.follow(manifest.peers)
        if self.started:
            for warning in self.warnings():
                log.warning("%s", warning)

    def _memory(self) -> dict[str, int]:
        """Return the memory of each loaded model, as far as it is known."""
        instances = self.registry.snapshot.instances
        return {name: memory_of(self.registry, instance) or 0 for name, instance in instances.items()}

    def is_for_ollama(self, port: int | None) -> bool:
        """Return True if connections to this port are from Ollama's clients."""
        return port is not None and port == self.options().ollama_port

    def _recorded(self) -> None:
        """Notify listeners of a new log record; one from another thread reaches them a little later."""
        if threading.current_thread() is threading.main_thread():
            self.live.poke()

    def _tell(self, attempt: Attempt) -> None:
        self.counters.reloaded(attempt.at, ok=attempt.ok)
        self.live.poke()

    def _files_came(self) -> None:
        """Notify listeners that model files were downloaded or removed."""
        self.live.poke()

    def _peers_changed(self, offers_change: bool) -> None:  # a callback
        if offers_change:
            self.reloader.trigger()
        self.live.poke()

    def status(self) -> status.StatusReply:
        """Return the content of `GET /status`."""
        return status.describe(
            self.registry,
            self.reloader,
            self.warnings(),
            self.folder,
            self.cluster,
            profile=self.profile,
            captures=self.captures.enabled,
            usage=self.counters.by_key,
        )

    def options(self) -> ServerOptions:
        """Return the active options of the manifest's section `server`."""
        return self.registry.snapshot.manifest.server

    def warnings(self) -> list[str]:
        """Return problems that the operator should fix."""
        manifest = self.registry.snapshot.manifest
        exposed = exposure(self.settings.host, keys=bool(manifest.keys))
        unread = ["reading the manifest takes too long: is its drive connected?"] * self.reloader.reads_slowly
        excess = [told] if (told := self.registry.memory.excess) else []
        absent = [str(problem) for problem in manifest.absent]
        return [
            *exposed,
            *unread,
            *absent,
            *excess,
            *([self.ollama.warning] if self.ollama.warning else []),
            *([self.traces.warning] if self.traces.warning else []),
            *self.cluster.warnings,
            *self.peers.warnings,
            *self.registry.unknown_members,
            *self.reloader.swaps.warnings,
            *self.registry.not_loaded,
        ]

    async def run(self, listening: socket.socket, started: Callable[[], None]) -> None:
        """Serve until SIGINT or SIGTERM; the second signal ends the process at once. Raise ManifestError.

        `started` is called when the first revision is active.
        """
        share_memory()
        logging.getLogger("localapi").addHandler(self.history)
        self.own_port = listening.getsockname()[1]
        await self.reloader.start()
        stop = self._follow_signals()
        config = Config()
        config.accesslog = None
        config.include_server_header = False
        config.errorlog = logging.getLogger("hypercorn.error")
        config.keep_alive_timeout = 75
        config.keep_alive_max_requests = 1_000_000
        following = [
            asyncio.create_task(self.reloader.run(), name="reload"),
            asyncio.create_task(self.watch.run(), name="watch"),
        ]
        always = [  # also during a shutdown
            asyncio.create_task(self.ollama.run(self.app, config), name="ollama port"),
            asyncio.create_task(self.watchdog.run(), name="watchdog"),
            asyncio.create_task(self.cluster.run(), name="cluster"),
            asyncio.create_task(self.usage.run(), name="usage"),
        ]
        try:
            await self.app.startup()
            started()
            self.started = True
            # a garbage collection that visits the objects made at start-up stops all responses for a tenth of a second
            gc.freeze()
            await serve(self.app, config, listening, self._drained(stop, following))
        finally:
            await _cancel([*following, *always])
            await self.usage.close()
            await self.peers.close()
            await self.registry.close()
            await self.app.shutdown()
            await aside(self.traces.close)
            logging.getLogger("localapi").removeHandler(self.history)

    def _follow_signals(self) -> asyncio.Event:
        stop = asyncio.Event()

        def on_stop(number: signal.Signals) -> None:
            if stop.is_set():
                logs.flush()
                os._exit(128 + number)
            log.info("%s: shutting down", number.name)
            stop.set()

        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, on_stop, number)
        loop.add_signal_handler(signal.SIGHUP, self.reloader.trigger_by_hand)
        return stop

    async def _drained(self, stop: asyncio.Event, following: list[asyncio.Task[None]]) -> None:
        """Return when the server should close: after a signal, once running requests have ended or their time is up."""
        await stop.wait()
        self.draining = True
        self.live.close()
        await _cancel(following)
        seconds = self.registry.drain_seconds
        drained = await self.registry.drain(
            seconds, lambda running: log.info("waiting for %s; press Ctrl-C again to stop at once", _requests(running))
        )
        if not drained:
            log.warning("%s did not end within %g s", _requests(self.registry.in_flight.count), seconds)
        await self.registry.close()


async def _cancel(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _requests(count: int) -> str:
    return f"{count} running request{'s' * (count != 1)}"


def create_app(service: Service) -> Quart:
    """Return the HTTP application of a service."""
    app = Quart("localapi", static_folder=None)
    app.request_class = LimitedRequest
    app.asgi_http_class = PacedConnection
    app.config.update(MAX_CONTENT_LENGTH=MAX_BODY_BYTES, BODY_TIMEOUT=None, RESPONSE_TIMEOUT=None)
    for kind in KINDS.values():
        for module in kind.endpoints:
            app.register_blueprint(import_module(module).routes(service.registry))
    app.register_blueprint(models.routes(service.registry))
    app.register_blueprint(health.routes(service.registry, lambda: service.draining))
    app.register_blueprint(openapi.routes())
    app.register_blueprint(console.routes())
    app.register_blueprint(metrics.routes(service.registry, service.counters, service.cluster))
    app.register_blueprint(status.routes(service.status))
    app.register_blueprint(status_events.routes(service.live, auth.still_admin(service.registry)))
    app.register_blueprint(actions.routes(service.registry, service.reloader))
    app.register_blueprint(history.routes(service.usage))
    app.register_blueprint(first_models.routes(service.registry))
    app.register_blueprint(profiles.routes(lambda: service.source, service.use_profile))
    loops = LoopCheck(service.peers.server_id)
    guard, check_key = Guard(service.settings.host, service.options), auth.access(service.registry)
    rights = EditRights(service.settings.host, service.options)
    app.register_blueprint(captures.routes(service.captures, rights))
    app.register_blueprint(ManifestEndpoints(service.editor, service.reloader, service.status, rights).blueprint())

    @app.before_request
    async def admit() -> Response | None:
        request_context.current().endpoint = http_request.url_rule.rule if http_request.url_rule else "other"
        guard.check()
        loops.check()
        if (preflight := guard.preflight()) is not None:
            return preflight
        check_key()
        if service.draining and http_request.method == "POST":
            raise ModelUnavailable("The server is shutting down.", retry_after_seconds=1)
        here = http_request.scope["server"]
        if http_request.path == "/" and here is not None and service.is_for_ollama(here[1]):
            return Response("Ollama is running", content_type="text/plain; charset=utf-8")
        return None

    app.after_request(guard.mark)

    @app.errorhandler(Exception)
    async def refuse(error: Exception) -> Response:
        body_of = error_body_of(app.blueprints, otherwise=error_body)
        api_error = _as_api_error(error, app)
        request_context.current().error = api_error.reply_code or api_error.type
        return error_reply(api_error, body_of(api_error))

    inner = TraceMiddleware(CaptureMiddleware(app.asgi_app, service.captures), service.traces)
    app.asgi_app = request_context.ScopeMiddleware(inner, service.counters, service.live.poke)  # type: ignore[method-assign]  # Quart's way
    return app


def _as_api_error(error: Exception, app: Quart) -> ApiError:
    """Return the error for the client; log bugs of the server with traceback and request id."""
    asked = f"{http_request.method} {http_request.path}"
    match error:
        case ApiError():
            log.info("%s: %s: %d: %s", request_context.current().id, asked, error.status, error.logged)
            return error
        case NoSuchPath():
            return NotFound(no_such_path(http_request.method, http_request.path, openapi.documented(app)))
        case NoSuchMethod():
            allowed = sorted(error.valid_methods or ())
            methods = ", ".join(method for method in allowed if method not in ("HEAD", "OPTIONS"))
            return MethodNotAllowed(
                f"{http_request.path[:MAX_SHOWN]} does not support {http_request.method}; use {methods}.",
                allowed=allowed,
            )
        case RequestEntityTooLarge():
            return RequestTooLarge(f"The request body is larger than {limit_of(http_request.path) // MEGABYTE} MiB.")
        case HTTPException():
            return InvalidRequest(error.description or error.name)
        case _:
            return _as_failure(error, asked)


def _as_failure(error: Exception, asked: str) -> ApiError:
    """Return a retryable error if the machine lacks a resource, otherwise one for a bug in the server."""
    request_id = request_context.current().id
    if isinstance(error, OSError) and error.errno in NO_DESCRIPTOR | NO_ROOM:
        log.error("%s: %s: %s", request_id, asked, advise(error))
        return ModelUnavailable(f"The server cannot do this now: {advise(error)}.", retry_after_seconds=5)
    log.error("%s: %s", request_id, asked, exc_info=error)
    return GenerationFailed(f"The server failed; see its log for request {request_id}.")


def listen(host: str, port: int) -> socket.socket:
    """Return the socket to serve on. Raise StartError if it is not available."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(1024)
    except socket.gaierror as error:
        raise StartError(f"The host {host!r} is not an address of this machine: {error.strerror}") from error
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise StartError(
                f"Port {port} on {host} is in use. Stop what uses it, or choose another: localapi --port {port + 1}"
            ) from error
        raise StartError(f"Cannot listen on {host} port {port}: {error.strerror}") from error
    listening.setblocking(False)
    return listening
