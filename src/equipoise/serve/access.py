"""Who may ask: the name under which the server is called, the page that asks, the token."""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Collection
from http import HTTPStatus
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from equipoise.serve.metrics import Metrics

PROTECTED = ("/api/", "/metrics")
_CONTENT = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "media-src 'self' blob:",
        "img-src 'self' data:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ]
)
_HEADERS = {
    "Content-Security-Policy": _CONTENT,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Access:
    """Refuses requests before anything is read of them, and counts all.

    - A server on loopback answers only under names of loopback. Otherwise a page of the web whose name an attacker's
      name server points at 127.0.0.1 could read scores.
    - What changes something and comes from a page has to come from this server's page. Otherwise any page could send
      clips.
    - With a token, the API and the metrics need it: ``Authorization: Bearer TOKEN``.

    Args:
        app: what is protected.
        token: None for none.
        loopback: the server listens on loopback only.
        metrics: where requests are counted.
    """

    def __init__(self, app: ASGIApp, *, token: str | None, loopback: bool, metrics: Metrics) -> None:
        self.app, self.loopback, self.metrics = app, loopback, metrics
        self._token = None if token is None else token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        headers = Headers(scope=scope)
        status = 500

        async def finish(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                found = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    found.setdefault(name, value)
            await send(message)

        try:
            refusal = self._refusal(scope["method"], scope["path"], headers)
            await (refusal or self.app)(scope, receive, finish)
        finally:
            route = getattr(scope.get("route"), "path", "other")  # the pattern: paths hold ids, and anything at all
            self.metrics.requests.labels(_method(scope["method"]), route, str(status)).inc()

    def _refusal(self, method: str, path: str, headers: Headers) -> JSONResponse | None:
        host = headers.get("host", "")
        if self.loopback and not is_loopback(urlsplit(f"//{host}").hostname or ""):
            return problem(421, "host", "This server answers under the names of this machine only.")
        origin = headers.get("origin")
        if method not in ("GET", "HEAD", "OPTIONS") and origin is not None and urlsplit(origin).netloc != host:
            return problem(403, "origin", "Another site's page may not ask this server.")
        if self._token is not None and path.startswith(PROTECTED) and not self._knows(headers):
            answer = problem(401, "token", "Send the token that the server was started with.")
            answer.headers["WWW-Authenticate"] = "Bearer"
            return answer
        return None

    def _knows(self, headers: Headers) -> bool:
        kind, _, given = headers.get("authorization", "").partition(" ")
        return kind.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), self._token or b"")


def problem(status: int, code: str, message: str, headers: Collection[tuple[str, str]] = ()) -> JSONResponse:
    """An error as every answer of the API has it: a code for programs and one line for people."""
    content = {"error": {"code": code, "message": message}}
    return JSONResponse(content, HTTPStatus(status), headers=dict(headers))


def is_loopback(host: str) -> bool:
    """Whether a name or an address is this machine and no other.

    >>> [is_loopback(host) for host in ("localhost", "127.0.0.2", "::1", "0.0.0.0", "example.org")]
    [True, True, True, False, False]
    """
    if host.lower().rstrip(".") == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _method(method: str) -> str:
    return method if method in ("GET", "HEAD", "POST", "DELETE", "OPTIONS") else "other"
