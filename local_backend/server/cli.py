"""`python -m local_backend serve` and `keys`: the server on one box, from the command line."""

from __future__ import annotations

import argparse
import asyncio
import socket
import ssl
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from typing import Any, get_origin
from urllib.parse import urlsplit

import uvicorn

from ...nodes.errors import InputError
from ...nodes.loopback import is_loopback
from .database import open_database
from .keys import Keys
from .settings import SQLITE_FILE, Settings, make_settings

CLUSTER_ONLY = ("min_replicas", "max_replicas", "gpus", "heads")
KEY_OPTIONS = ("data", "database")
GRACE = 2  # seconds that open connections are given at the end


def run(arguments: Sequence[str]) -> None:
    """One of the two commands.

    Raises:
        InputError: a flag or setting breaks a rule.
        LocalBackendError: the models cannot be opened.
    """
    parser = argparse.ArgumentParser(prog="python -m local_backend")
    commands = parser.add_subparsers(required=True, metavar="command")
    about = "serve the model behind fal's protocol, for the nodes and fal's clients"
    command = commands.add_parser("serve", help=about, description=about)
    add = command.add_argument
    add("--host", default="127.0.0.1", help="address to listen on; default 127.0.0.1, this machine")
    add("--port", type=int, default=8000, help="0 takes a free one; default 8000")
    add("--tls-cert", help="serve https with this certificate, a PEM file")
    add("--tls-key", help="the certificate's private key, a PEM file")
    _add_settings(command)
    command.set_defaults(run=_serve)
    about = "make, list and revoke the keys that clients of the server need"
    command = commands.add_parser("keys", help=about, description=about)
    command.add_argument("action", choices=("add", "list", "revoke"))
    command.add_argument("what", nargs="?", help="add: a NAME for it; revoke: its ID")
    _add_settings(command, KEY_OPTIONS)
    command.set_defaults(run=_keys)
    options = parser.parse_args(arguments)
    options.run(options)


def _add_settings(parser: argparse.ArgumentParser, only: tuple[str, ...] = ()) -> None:
    """One flag for each of the settings, or for these."""
    for name, about in Settings.model_fields.items():
        if name in CLUSTER_ONLY or (only and name not in only):
            continue
        several: dict[str, Any] = {"nargs": "+"} if get_origin(about.annotation) is tuple else {}
        if about.annotation is bool:
            several = {"action": "store_true"}
        flag, shown = "--" + name.replace("_", "-"), about.description or ""
        default = "" if about.default in (None, "", (), False) else f"; default {about.default}"
        parser.add_argument(flag, default=argparse.SUPPRESS, help=shown + default, **several)


def _serve(options: argparse.Namespace) -> None:
    """Serve until the program is stopped.

    Raises:
        InputError: a setting breaks a rule, or the address cannot be used.
        LocalBackendError: the models cannot be opened.
    """
    from .http.app_factory import (  # torch and diffusers, which keys need not wait for
        Head,
        make_app,
    )
    from .workers.worker import LocalPool, Worker

    _check_tls(options.tls_cert, options.tls_key)
    settings, listener = _prepare(options)
    with listener:
        worker = Worker(settings)  # before a key: without its models nothing is left behind
        _first_key(settings)
        page = f"API page {settings.public_url}/docs"
        config = uvicorn.Config(
            make_app(Head(settings, LocalPool(worker))), log_level="warning", access_log=False,
            timeout_graceful_shutdown=GRACE, ssl_certfile=options.tls_cert,
            ssl_keyfile=options.tls_key, server_header=False,
        )  # fmt: skip
        server = _Server(config, f"Serving {worker.name} at {settings.public_url}, {page}")
        asyncio.run(server.serve([listener]))


def _prepare(options: argparse.Namespace) -> tuple[Settings, socket.socket]:
    """The settings with the public address, and the socket that clients reach."""
    given = _given(options)
    if "public_url" not in given and not is_loopback(options.host):
        raise InputError(
            f"--host {options.host} is open to others, so the server must know what they call it. "
            "Give --public-url, such as https://gpu.example.com:8000."
        )
    make_settings(given)  # before the port is taken
    listener = _listen(options.host, options.port)
    scheme = "https" if options.tls_cert else "http"
    host = f"[{options.host}]" if ":" in options.host else options.host
    here = f"{scheme}://{host}:{listener.getsockname()[1]}"
    settings = make_settings({"public_url": here, **given})
    public = urlsplit(settings.public_url)
    if public.scheme == "http" and not is_loopback(public.hostname or ""):
        _say("Keys and pictures are sent in the clear: public_url is http. See the guide for TLS.")
    return settings, listener


def _check_tls(certificate: str | None, key: str | None) -> None:
    if bool(certificate) != bool(key):
        raise InputError("TLS needs both --tls-cert and --tls-key. Give the missing one.")
    if certificate is None:
        return
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key)
    except OSError as error:  # ssl's own errors are some of these
        raise InputError(
            f"{certificate} and {key} cannot be used for TLS ({error.strerror or error}). Give a "
            "certificate and its private key, both PEM files."
        ) from error


def _keys(options: argparse.Namespace) -> None:
    """Make, list or revoke keys.

    Raises:
        InputError: a name or an id is missing, or unknown, or there is no database to look into.
    """
    settings = make_settings(_given(options))
    _check_keys_command(options.action, options.what, settings)
    known = Keys(open_database(settings))
    if options.action == "add":
        _say(f"The key, which is not shown again: {known.make(options.what)}")
    elif options.action == "revoke":
        if not known.revoke(options.what):
            raise InputError(f'There is no key "{options.what}" in use. See: keys list.')
        _say(f"{options.what} is revoked.")
    else:
        for row in known.rows():
            made = datetime.fromtimestamp(row.created, timezone.utc).date()
            _say(f"{row.id}  {row.name}  made {made}{'  revoked' if row.revoked else ''}")


def _check_keys_command(action: str, what: str | None, settings: Settings) -> None:
    """Raise InputError before a database is opened, which makes one where there is none."""
    if action == "add" and what is None:
        raise InputError("keys add needs a name for the key, such as: keys add laptop.")
    if action == "revoke" and what is None:
        raise InputError("keys revoke needs the id of a key: keys revoke ID. See: keys list.")
    if action != "add" and not (settings.database or (settings.data / SQLITE_FILE).exists()):
        raise InputError(
            f"{settings.data} has no keys: no server has used it as its data folder. "
            "Give the server's --data."
        )


class _Server(uvicorn.Server):
    """Says so when it accepts connections."""

    def __init__(self, config: uvicorn.Config, message: str) -> None:
        super().__init__(config)
        self._message = message

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            _say(self._message)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """A server that stops when it is asked to has not failed: no signal is raised again."""
        with super().capture_signals():
            yield
            self._captured_signals.clear()


def _given(options: argparse.Namespace) -> dict[str, Any]:
    return {name: value for name, value in vars(options).items() if name in Settings.model_fields}


def _first_key(settings: Settings) -> None:
    engine = open_database(settings)
    known = Keys(engine)
    if not known.any():
        _say(f"A first key was made; it is not shown again: {known.make('first')}")
    engine.dispose()


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # with its protocol named, or asyncio does not switch Nagle's delay off: 40 ms a request
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise InputError(
            f"{host}, port {port} cannot be listened on ({error.strerror}). Choose another --port."
        ) from error
    return listener


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
