"""The figures of the study as tables of a page, and as a plot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from moshivis_ros.errors import ConfigError, MissingDependencyError
from moshivis_ros.study.policies import LATENCIES, POLICIES, TALKS


def table(study: dict[str, Any]) -> str:
    """The figures as Markdown: a table of policies and one of detectors."""
    clips = study["clips"]
    lines = [
        f"{clips['held_out']} held-out clips of {clips['seconds']:g} s, {TALKS} conversations each, seed "
        f"{study['seed']}; speech and gate: {study['speech']}. Made on {study['date']} by `{study['command']}`.",
        "",
        "| encode | policy | gate AUC | right answers | stale p50 / p95, ms | swaps inside a phrase, /min"
        " | encodes, /min | encodes per change | GPU ms/min |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in sorted(study["policies"], key=lambda row: row["latency"]):
        auc = f"{row['auc']:.2g}" if POLICIES[row["policy"]].policy == "gating" else ""
        lines.append(
            f"| {row['latency']:g} s | {row['policy']} | {auc} | {100 * row['right']:.1f} % "
            f"| {row['staleness_p50_ms']:.0f} / {row['staleness_p95_ms']:.0f} "
            f"| {row['swaps_inside_per_minute']:.2f} | {row['encodes_per_minute']:.1f} "
            f"| {row['encodes_per_change']:.2f} | {row['gpu_ms_per_minute']:.0f} |"
        )
    if not study["detectors"]:
        return "\n".join(lines)
    lines += [
        "",
        "| detector | threshold | F1 | recall | precision | false alarms in 10 min | the same, steady light |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in sorted(study["detectors"], key=lambda row: -row["f1"]):
        lines.append(
            f"| {row['detector']} | {row['threshold']:g} | {row['f1']:.3f} | {row['recall']:.3f} "
            f"| {row['precision']:.3f} | {row['false_per_10_minutes']:.1f} "
            f"| {row['false_per_10_minutes_in_steady_light']:.1f} |"
        )
    lines += ["", "| nuisance alone, at its worst | minutes | false alarms in 10 min |", "|---|---|---|"]
    for row in study["nuisances"]:
        lines.append(f"| {row['nuisance']} | {row['minutes']:.0f} | {row['false_per_10_minutes']:.1f} |")
    return "\n".join(lines)


def with_table(page: str, text: str, mark: str) -> str:
    """The page with everything between the two marks of this name replaced."""
    marks = f"<!-- {mark} -->", f"<!-- end of {mark} -->"
    before, begin, rest = page.partition(marks[0])
    _, end, after = rest.partition(marks[1])
    if not (begin and end):
        raise ConfigError(f"refresh_policy.md must hold the marks {marks[0]} and {marks[1]}")
    return f"{before}{begin}\n{text}\n{end}{after}"


def plot(study: dict[str, Any], path: Path) -> None:
    """Right answers against encodes and against swaps inside a phrase."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependencyError("the plot needs matplotlib: pip install matplotlib") from error
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    encodes, swaps = figure.subplots(1, 2, sharey=True)
    markers = dict(zip(LATENCIES, "osD"))
    for row in study["policies"]:
        colour = f"C{list(POLICIES).index(row['policy'])}"
        style = {
            "color": colour,
            "marker": markers[row["latency"]],
            "alpha": 0.35 + 0.65 * (row["auc"] > 0.9),
        }
        encodes.plot(row["encodes_per_minute"] + 0.5, 100 * row["right"], **style)
        swaps.plot(row["swaps_inside_per_minute"], 100 * row["right"], **style)
    for name in POLICIES:
        encodes.plot([], [], "o", color=f"C{list(POLICIES).index(name)}", label=name)
    for latency, marker in markers.items():
        encodes.plot([], [], marker, color="grey", label=f"{latency:g} s an encode")
    encodes.set(
        xscale="log", xlabel="encodes per minute (+ 0.5)", ylabel="visual answers with the right picture, %"
    )
    swaps.set_xlabel("swaps inside a phrase about the old view, per minute (pale: AUC 0.8, 0.6)")
    encodes.legend(fontsize="small")
    for axes in (encodes, swaps):
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=110)
