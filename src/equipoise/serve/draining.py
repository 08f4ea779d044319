"""What a client still sends is read before it is refused: else it would see a broken connection, and not why."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_SECONDS = 10.0


class Draining:
    """Reads and drops the rest of a body, for some seconds, before an answer is given.

    A client that asked whether to send its body (``Expect: 100-continue``) hears the answer in its place.

    Args:
        app: what answers.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        headers = Headers(scope=scope) if scope["type"] == "http" else Headers()
        whole = headers.get("content-length", "0") == "0" and "transfer-encoding" not in headers
        asked = headers.get("expect", "").lower() == "100-continue"

        async def read() -> Message:
            nonlocal whole, asked
            asked = False
            message = await receive()
            whole = whole or message["type"] != "http.request" or not message.get("more_body", False)
            return message

        async def drain() -> None:
            while not whole:
                await read()

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start" and not whole and not asked:
                with suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(drain(), _SECONDS)
            await send(message)

        await self.app(scope, read, answer)
