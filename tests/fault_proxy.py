"""A proxy between S3 clients and their server that breaks requests, at random or by plan.

    with FaultProxy(server.endpoint, seed=1, share=0.05) as proxy:
        os.environ["AWS_ENDPOINT_URL"] = proxy.endpoint

Every request gets its own connection to the server, whose reply is read whole before it is sent.
"""

import asyncio
import random
import socket
import struct
from collections import Counter
from contextlib import closing, suppress
from dataclasses import dataclass
from threading import Thread
from urllib.parse import urlsplit

from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

BUSY, RESET, RESET_BODY, TRUNCATE, STALL, LOST = KINDS = (
    "busy",  # 503 SlowDown, for a burst of requests to one path; the server sees none of them
    "reset",  # the connection is reset before the server sees the request
    "reset_body",  # the connection is reset in the middle of the reply
    "truncate",  # the reply ends in its middle, as if it were complete
    "stall",  # the reply stops in its middle and the connection stays open
    "lost",  # the server carries out the request, but the client sees a reset
)
BURST = 3
"""The most 503 replies in a row for one path."""
SLOW_DOWN = (
    b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
)

DEMANDED = (
    b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 130\r\n\r\n"
    b"<Error><Code>InvalidRequest</Code><Message>Content-MD5 OR x-amz-checksum- HTTP header is"
    b" required for Put Object</Message></Error>"
)


@dataclass
class Fault:
    """A planned fault: it breaks the next `count` requests that match."""

    kind: str
    method: str = ""
    """Empty: any."""
    path: str = ""
    """A part of the path and query; empty: any."""
    count: int = 1
    retry_after_s: int = 0
    """Sent with a 503, if above 0."""


class FaultProxy:
    """Listens on a free port until closed; `share` is the probability of each kind of fault.

    `strip` is (header, key, secret): the header is removed and the request signed again, as if the
    server did not know the header. A PUT without any of the headers `demand` is refused, as by a
    bucket with Object Lock.

    `faults` counts the broken requests by kind; `requests` lists (method, path) of all.
    """

    def __init__(
        self,
        upstream: str,
        *plan: Fault,
        seed: int = 0,
        share: float = 0.0,
        stall_s: float = 60,
        strip: tuple[str, str, str] | None = None,
        demand: tuple[str, ...] = (),
    ) -> None:
        address = urlsplit(upstream)
        self.upstream = address.hostname, address.port
        self.plan = list(plan)
        self.share, self.stall_s = share, stall_s
        self.strip, self.demand = strip, demand
        self.chance = random.Random(seed)
        self.bursts: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()
        self.requests: list[tuple[str, str]] = []
        self.loop = asyncio.new_event_loop()

    def __enter__(self) -> "FaultProxy":
        serving = asyncio.start_server(self._serve, "127.0.0.1", 0, limit=1 << 20)
        listener = self.loop.run_until_complete(serving).sockets[0]
        self.endpoint = f"http://127.0.0.1:{listener.getsockname()[1]}"
        self.thread = Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self.loop).result(10)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(10)

    async def _end(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with closing(writer), suppress(OSError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            method, path, _ = head.split(b"\r\n", 1)[0].decode().split(" ")
            self.requests.append((method, path))
            fault = self._next_fault(method, path)
            self.faults.update([fault.kind] if fault else [])
            request = await self._body(head, reader, writer)
            if self.strip:
                request = self._stripped(request, *self.strip)
            if method == "PUT" and self.demand and not _has(request, self.demand):
                writer.write(DEMANDED)
                return await writer.drain()
            await self._answer(fault, request, method, writer)

    def _next_fault(self, method: str, path: str) -> Fault | None:
        for fault in self.plan:
            if fault.count and method.startswith(fault.method) and fault.path in path:
                fault.count -= 1
                return fault
        if self.bursts[path]:
            self.bursts[path] -= 1
            return Fault(BUSY)
        kind = int(self.chance.random() / self.share) if self.share else len(KINDS)
        if kind >= len(KINDS):
            return None
        if KINDS[kind] == BUSY:
            self.bursts[path] = self.chance.randrange(BURST)
        return Fault(KINDS[kind])

    async def _body(self, head: bytes, reader, writer) -> bytes:
        """The request for the server, with one connection each; `Expect` is answered here."""
        lines = head.split(b"\r\n")[:-2]
        headers = dict(line.lower().split(b": ", 1) for line in lines[1:])
        if b"expect" in headers:
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        rest = [line for line in lines if not line.lower().startswith((b"expect:", b"connection:"))]
        body = await reader.readexactly(int(headers.get(b"content-length", 0)))
        size = headers.get(b"transfer-encoding") == b"chunked"
        while size:
            line = await reader.readuntil(b"\r\n")
            size = int(line.split(b";")[0], 16)
            body += line + await reader.readexactly(size + 2)
        return b"\r\n".join([*rest, b"Connection: close", b"", b""]) + body

    def _stripped(self, request: bytes, header: str, key: str, secret: str) -> bytes:
        head, _, body = request.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        method, path, _ = first.split(" ")
        headers = dict(line.split(": ", 1) for line in lines)
        removed = {header.lower(), "authorization", "x-amz-date", "host"}
        rest = {name: value for name, value in headers.items() if name.lower() not in removed}
        url = f"http://{self.upstream[0]}:{self.upstream[1]}{path}"
        signed = AWSRequest(method, url, rest, body)
        S3SigV4Auth(Credentials(key, secret), "s3", "us-east-1").add_auth(signed)
        host = f"Host: {urlsplit(url).netloc}"
        fields = [first, host, *(f"{name}: {value}" for name, value in signed.headers.items())]
        return "\r\n".join([*fields, "", ""]).encode() + body

    async def _answer(self, fault: Fault | None, request: bytes, method: str, writer) -> None:
        kind = fault.kind if fault else ""
        if kind == RESET:
            return _reset(writer)
        if kind == BUSY and fault:
            after = f"Retry-After: {fault.retry_after_s}\r\n" if fault.retry_after_s else ""
            body = b"" if method == "HEAD" else SLOW_DOWN
            head = f"HTTP/1.1 503 Slow Down\r\nConnection: close\r\n{after}Content-Length: "
            writer.write(f"{head}{len(body)}\r\n\r\n".encode() + body)
            return await writer.drain()
        reply = await self._forwarded(request)
        if kind == LOST:
            return _reset(writer)
        end = reply.find(b"\r\n\r\n") + 4
        half = end + (len(reply) - end) // 2
        writer.write(reply[:half] if kind in (RESET_BODY, TRUNCATE, STALL) else reply)
        await writer.drain()
        if kind == STALL:
            await asyncio.sleep(self.stall_s)
        if kind == RESET_BODY:
            await asyncio.sleep(0.05)  # a reset discards what the client has not read yet
            _reset(writer)

    async def _forwarded(self, request: bytes) -> bytes:
        reader, writer = await asyncio.open_connection(*self.upstream, limit=1 << 24)
        writer.write(request)
        await writer.drain()
        reply = await reader.read()
        writer.close()
        return reply


def _has(request: bytes, headers: tuple[str, ...]) -> bool:
    head = request.partition(b"\r\n\r\n")[0].lower().decode()
    return any(f"\r\n{header.lower()}" in head for header in headers)


def _reset(writer: asyncio.StreamWriter) -> None:
    connection = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
