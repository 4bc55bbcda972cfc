"""What may be commanded by voice, and what it does: a list in YAML. What is not in it cannot happen.

robot: /robot1                     # the namespace that may use this list; left out: any
ignore: [please, robot, now]       # words that may stand anywhere
confirm_within: 8                  # seconds for "yes"
commands:
  turn:
    hear: ["turn {side}", "turn to the {side}"]       # the whole of what was said, without case and punctuation
    parts: {side: {left: true, right: false}}         # the words that may stand there, and what they mean
    before: "I turn {side}."                          # said before it is done
    call: {service: turn, type: std_srvs/srv/SetBool, request: {data: "{side}"}}
    after: "Done."                                    # said when it has been done
  forward:
    hear: ["go forward"]
    confirm: "Shall I go forward?"                    # is asked, and only "yes" does it
    publish: {topic: cmd_vel, type: geometry_msgs/msg/Twist, message: {linear: {x: 0.3}}, seconds: 2}
  stop:
    stop: true                                        # heard anywhere in what is said, and before it is all said
    hear: [stop, halt]
    publish: {topic: cmd_vel, type: geometry_msgs/msg/Twist}
  wake:
    asleep: true                                      # counts while the robot sleeps, and only then
    hear: ["wake up", "hello robot"]
    call: {service: talk/sleep, type: std_srvs/srv/SetBool, request: {data: false}}
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import yaml

from moshivis_ros.errors import ConfigError

WORD = re.compile(r"[^\W_]+(?:'\w+)?")
PART = re.compile(r"\{(\w+)\}")
NAMES = {"publish": ("topic", "message"), "call": ("service", "request"), "goal": ("action", "goal")}
YES = ("yes", "yes please", "yeah", "yes do", "yes do it", "ok", "okay", "sure")
NO = ("no", "don't", "no don't")
Problem = tuple[tuple[str, ...], str]  # where in the file, what


@dataclass(frozen=True)
class Act:
    """`kind`: publish, call or goal; `fields`: of the message, request or goal; `seconds`: publish again and again so long."""

    kind: str
    name: str
    type: str
    fields: dict[str, Any]
    seconds: float = 0.0


@dataclass(frozen=True)
class Command:
    name: str
    patterns: tuple[re.Pattern[str], ...]
    parts: dict[str, dict[str, Any]]
    act: Act
    before: str = ""
    after: str = ""
    confirm: str = ""
    stop: bool = False
    asleep: bool = False

    def variants(self) -> Iterator[dict[str, str]]:
        """Every choice of words for the parts."""
        for words in product(*self.parts.values()):
            yield dict(zip(self.parts, words))

    def fields(self, words: dict[str, str]) -> dict[str, Any]:
        """Of the act, with what these words mean."""
        meanings = {part: self.parts[part][word] for part, word in words.items()}
        filled: dict[str, Any] = _filled(self.act.fields, meanings)
        return filled


@dataclass(frozen=True)
class Heard:
    """A command, and the words for its parts."""

    command: Command
    words: dict[str, str]


class CommandList:
    """Raises ConfigError for a file that cannot be used, with the line and the key of all that is wrong."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            text = path.read_text()
            self._tree = yaml.compose(text, yaml.SafeLoader)
            data = yaml.safe_load(text)
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise ConfigError(f"the list of commands {str(path)!r} cannot be read: {error}") from error
        problems = list(
            _wrong(
                data,
                {"robot": str, "ignore": list, "confirm_within": (int, float), "commands": dict},
                ("commands",),
                (),
            )
        )
        if problems:
            raise self.error(problems)
        self.robot: str | None = data.get("robot")
        self.confirm_within = float(data.get("confirm_within", 8.0))
        self._ignored = {word for entry in data.get("ignore", ()) for word in words_of(str(entry))}
        self.commands: list[Command] = []
        for name, entry in data["commands"].items():
            where = ("commands", str(name))
            found = list(_wrong_entry(entry, where, self._ignored))
            problems += found
            if not found:
                self.commands.append(_command(str(name), entry))
        if problems:
            raise self.error(problems)

    def match(self, text: str, asleep: bool = False) -> Heard | None:
        """The first command that this is the whole of, or, of those that stop, a part."""
        said = self._said(text)
        for command in self.commands:
            for pattern in command.patterns:
                found = pattern.search(said) if command.stop else pattern.fullmatch(said)
                if found and (command.stop or command.asleep == asleep):
                    return Heard(command, found.groupdict())
        return None

    def stops(self, text: str) -> Heard | None:
        """The first command of those that stop."""
        heard = self.match(text)
        return heard if heard and heard.command.stop else None

    def answer(self, text: str) -> bool | None:
        """To a question: yes, no, or neither."""
        said = self._said(text)
        return True if said in YES else False if said in NO else None

    def error(self, problems: Sequence[Problem]) -> ConfigError:
        lines = [
            f"{self._path}:{self._line(where)}: {'.'.join(where) or 'the file'}: {what}"
            for where, what in problems
        ]
        return ConfigError("\n".join(lines))

    def _said(self, text: str) -> str:
        return " ".join(word for word in words_of(text) if word not in self._ignored)

    def _line(self, where: tuple[str, ...]) -> int:
        """Of this key, or of the nearest one around it that is there; from 1."""
        node = self._tree
        line = node.start_mark.line if node else 0
        for key in where:
            pairs = node.value if isinstance(node, yaml.MappingNode) else ()
            found = next(((k, value) for k, value in pairs if k.value == key), None)
            if found is None:
                break
            line, node = found[0].start_mark.line, found[1]
        return line + 1


def words_of(text: str) -> list[str]:
    return WORD.findall(text.lower().replace("’", "'"))


def said_with(sentence: str, words: dict[str, str]) -> str:
    """A sentence with the words of the parts in it."""
    return PART.sub(lambda match: words[match[1]], sentence)


def _filled(data: Any, meanings: dict[str, Any]) -> Any:
    """Strings that are a part alone become what it means, of whatever type; in longer ones it is written."""
    if isinstance(data, dict):
        return {key: _filled(value, meanings) for key, value in data.items()}
    if isinstance(data, list):
        return [_filled(value, meanings) for value in data]
    if not isinstance(data, str):
        return data
    alone = PART.fullmatch(data)
    return meanings[alone[1]] if alone else PART.sub(lambda match: str(meanings[match[1]]), data)


def _command(name: str, entry: dict[str, Any]) -> Command:
    parts = {
        part: {" ".join(words_of(str(word))): meaning for word, meaning in words.items()}
        for part, words in entry.get("parts", {}).items()
    }
    kind = next(kind for kind in NAMES if kind in entry)
    act, (what, fields) = entry[kind], NAMES[kind]
    return Command(
        name=name,
        patterns=tuple(_pattern(text, parts, bool(entry.get("stop"))) for text in entry["hear"]),
        parts=parts,
        act=Act(kind, act[what], act["type"], act.get(fields, {}), float(act.get("seconds", 0.0))),
        **{key: entry[key] for key in ("before", "after", "confirm", "stop", "asleep") if key in entry},
    )


def _pattern(text: str, parts: dict[str, dict[str, Any]], within: bool) -> re.Pattern[str]:
    pieces = []
    for piece in PART.split(text)[::2]:
        pieces.append(" ".join(map(re.escape, words_of(piece))))
    names = PART.findall(text)
    groups = [f"(?P<{name}>{'|'.join(map(re.escape, parts[name]))})" for name in names]
    whole = " ".join(piece for pair in zip(pieces, [*groups, ""]) for piece in pair if piece)
    return re.compile(rf"(?<!\S){whole}(?!\S)" if within else whole)


def _braced(part: str) -> str:
    return f"{{{part}}}"


def _wrong(
    data: Any, kinds: dict[str, Any], needed: Sequence[str], where: tuple[str, ...]
) -> Iterator[Problem]:
    """What is wrong with a mapping: keys that are unknown or missing, and values of another type."""
    if not isinstance(data, dict):
        yield where, f"must be a mapping with {', '.join(kinds)}"
        return
    for key in data:
        if key not in kinds:
            yield (*where, str(key)), f"is unknown; known are {', '.join(kinds)}"
        elif not isinstance(data[key], kinds[key]) or (
            isinstance(data[key], bool) and kinds[key] is not bool
        ):
            kind = kinds[key] if isinstance(kinds[key], type) else kinds[key][0]
            name = {str: "text", dict: "a mapping", list: "a list", bool: "true or false", int: "a number"}[
                kind
            ]
            yield (*where, str(key)), f"must be {name}, and is {data[key]!r}"
    for key in needed:
        if key not in data:
            yield where, f"{key} is missing"


def _wrong_entry(entry: Any, where: tuple[str, ...], ignored: set[str]) -> Iterator[Problem]:
    text = dict.fromkeys(("before", "after", "confirm"), str)
    kinds = {"hear": list, "parts": dict, **text, "stop": bool, "asleep": bool, **dict.fromkeys(NAMES, dict)}
    found = list(_wrong(entry, kinds, ["hear"], where))
    yield from found
    if found:
        return
    acts = [kind for kind in NAMES if kind in entry]
    if len(acts) != 1:
        yield where, f"must have one of {', '.join(NAMES)}"
        return
    (kind,) = acts
    what, fields = NAMES[kind]
    found = list(_wrong(entry[kind], {what: str, "type": str, fields: dict, **({"seconds": (int, float)} if kind == "publish" else {})},
                        [what, "type"], (*where, kind)))  # fmt: skip
    parts = entry.get("parts", {})
    for part, words in parts.items():
        here = (*where, "parts", str(part))
        if not isinstance(words, dict) or not words or not re.fullmatch(r"[a-z]\w*", str(part)):
            found.append((here, "must be a mapping from words to what they mean, under a name"))
        elif odd := [word for word in words if isinstance(word, bool) or not words_of(str(word))]:
            found.append((here, f"{odd[0]!r} is nothing that can be said; put it into quotes"))
    if entry.get("stop"):  # nothing may keep it waiting
        found += [
            ((*where, key), "cannot be with stop: true, which never waits")
            for key in ("before", "confirm", "asleep")
            if key in entry
        ]
    for pattern in entry["hear"]:
        if not isinstance(pattern, str) or not words_of(pattern):
            found.append(((*where, "hear"), f"{pattern!r} is nothing that can be said; put it into quotes"))
        elif lost := [word for word in words_of(PART.sub(" ", pattern)) if word in ignored]:
            found.append(
                (
                    (*where, "hear"),
                    f"{pattern!r} cannot be heard: {', '.join(lost)} is among the words to ignore",
                )
            )
    yield from found
    if found:
        return
    for pattern in entry["hear"]:
        if missing := set(parts) - set(PART.findall(pattern)):
            yield (*where, "hear"), f"{pattern!r} has no {', '.join(map(_braced, sorted(missing)))}"
    written = {"hear": entry["hear"], **{key: entry[key] for key in (*text, kind) if key in entry}}
    for key, value in written.items():
        if unknown := set(PART.findall(str(value))) - set(parts):
            yield (*where, key), f"there is no part {', '.join(map(_braced, sorted(unknown)))} in parts"
