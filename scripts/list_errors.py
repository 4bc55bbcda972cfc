"""Writes docs/errors.md: every error that the package raises, in the words that are printed, by the part that says it.

python scripts/list_errors.py
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "moshivis_ros"
PAGE = ROOT / "docs" / "errors.md"
PARTS = {
    "nodes": "the nodes", "engine": "the engine", "conversation.py": "a conversation", "chat.py": "moshivis chat",
    "model": "checkpoints and the network", "vision": "pictures, videos and the refresh policy", "audio": "sound and devices",
    "simulation": "worlds and scenarios", "bench": "moshivis bench", "study": "moshivis study-refresh",
    "training": "training and its data", "data": "moshivis make-dialogues", "evaluation": "moshivis eval",
}  # fmt: skip
HEAD = """# Every error

<!-- written by python scripts/list_errors.py -->

Search this page for the words that you see. `…` stands for a name or number of yours. Symptoms without an error:
[troubleshooting](troubleshooting.md). How inputs of every kind are read or refused: [inputs](inputs.md).
"""


def text() -> str:
    """The page."""
    rest = sorted({file.relative_to(PACKAGE).parts[0] for file in PACKAGE.rglob("*.py")} - {*PARTS})
    sections = [(title, PACKAGE / name) for name, title in PARTS.items()]
    sections.append(("everything else", *(PACKAGE / name for name in rest)))
    lines = [HEAD]
    for title, *places in sections:
        files = sorted(
            file for place in places for file in ([place] if place.is_file() else place.rglob("*.py"))
        )
        found = sorted({message for file in files for message in _messages(ast.parse(file.read_text()))})
        if found:
            lines += [f"## {title[0].upper()}{title[1:]}", "", *(f"- {message}" for message in found), ""]
    return "\n".join(lines)


def _messages(tree: ast.Module) -> Iterator[str]:
    errors = (
        node.exc for node in ast.walk(tree) if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call)
    )
    for error in errors:
        if isinstance(error.func, ast.Name) and error.args and (words := _words(error.args[0])):
            yield words


def _words(node: ast.expr) -> str:
    """A string with … for what is filled in; empty where it says nothing of itself."""
    if isinstance(node, ast.Constant):
        parts = [str(node.value)]
    elif isinstance(node, ast.JoinedStr):
        parts = [part.value if isinstance(part, ast.Constant) else "…" for part in node.values]
    elif isinstance(node, ast.BinOp):
        parts = [_words(node.left), _words(node.right)]
    else:
        return ""
    words = " ".join("".join(parts).split())
    for sign in "\\`*_<>[]":
        words = words.replace(sign, f"\\{sign}")
    return words if any(letter.isalpha() for letter in words) else ""


if __name__ == "__main__":
    PAGE.write_text(text())
