"""Web server of the viewer, which accepts requests of its own page only."""

from __future__ import annotations

import functools
import http
import ipaddress
import logging
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import viser
import websockets.asyncio.server as server_module
from websockets.datastructures import Headers
from websockets.http11 import Request, Response

from utils.errors import UserError

logger = logging.getLogger(__name__)

_connections = logging.getLogger(f"{__name__}.connections")
_connections.setLevel(logging.WARNING)
# Browsers open spare connections and close the unused ones, which is not an error.
_connections.addFilter(lambda record: record.msg != "opening handshake failed")


def check_port(host: str, port: int) -> None:
    """Check that a port is free before anything is loaded."""
    try:
        with socket.create_server((host, port)):
            pass
    except OSError as error:
        reason = error.strerror or error
        raise UserError(
            f"--host {host} --port {port}: cannot listen there ({reason}); choose another --port, "
            f"for example --port {port + 1 if port < 65535 else port - 1}."
        ) from error


def start_server(host: str, port: int, title: str) -> viser.ViserServer:
    """Start a server; log a warning if other machines can reach it."""
    local = is_local(host)
    with _guarded(local):
        server = viser.ViserServer(host, port, title, verbose=False)
    if not local:
        logger.warning(
            "--host %s: the viewer has no password, so anyone who can reach this machine can use "
            "it. To view from one other machine, leave --host out and run there: "
            "ssh -L %s:localhost:%s NAME",
            *(host, port, port),
        )
    return server


def is_local(host: str) -> bool:
    """Return whether a host name or address is a loopback address."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def accepts(headers: Headers, local: bool) -> bool:
    """Return whether a request comes from the viewer's own page or from a program without a page.

    A browser lets any page connect to any address but sends its origin (RFC 6455, section 10.2).
    A ``local`` server also rejects other host names, which prevents DNS rebinding.
    """
    hosts, origins = headers.get_all("Host"), headers.get_all("Origin")
    if len(hosts) != 1 or len(origins) > 1:
        return False
    name = urlsplit(f"//{hosts[0]}").hostname or ""
    if local and not is_local(name):
        return False
    return not origins or urlsplit(origins[0]).netloc.lower() == hosts[0].lower()


@contextmanager
def _guarded(local: bool) -> Iterator[None]:
    """Patch websockets, so that servers started in this context check the origin of requests.

    Viser has no option for this.
    """
    serve = server_module.serve

    def guarded_serve(*args: Any, process_request: Callable[..., Any], **settings: Any) -> Any:  # noqa: ANN401
        checked = functools.partial(_check_request, process_request, local)
        return serve(*args, process_request=checked, logger=_connections, **settings)

    server_module.serve = guarded_serve  # pyright: ignore[reportAttributeAccessIssue]
    try:
        yield
    finally:
        server_module.serve = serve


def _check_request(
    process_request: Callable[..., Response | None],
    local: bool,
    connection: server_module.ServerConnection,
    request: Request,
) -> Response | None:
    if accepts(request.headers, local):
        return process_request(connection, request)
    origin = request.headers.get("Origin", "another host name")
    logger.warning("rejected a request from %s", origin)
    return connection.respond(
        http.HTTPStatus.FORBIDDEN, "Only the viewer's own page may connect.\n"
    )
