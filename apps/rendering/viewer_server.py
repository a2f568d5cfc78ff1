"""The web server of the viewer: open to its own page alone."""

from __future__ import annotations

import functools
import http
import ipaddress
import logging
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

_LOCAL_NAMES = ("localhost",)

_connections = logging.getLogger(f"{__name__}.connections")
_connections.setLevel(logging.WARNING)
# Browsers open connections ahead and close those that they do not need: no failure.
_connections.addFilter(lambda record: record.msg != "opening handshake failed")


def start_server(host: str, port: int, title: str) -> viser.ViserServer:
    """Serve on a host and port; say so if other machines can reach it."""
    local = is_local(host)
    try:
        with _guarded(local):
            server = viser.ViserServer(host, port, title, verbose=False)
    except OSError as error:
        raise UserError(
            f"--host {host} --port {port}: cannot listen there ({error.strerror})"
        ) from error
    if not local:
        logger.warning(
            "--host %s: there is no password, whoever can reach this machine can look. To look "
            "from one other machine, leave --host out and type there: ssh -L %s:localhost:%s NAME",
            *(host, port, port),
        )
    return server


def is_local(host: str) -> bool:
    """Tell whether a name or address is that of this machine, for itself alone."""
    try:
        return host in _LOCAL_NAMES or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def accepts(headers: Headers, local: bool) -> bool:
    """Tell whether a request comes from the viewer's own page, or from no page at all.

    Browsers let any web page connect to any address, but name the page (RFC 6455, section 10.2).
    Names that a stranger lets point to this machine are no names of a ``local`` server.
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
    """Let servers that are started inside refuse what does not come from their page.

    Viser has no setting for it.
    """
    serve = server_module.serve

    def guarded_serve(*args: Any, process_request: Callable[..., Any], **settings: Any) -> Any:  # noqa: ANN401
        answer = functools.partial(_answer, process_request, local)
        return serve(*args, process_request=answer, logger=_connections, **settings)

    server_module.serve = guarded_serve  # pyright: ignore[reportAttributeAccessIssue]
    try:
        yield
    finally:
        server_module.serve = serve


def _answer(
    otherwise: Callable[..., Response | None],
    local: bool,
    connection: server_module.ServerConnection,
    request: Request,
) -> Response | None:
    if accepts(request.headers, local):
        return otherwise(connection, request)
    logger.warning("a page of %s was refused", request.headers.get("Origin", "another name"))
    return connection.respond(http.HTTPStatus.FORBIDDEN, "This is open to its own page alone.\n")
