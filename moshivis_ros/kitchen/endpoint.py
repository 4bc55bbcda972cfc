"""A language model of templates behind OpenAI's chat completions: it plays the two who talk about a picture.

It understands our own captions only (questions.understood), and says nothing but what the miniature has words for.
"""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from moshivis_ros.data import filters, prompts
from moshivis_ros.kitchen import questions
from moshivis_ros.training import dialogues
from moshivis_ros.training.dialogues import Exchange

KINDS = ("PROP", "NUM", "LEAD1", prompts.COMB)  # that it can play: no caption says where something is
_ASKS = {  # of the paper's kinds -> ours
    "PROP": ("colour", "thing"),
    "NUM": ("number", "presence"),
    "LEAD1": ("misleading", "presence"),
}
_CHANGES = prompts.SWITCH.partition("{")[0]
_TRIES = 200


class Templates:
    """Answers requests; the two roles know of each other by what was asked."""

    def __init__(self) -> None:
        self._answers: dict[tuple[str, str], str] = {}  # caption (empty: another subject), question -> answer

    def __call__(self, messages: Sequence[dict[str, Any]]) -> str:
        told, lines = str(messages[0]["content"]), [str(m["content"]) for m in messages[1:]]
        asks = told.startswith((prompts.FRIEND, _CHANGES))
        elsewhere = told.startswith((_CHANGES, prompts.SWITCHED))  # the subject is no longer the picture
        about = "" if elsewhere else dialogues.description(questions.understood(told))
        if asks:
            exchange = self._asked(random.Random(json.dumps(messages)), told, lines[1:], about)
            self._answers[about, exchange.question] = exchange.answer
            return exchange.question
        return self._answers[about, lines[-1]]

    def _asked(self, rng: random.Random, told: str, lines: list[str], about: str) -> Exchange:
        """A question after ``lines``, of which neither it nor its answer is a repetition."""
        view = questions.understood(about)
        wanted: Sequence[str] = next((ours for kind, ours in _ASKS.items() if prompts.KINDS[kind].friend in told), ("describe",))
        for _ in range(_TRIES):
            kind = rng.choice(wanted) if about else "small talk"
            exchange = questions.draw(rng, kind, view, held_out=False)
            if exchange and not filters.problem(exchange.question, True, lines[::2]):
                if not filters.problem(exchange.answer, True, lines[1::2]):
                    return exchange
            wanted = ("describe", "presence", "number", "colour") if rng.random() < 0.1 else wanted
        return dialogues.describe(rng, view, held_out=False)


@contextmanager
def serve() -> Iterator[str]:
    """The address of a server that runs as long as the context."""
    templates, guard = Templates(), threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            try:
                with guard:
                    line = templates(body["messages"])
            except KeyError as error:
                self.send_error(400, f"nobody has asked {error} here")
                return
            answer = {"choices": [{"message": {"role": "assistant", "content": line}, "finish_reason": "stop"}]}
            data = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        server.server_close()
