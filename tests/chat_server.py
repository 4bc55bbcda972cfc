"""A server with OpenAI's chat completions that answers as it is told: well, with faults, or not at all."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = Callable[[list[dict[str, Any]]], "str | tuple[int, str] | None"]
"""Of the messages: a line; (status, body); or None: no answer as long as the server lives."""


@dataclass
class Server:
    url: str
    asked: list[list[dict[str, Any]]] = field(default_factory=list)
    most: int = 0  # requests at one time


def well(messages: list[dict[str, Any]]) -> str:
    """A line that nobody has said yet, as a friend asks or a robot answers."""
    number = "one two three four five six seven eight nine ten eleven twelve".split()[len(messages) % 12]
    told = str(messages[0]["content"])
    if told.startswith("You talk with a robot"):
        return f"Friend: What about thing {number}?"
    return f'"It is {number} metres from here."'


@contextmanager
def chat_server(answer: Answer = well) -> Iterator[Server]:
    over = threading.Event()
    guard = threading.Lock()
    running = 0

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            nonlocal running
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with guard:
                running += 1
                server.most = max(server.most, running)
                server.asked.append(body["messages"])
            try:
                told = answer(body["messages"]) if self.path == "/v1/chat/completions" else (404, "not found")
            finally:
                with guard:
                    running -= 1
            if told is None:
                over.wait()
                return
            status, text = told if isinstance(told, tuple) else (200, completion(told))
            self.send_response(status)
            self.send_header("Content-Length", str(len(text.encode())))
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *args: Any) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.daemon_threads = True
    server = Server(f"http://127.0.0.1:{http.server_address[1]}/v1")
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        over.set()
        http.shutdown()
        thread.join()
        http.server_close()


def completion(text: str | None, finish: str = "stop") -> str:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish}
    return json.dumps({"choices": [choice], "usage": {"prompt_tokens": 100, "completion_tokens": 10}})
