"""Who writes the lines of a dialogue: a language model behind the interface of OpenAI's chat completions.

vLLM, llama.cpp, Ollama and the paid services all have it. httpx speaks to it: the one call that is needed is a POST, and
the package `openai` is httpx with fifteen times as much around it.
"""

from __future__ import annotations

import base64
import random
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from moshivis_ros.errors import EndpointError, MissingDependencyError

ATTEMPTS = 6
PASSING = (408, 409, 425, 429, 500, 502, 503, 504, 529)  # what another attempt may mend
LONGEST_WAIT = 60.0  # seconds between two attempts
MOST_TOKENS = 200  # of a line


@dataclass(frozen=True)
class Message:
    """role: system, user or assistant. picture: a JPEG or PNG file's bytes."""

    role: str
    text: str
    picture: bytes | None = None


@dataclass(frozen=True)
class Written:
    """whole: it was not cut off. read, said: tokens, where the server tells."""

    text: str
    whole: bool
    read: int = 0
    said: int = 0


class Writer(Protocol):
    """Whoever goes on with a conversation. Called from several threads at a time; `stop` is for those that wait."""

    def __call__(self, messages: Sequence[Message]) -> Written: ...

    def stop(self) -> None: ...


class Endpoint:
    """A server. url: with its version, as http://localhost:8000/v1. key: where it wants one.

    Waits and tries again, ATTEMPTS times, where the fault may pass: no connection, no answer in `timeout` seconds, 429,
    5xx, an answer that is none. Raises EndpointError for any other fault at once. pause: seconds before the second attempt.
    """

    def __init__(
        self,
        url: str,
        model: str,
        key: str = "",
        timeout: float = 120.0,
        pause: float = 1.0,
    ) -> None:
        try:
            import httpx
        except ImportError as error:
            raise MissingDependencyError(
                f"a language model's server needs httpx ({error}): pip install 'moshivis_ros[data]'"
            ) from error
        self._url, self._model, self._first_pause = url.rstrip("/"), model, pause
        self._stopped = threading.Event()
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._client = httpx.Client(
            timeout=httpx.Timeout(timeout, connect=min(timeout, 10.0)), headers=headers
        )
        self._faults = (httpx.TransportError,)
        self._wrong = (httpx.InvalidURL, httpx.UnsupportedProtocol)

    def __call__(self, messages: Sequence[Message]) -> Written:
        body = {
            "model": self._model,
            "messages": [_json(message) for message in messages],
            "max_tokens": MOST_TOKENS,
            "temperature": 0.8,
        }
        fault, asked = "", None
        for attempt in range(ATTEMPTS):
            if attempt and self._stopped.wait(self._pause(attempt, asked)):
                break
            asked = None
            try:
                response = self._client.post(f"{self._url}/chat/completions", json=body)
            except self._wrong as error:
                raise EndpointError(
                    f"{self._url}: not an address ({error}); give http://HOST:PORT/v1"
                ) from error
            except self._faults as error:
                fault = f"no answer ({type(error).__name__} {error})".replace(" )", ")")
                continue
            if response.status_code in PASSING:
                fault, asked = (
                    f"{response.status_code} {response.reason_phrase}",
                    response.headers.get("Retry-After"),
                )
                continue
            if response.status_code != 200:
                raise EndpointError(self._refusal(response.status_code, response.text))
            try:
                return _written(response.json())
            except (ValueError, KeyError, IndexError, TypeError, AttributeError):
                fault = f"an answer that is no chat completion: {response.text[:80]!r}"
        raise EndpointError(
            f"{self._url}: no success in {ATTEMPTS} attempts, at last {fault}; see to the server. What is done is kept: the same "
            "command goes on"
        )

    def stop(self) -> None:
        self._stopped.set()

    def _pause(self, attempt: int, asked: str | None) -> float:
        """Seconds: as long as the server asked for, or twice as long as last time; not all threads at once."""
        if asked and asked.isdecimal():
            return min(LONGEST_WAIT, float(asked))
        return min(LONGEST_WAIT, self._first_pause * 2.0 ** (attempt - 1)) * random.uniform(0.5, 1.0)

    def _refusal(self, status: int, text: str) -> str:
        advice = {
            401: "set the key in the environment variable OPENAI_API_KEY",
            403: "set the key in the environment variable OPENAI_API_KEY",
            404: f"is there /v1 in the address, and a model {self._model} on the server?",
        }.get(status, "see what the server says of it")
        return f"{self._url}: {status} ({' '.join(text.split())[:200]}); {advice}"


def _json(message: Message) -> dict[str, Any]:
    if message.picture is None:
        return {"role": message.role, "content": message.text}
    kind = "png" if message.picture[:4] == b"\x89PNG" else "jpeg"
    url = f"data:image/{kind};base64,{base64.b64encode(message.picture).decode()}"
    content = [{"type": "text", "text": message.text}, {"type": "image_url", "image_url": {"url": url}}]
    return {"role": message.role, "content": content}


def _written(answer: Any) -> Written:
    choice = answer["choices"][0]
    usage = answer.get("usage") or {}
    text = choice["message"]["content"]
    if not isinstance(text, str):
        raise ValueError("no text")
    whole = choice.get("finish_reason") != "length"
    return Written(
        text, whole, int(usage.get("prompt_tokens") or 0), int(usage.get("completion_tokens") or 0)
    )
