"""The web server of the page: aiohttp, in a thread of its own."""

from __future__ import annotations

import asyncio
import hmac
import json
import socket
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from importlib.resources import files
from ipaddress import ip_address

from moshivis_ros.dashboard.certificate import certificate
from moshivis_ros.dashboard.hub import Event, Hub, Page
from moshivis_ros.errors import ConfigError, MissingDependencyError

try:
    from aiohttp import WSMsgType, web
except ImportError as error:
    raise MissingDependencyError("the dashboard needs aiohttp: `pip install aiohttp`") from error

PAGE = {
    "": ("index.html", "text/html"),
    "style.css": ("style.css", "text/css"),
    "page.js": ("page.js", "text/javascript"),
    "charts.js": ("charts.js", "text/javascript"),
    "sound.js": ("sound.js", "text/javascript"),
}
EVERYWHERE = ("0.0.0.0", "::")
START_SECONDS = 10.0
MOST_SOUND = 200_000  # bytes of a message of the microphone: 2 s at 48 kHz
# Called with a wish of a page ({"do": ...}) and the page; gives the answer: whether it was done, and words.
Do = Callable[[Event, Page], Awaitable[tuple[bool, str]]]
# Called with sound of a page's microphone: (the page, samples a second, int16 mono).
Hear = Callable[[Page, int, bytes], None]


@dataclass(frozen=True)
class Address:
    """`token`: what the address must end in to be let in (?token=...); `tls`: HTTPS with a certificate of our own."""

    host: str
    port: int
    token: str
    tls: bool


class Server:
    """Serves from construction to close(). Raises ConfigError for an address that cannot be used, or that would let in
    everybody who reaches it.
    """

    def __init__(self, address: Address, hub: Hub, do: Do, hear: Hear, gone: Callable[[Page], None]) -> None:
        self._address, self._hub = address, hub
        self._do, self._hear, self._gone = do, hear, gone
        if not address.token and not _is_here(address.host):
            raise ConfigError(
                f"host {address.host} lets everybody who reaches it speak as the robot's user: give a token, too"
            )
        self._started = threading.Event()
        self._problem: OSError | None = None
        self.port = 0
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._tls = certificate(address.host) if address.tls else None
        self._thread = threading.Thread(target=self._run, name="server")
        self._thread.start()
        self._started.wait(START_SECONDS)
        if self._problem is not None:
            self._thread.join()
            raise ConfigError(
                f"{address.host}:{address.port} cannot be served ({self._problem.strerror}); choose another port"
            )

    @property
    def url(self) -> str:
        host = socket.gethostname() if self._address.host in EVERYWHERE else self._address.host
        host = f"[{host}]" if ":" in host else host
        token = f"?token={self._address.token}" if self._address.token else ""
        return f"http{'s' if self._address.tls else ''}://{host}:{self.port}/{token}"

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._serve())
        except OSError as error:
            self._problem = error
        finally:
            self._started.set()
            self._loop.close()

    async def _serve(self) -> None:
        app = web.Application()
        app.router.add_get("/ws", self._on_socket)
        app.router.add_get("/{name:[a-z.]*}", self._on_file)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        try:
            site = web.TCPSite(
                runner, self._address.host, self._address.port, ssl_context=self._tls, shutdown_timeout=1.0
            )
            await site.start()
            self.port = runner.addresses[0][1]
            telling = asyncio.ensure_future(self._hub.run())
            self._started.set()
            await self._stop.wait()
            telling.cancel()
        finally:
            await runner.cleanup()

    def _check(self, request: web.Request) -> None:
        """No other site's page may act for the user, by its name or by one that leads here."""
        if self._address.token:
            given = request.query.get("token", "")
            if not hmac.compare_digest(given.encode(), self._address.token.encode()):  # of text: ASCII only
                raise web.HTTPForbidden(
                    text="the address must end in ?token=..., as the node dashboard says it\n"
                )
        elif not _is_here(request.host.rsplit(":", 1)[0].strip("[]")):
            raise web.HTTPForbidden(text="call this page localhost, or give the node a token\n")
        origin = request.headers.get("Origin")
        if origin is not None and origin.split("://", 1)[-1] != request.host:
            raise web.HTTPForbidden(text="this is not the page of another site\n")

    async def _on_file(self, request: web.Request) -> web.Response:
        if request.match_info["name"] not in PAGE:
            raise web.HTTPNotFound
        if not request.match_info["name"]:  # the rest of the page tells nothing about the robot
            self._check(request)
        name, kind = PAGE[request.match_info["name"]]
        text = files("moshivis_ros.dashboard").joinpath("page").joinpath(name).read_text()
        return web.Response(text=text, content_type=kind, headers={"Cache-Control": "no-cache"})

    async def _on_socket(self, request: web.Request) -> web.WebSocketResponse:
        self._check(request)
        link = web.WebSocketResponse(max_msg_size=MOST_SOUND, heartbeat=20.0, compress=False)
        await link.prepare(request)
        page = Page()
        self._hub.join(page)
        wishes: set[asyncio.Future[None]] = set()  # each by itself: sound does not wait for an answer
        sending = asyncio.ensure_future(_send(link, page))
        try:
            async for message in link:
                if message.type == WSMsgType.BINARY and len(message.data) > 4:
                    self._hear(page, int.from_bytes(message.data[:4], "little"), message.data[4:])
                elif message.type == WSMsgType.TEXT:
                    wishes.add(wish := asyncio.ensure_future(self._grant(message.data, page)))
                    wish.add_done_callback(wishes.discard)
        finally:
            sending.cancel()
            self._hub.leave(page)
            self._gone(page)
        return link

    async def _grant(self, text: str, page: Page) -> None:
        try:
            wish = json.loads(text)
            do = str(wish["do"])
        except (ValueError, KeyError, TypeError):
            do, done, words = "", False, f"a wish is an object of JSON with a name, do: not {text[:80]!r}"
        else:
            done, words = await self._do(wish, page)
        page.put(json.dumps([{"kind": "answer", "do": do, "done": done, "words": words}]))


async def _send(link: web.WebSocketResponse, page: Page) -> None:
    while True:
        message = await page.get()
        if isinstance(message, str):
            await link.send_str(message)
        else:
            await link.send_bytes(message)


def _is_here(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
