"""The pages that people read: none is stale, and no link leads nowhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "scripts"))
import list_errors  # noqa: E402


def test_the_page_of_errors_is_up_to_date() -> None:
    assert list_errors.PAGE.read_text() == list_errors.text(), "python scripts/list_errors.py"


def test_the_front_page_is_short_and_its_links_lead_somewhere() -> None:
    page = (ROOT / "README.md").read_text()
    assert len(page.splitlines()) <= 150
    local = [link for link in re.findall(r"\]\(([^)\s]+)\)", page) if not link.startswith("http")]
    assert len(local) > 15
    for link in local:
        path, _, anchor = link.partition("#")
        assert (ROOT / path).exists(), link
        assert not anchor or anchor in anchors((ROOT / path).read_text()), link


def anchors(page: str) -> set[str]:
    """Of its headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.*)", page, re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


def test_the_site_has_no_broken_link(tmp_path: Path) -> None:
    pytest.importorskip("material", reason="pip install mkdocs-material")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    built = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    assert "audio_in" in (tmp_path / "interface" / "index.html").read_text()
