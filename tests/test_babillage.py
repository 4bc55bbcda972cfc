"""`moshivis eval --babillage`: a benchmark of our own in its files, asked of the miniature."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from babillage import small

from moshivis_ros.cli import main
from moshivis_ros.errors import MissingDependencyError
from moshivis_ros.evaluation import asker, babillage, babillage_test
from moshivis_ros.training import parquet


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    try:
        return small(tmp_path_factory.mktemp("babillage"), pictures=4)
    except MissingDependencyError as error:
        pytest.skip(str(error))


def rows(text: str) -> dict[tuple[str, str, str], float]:
    """Scores by task, prompts and measure, of the first wording."""
    found: dict[tuple[str, str, str], float] = {}
    for line in text.splitlines():
        if cells := re.fullmatch(
            r"\| ([^|]+) \| (written|spoken) \| ([^|]+) \| \d+ \| ([^|]+) \| ([\d.]+) \|", line
        ):
            found.setdefault((cells[1], cells[2], cells[4]), float(cells[5]))
    return found


def test_the_miniature_is_asked_and_goes_on_where_it_was_stopped(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(asker, "ANSWER", 40)
    monkeypatch.setattr(babillage_test, "WORDINGS", dict.fromkeys(babillage.SPLITS, ("{question}",)))
    ask = ["eval", "builtin", "--babillage", str(folder), "--device", "cpu"]
    assert main(ask) == 0
    told = capsys.readouterr().out
    scores = rows(told)
    for form in ("written", "spoken"):
        assert scores["COCO captions", form, "CIDEr"] > 100
        assert scores["OCR-VQA", form, "exact match"] >= 75
        assert scores["VQAv2", form, "accuracy"] == 0  # it answers in sentences
        assert scores["VQAv2", form, "in the sentence"] >= 75
    assert (
        "OCR-VQA: a person's answer: exact match 100.0" in told
        and "VQAv2: a person's answer: accuracy 100.0" in told
    )
    (other,) = re.findall(r"VQAv2: that of the next picture: accuracy ([\d.]+)", told)
    assert float(other) < 60
    inside, outside = map(
        float,
        re.findall(r"gate in answers about the picture ([\d.]+), in those that are not ([\d.]+)", told)[1],
    )
    assert inside > outside > 0
    right = [int(n) for n in re.findall(r"unrelated questions [a-z ]+: (\d+) % right", told)]
    assert len(right) == 6 and min(right) >= 50
    voices = re.findall(
        r"voice with(?:out)? a picture: pitch (\d+) Hz, range [\d.]+ semitones, ([\d.]+) words", told
    )
    assert len(voices) == 2 and all(150 < int(pitch) < 260 and 1 < float(rate) < 6 for pitch, rate in voices)

    (kept,) = (tmp_path / "build" / "babillage").glob("*.jsonl")
    lines = kept.read_text().splitlines()
    assert len(lines) == 24
    kept.write_text("\n".join(lines[:20]) + "\n" + lines[20][:30])  # killed in the middle of a line
    asked: list[str] = []
    monkeypatch.setattr(babillage_test, "context_switch", lambda *_: [])
    ask_really = asker.Asker.ask

    def watch(self: Any, talks: Any, form: str, library: Any) -> Any:
        asked.extend(turn.exchange.question for talk in talks for turn in talk)
        return ask_really(self, talks, form, library)

    monkeypatch.setattr(asker.Asker, "ask", watch)
    assert main([*ask, "--write", "scores.md"]) == 0
    assert len(asked) == 4 and rows(Path("scores.md").read_text()).keys() == scores.keys()
    assert (
        len(
            {
                (line["task"], line["form"], line["id"])
                for line in map(json.loads, kept.read_text().splitlines())
            }
        )
        == 24
    )


def refused(capsys: Any, folder: Path) -> str:
    babillage._pictures.cache_clear()
    parquet.table.cache_clear()
    assert main(["eval", "builtin", "--babillage", str(folder), "--device", "cpu"]) == 2
    return str(capsys.readouterr().err)


def test_what_is_missing_is_named_before_a_model_is_loaded(
    folder: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(babillage_test, "load_model", lambda *_: pytest.fail("loaded"))
    assert "not Babillage" in refused(capsys, tmp_path)
    copy = tmp_path / "copy"
    (copy / "vqav2").mkdir(parents=True)
    assert "there is no validation-*.parquet" in refused(capsys, copy)
    name = "validation-00000-of-00001.parquet"
    (copy / "vqav2" / name).write_bytes((folder / "vqav2" / name).read_bytes())
    assert "Babillage has no pictures" in refused(capsys, copy)
    (copy / "images" / "coco").mkdir(parents=True)
    assert "there is no *_annotations.json" in refused(capsys, copy)
    (copy / "vqav2" / "v2_annotations.json").write_text('{"annotations": [{"question_id": 1}]}')
    assert "damaged, or not as vqav2 has it" in refused(capsys, copy)
    (copy / "vqav2" / "v2_annotations.json").write_text('{"annotations": []}')
    assert "of no question of vqav2 there is both a picture" in refused(capsys, copy)
    (copy / "vqav2" / name).write_bytes(b"PAR1")
    assert "not a parquet file, or damaged" in refused(capsys, copy)
