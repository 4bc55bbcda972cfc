"""The part of a page that shows a stage of training: how far it is, a chart of every loss, its settings."""

from __future__ import annotations

import html
import json
from datetime import timedelta
from pathlib import Path

import numpy as np
import numpy.typing as npt
import yaml

from moshivis_ros.errors import ConfigError
from moshivis_ros.training.hear import FOLDER

LOG = "log.jsonl"
STYLE = """.charts{display:grid;grid-template-columns:repeat(auto-fill,minmax(17em,1fr));gap:1.2em 2em}
figure{margin:0}svg{width:100%;font:10px sans-serif;display:block;background:#f7f7f5;border-bottom:1px solid #999}
polyline{fill:none}.raw{stroke:#bcd}.smooth{stroke:#146;stroke-width:2}
pre{color:#555;font-size:13px}.ends{font-size:11px;display:flex;justify-content:space-between}"""
_WIDTH, _HEIGHT = 300, 110


def body(folder: Path, place: str) -> str:
    """HTML of the stage whose out folder this is; ``place``: of the folder, as seen from the page. Raises ConfigError for a
    log that says nothing.
    """
    try:
        lines: list[dict[str, float]] = []
        for text in (folder / LOG).read_text(encoding="utf-8").splitlines():
            line = json.loads(text)
            while lines and lines[-1]["step"] >= line["step"]:  # killed then: it went on from an earlier step
                lines.pop()
            lines.append(line)
        first, last = lines[0], lines[-1]
        steps, seconds = last["step"] - first["step"], last["seconds"] - first["seconds"]
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise ConfigError(
            f"{folder / LOG} is empty or not a log of training ({error!r}); a stage writes its first line after some steps"
        ) from error
    file = folder / "settings.yaml"
    settings = file.read_text(encoding="utf-8") if file.is_file() else ""
    whole = (yaml.safe_load(settings) or {}).get("steps", last["step"])
    progress = f"Step {last['step']:,} of {whole:,} after {_time(last['seconds'])}"
    if steps and seconds:
        progress += f", {steps / seconds:.1f} steps a second"
        if whole > last["step"]:
            progress += f"; {_time((whole - last['step']) * seconds / steps)} to go"
    names = dict.fromkeys(name for line in lines for name in line if name not in ("step", "seconds"))
    charts = "".join(
        _chart(name, [line for line in lines if np.isfinite(line.get(name, np.nan))]) for name in names
    )
    return (
        f"<p>{progress}.</p><p><small>Thin: as logged; thick: its moving average. The highest 3 % may leave the chart."
        f"</small></p><div class=charts>{charts}</div>{_heard(folder, place)}<h2>Settings</h2><pre>{html.escape(settings)}</pre>"
    )


def _heard(folder: Path, place: str) -> str:
    """What it said on the way, the last first."""
    rows = []
    for file in sorted((folder / FOLDER).glob("*.json"), reverse=True):
        told = json.loads(file.read_text(encoding="utf-8"))
        sound = html.escape(f"{place}/{FOLDER}/{file.stem}.wav", quote=True)
        rows.append(
            f"<p><b>Step {int(file.stem):,}</b>: {html.escape(told['text'])} <small>wanted: {html.escape(told['wanted'])}"
            f"</small></p><audio controls preload=none src='{sound}'></audio>"
        )
    return f"<h2>Heard</h2><p>Left the model, right the user.</p>{''.join(rows)}" if rows else ""


def _chart(name: str, lines: list[dict[str, float]]) -> str:
    if not lines:
        return f"<figure><b>{html.escape(name)}</b> was never a number</figure>"
    steps = np.array([line["step"] for line in lines])
    raw = np.array([line[name] for line in lines]) + 0.0  # no -0
    low, high = float(raw.min()), float(np.quantile(raw, 0.97))
    smooth = _smooth(raw)
    lowest = int(raw.argmin())
    curves = "".join(
        f"<polyline class={kind} points='{_points(steps, line, low, high)}'/>"
        for kind, line in (("raw", raw), ("smooth", smooth))
    )
    return (
        f"<figure><b>{html.escape(name)}</b> {raw[-1]:.4g} <small>average {smooth[-1]:.4g}</small>"
        f"<svg viewBox='0 0 {_WIDTH} {_HEIGHT}'>{curves}"
        f"<text x={_WIDTH - 3} y=11 text-anchor=end>{high:.3g}</text><text x=3 y={_HEIGHT - 4}>{low:.3g}</text></svg>"
        f"<small class=ends><span>{steps[0]:,}</span><span>first {raw[0]:.4g}, lowest {raw[lowest]:.4g} at "
        f"{steps[lowest]:,}</span><span>{steps[-1]:,}</span></small></figure>"
    )


def _smooth(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Mean of a window of a tenth of all values; at the ends of those that are there."""
    window = np.ones(1 + 2 * (len(values) // 20))
    count = np.convolve(np.ones_like(values), window, "same")
    return np.convolve(values, window, "same") / count


def _points(steps: npt.NDArray[np.int64], values: npt.NDArray[np.float64], low: float, high: float) -> str:
    x = _WIDTH * (steps - steps[0]) / max(1, steps[-1] - steps[0])
    y = _HEIGHT * (0.95 - 0.85 * (values - low) / max(1e-9, high - low))
    return " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y))


def _time(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
