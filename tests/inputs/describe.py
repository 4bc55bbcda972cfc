"""Writes docs/inputs.md, the tables of what is read, converted and refused, from the cases that the tests run."""

from __future__ import annotations

from case import HERE, Case, sections

PAGE = HERE.parents[1] / "docs/inputs.md"
HEAD = """\
<!-- written by python tests/inputs/describe.py -->

# What is read, converted and refused

Every line is a test (tests/inputs/). An input is read as it is, converted, or refused with one error that names it and
says what to do: before the model is loaded wherever it can be known then, with an exit code other than 0, and without losing
what was made before. "File" stands for every way in that takes a file: the `moshivis` commands, the Python API and the nodes;
"message" for what comes over ROS.
"""


def text() -> str:
    """The page as it should be."""
    parts = [HEAD]
    for docstring, cases in sections():
        title, _, introduction = docstring.strip().partition("\n")
        parts.append(f"## {title.rstrip('.')}\n{introduction}\n".rstrip() + "\n")
        rows = "".join(_row(case) for case in cases)
        parts.append(f"| input | comes as | | what happens |\n|---|---|---|---|\n{rows}")
    return "\n".join(parts)


def _row(case: Case) -> str:
    cells = (case.what, ", ".join(case.ways), case.outcome, case.happens)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


if __name__ == "__main__":
    PAGE.write_text(text(), encoding="utf-8")
