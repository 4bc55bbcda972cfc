"""docs/gpu.md is what is counted and computed now, and it says so."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from moshivis_ros import cli

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs/gpu.md").read_text(encoding="utf-8")


def test_the_page_is_what_its_command_writes() -> None:
    written = runpy.run_path(str(ROOT / "benchmarks/gpu_page.py"))["page"](PAGE)
    assert written == PAGE, "run python benchmarks/gpu_page.py"
    assert "**Computed, not measured**" in PAGE
    cards = [line for line in PAGE.splitlines() if line.startswith(("| RTX", "| Jetson", "| H"))]
    assert len(cards) > 12 and all(line.count("|") == cards[0].count("|") for line in cards)


@pytest.mark.parametrize("command", ["doctor", "bench", "chat"])
def test_its_commands_exist_as_they_are_written(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    (line,) = [line for line in PAGE.splitlines() if line.startswith(f"    moshivis {command} ")]
    with pytest.raises(SystemExit):
        cli.main([command, "--help"])
    said = capsys.readouterr().out
    options = [word for word in line.split("#")[0].split() if word.startswith("--")]
    assert options and all(option in said for option in options)
