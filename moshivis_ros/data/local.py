"""A vision-language model that runs here, by transformers: for whoever has no server. One line at a time."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any, cast

from moshivis_ros.data.writer import MOST_TOKENS, Message, Written
from moshivis_ros.errors import CheckpointError, MissingDependencyError


class LocalModel:
    """name: a folder or a Hugging Face repo of an image-text-to-text model with a chat template.

    Raises MissingDependencyError without transformers, CheckpointError for what is none.
    """

    def __init__(self, name: str) -> None:
        try:
            import torch
            import transformers
        except ImportError as error:
            raise MissingDependencyError(
                f"a language model here needs transformers and torch ({error}): pip install 'moshivis_ros[vlm]', and torch "
                "for this machine"
            ) from error
        self._torch, auto = torch, cast(Any, transformers)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        dtype = torch.bfloat16 if device == "cuda" else torch.float32
        try:
            self._processor: Any = auto.AutoProcessor.from_pretrained(name)
            self._model: Any = (
                auto.AutoModelForImageTextToText.from_pretrained(name, dtype=dtype).to(device).eval()
            )
        except (OSError, ValueError, KeyError) as error:
            raise CheckpointError(
                f"{name} is no vision-language model that transformers can load ({' '.join(str(error).split())[:300]})"
            ) from error
        if not getattr(self._processor, "chat_template", None):
            raise CheckpointError(f"{name} has no chat template: take a model that is made for conversations")
        self._one_at_a_time = threading.Lock()

    def __call__(self, messages: Sequence[Message]) -> Written:
        pictures = [_picture(message.picture) for message in messages if message.picture is not None]
        talk = [{"role": message.role, "content": _content(message)} for message in messages]
        with self._one_at_a_time, self._torch.no_grad():
            prompt = self._processor.apply_chat_template(talk, add_generation_prompt=True, tokenize=False)
            inputs = self._processor(text=[prompt], images=pictures or None, return_tensors="pt")
            inputs = inputs.to(self._model.device)
            out = self._model.generate(**inputs, max_new_tokens=MOST_TOKENS, do_sample=True, temperature=0.8)
        read = inputs["input_ids"].shape[1]
        said = out[0, read:]
        text = self._processor.batch_decode([said], skip_special_tokens=True)[0]
        return Written(text, len(said) < MOST_TOKENS, read, len(said))

    def stop(self) -> None:
        """Nothing waits here but for the line that is being written."""


def _content(message: Message) -> list[dict[str, str]]:
    image = [{"type": "image"}] if message.picture is not None else []
    return [*image, {"type": "text", "text": message.text}]


def _picture(data: bytes) -> Any:
    """As the processors take it."""
    import io

    from PIL import Image

    return Image.open(io.BytesIO(data)).convert("RGB")
