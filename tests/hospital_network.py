"""A hospital's network in front of an S3 server: TLS by the hospital's own CA, and a proxy.

    with HospitalNetwork(server.endpoint, folder, "s3.hospital.example") as network:
        os.environ["AWS_ENDPOINT_URL_S3"] = "https://s3.hospital.example"
        os.environ["AWS_CA_BUNDLE"] = str(network.ca)
        os.environ["HTTPS_PROXY"] = network.proxy

The hosts have no address: only the proxy reaches them. `network.endpoint` is the same TLS without
the proxy.
"""

import asyncio
import ssl
from contextlib import closing, suppress
from pathlib import Path
from threading import Thread
from urllib.parse import urlsplit

import trustme

ENDS = OSError, asyncio.IncompleteReadError, asyncio.CancelledError


class HospitalNetwork:
    """Listens on free ports until closed; `asked` lists the hosts that the proxy was asked for."""

    def __init__(self, upstream: str, folder: Path, *hosts: str) -> None:
        address = urlsplit(upstream)
        self.upstream = address.hostname, address.port
        authority = trustme.CA()
        self.ca = folder / "hospital-ca.pem"
        authority.cert_pem.write_to_path(str(self.ca))
        self.certificate = authority.issue_cert("127.0.0.1", "localhost", *hosts)
        self.asked: list[str] = []
        self.served = 0
        """The number of connections whose TLS handshake succeeded."""
        self.loop = asyncio.new_event_loop()

    def __enter__(self) -> "HospitalNetwork":
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.certificate.configure_cert(context)
        front = self._listen(self._front, ssl=context)
        self.front = "127.0.0.1", front
        self.endpoint = f"https://127.0.0.1:{front}"
        self.proxy = f"http://127.0.0.1:{self._listen(self._proxy)}"
        self.thread = Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self.loop).result(10)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(10)

    def _listen(self, serve, **options) -> int:
        starting = asyncio.start_server(serve, "127.0.0.1", 0, **options)
        return self.loop.run_until_complete(starting).sockets[0].getsockname()[1]

    async def _end(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _front(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.served += 1
        with closing(writer), suppress(*ENDS):
            await _joined(reader, writer, *self.upstream)

    async def _proxy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with closing(writer), suppress(*ENDS):
            head = await reader.readuntil(b"\r\n\r\n")
            method, target, _ = head.split(b"\r\n", 1)[0].decode().split(" ")
            assert method == "CONNECT"
            self.asked.append(target.rpartition(":")[0])
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            await _joined(reader, writer, *self.front)


async def _joined(reader, writer, host: str, port: int) -> None:
    """Pass bytes both ways until either side ends."""
    up_reader, up_writer = await asyncio.open_connection(host, port)
    with closing(up_writer):
        ways = [_passed(reader, up_writer), _passed(up_reader, writer)]
        tasks = [asyncio.ensure_future(way) for way in ways]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()


async def _passed(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
