"""Every input of docs/inputs.md is read, converted or refused as the page says."""

from __future__ import annotations

from pathlib import Path

import describe
import pytest
from case import Case, sections

CASES = [pytest.param(case, id=case.what) for _, cases in sections() for case in cases]


@pytest.mark.parametrize("case", CASES)
def test_input(case: Case, tmp_path: Path) -> None:
    case.check(case.make(tmp_path))


def test_the_page_is_up_to_date() -> None:
    assert describe.PAGE.read_text(encoding="utf-8") == describe.text(), "run python tests/inputs/describe.py"
