"""Puts what real runs recorded into the docs: the table of the fault matrix, and the drawings of the soak."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from campaign.resources import judged
from campaign.rows import Row, load
from rigs.needs import ROOT

RECORD, PAGE = ROOT / "docs" / "campaign.jsonl", ROOT / "docs" / "fault-campaign.md"
SOAK, SOAK_PAGE, IMAGES = ROOT / "docs" / "soak.json", ROOT / "docs" / "soak.md", ROOT / "docs" / "images"
BEGIN, END = "<!-- recorded: begin -->", "<!-- recorded: end -->"
DRAWN = ("descriptors", "threads", "memory", "children")
OF_MACHINE = ("iptables", "containers", "cgroups", "leases", "files", "keys", "events")
COLOURS = ("#1f5fbf", "#b3541e", "#2c7a3f", "#7a3fa0", "#8a6d00", "#a02040")


def records() -> list[dict[str, Any]]:
    return [json.loads(line) for line in RECORD.read_text().splitlines()] if RECORD.exists() else []


def table(lines: Sequence[Mapping[str, Any]], rows: Mapping[str, Row]) -> str:
    """Of all runs recorded of each row: how many, violations, and the slowest recovery."""
    shown = [
        "| row | fault | store | runs | violations | slowest recovery | |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, one in rows.items():
        mine = [line for line in lines if line["row"] == name]
        slowest = f"{max(line['recovery'] for line in mine):.1f} s" if mine else ""
        violations = str(sum(line["violations"] for line in mine)) if mine else ""
        shown.append(f"| {name} | {one.fault} | {one.store} | {len(mine)} | {violations} | {slowest} | {one.instead} |")
    looks = sum(line["looks"] for line in lines)
    dates = sorted({line["date"] for line in lines})
    when = f"{dates[0]} to {dates[-1]}" if len(dates) > 1 else "".join(dates)
    total = f"{len(lines)} runs ({when}), {looks} looks, {sum(line['violations'] for line in lines)} violations."
    return "\n".join([*shown, "", total])


def between(page: str, text: str) -> str:
    """The page with ``text`` in the place that is kept for it."""
    head, _, rest = page.partition(BEGIN)
    tail = rest.partition(END)[2]
    return f"{head}{BEGIN}\n\n{text}\n\n{END}{tail}"


def soak_text(record: Mapping[str, Any]) -> str:
    """What the page says of the recorded soak."""
    faults = ", ".join(f"{count} x {name}" for name, count in sorted(record["faults"].items()))
    changes = ", ".join(f"{count} x {name}" for name, count in sorted(record["changes"].items()))
    shown = [
        f"{record['date']}, commit {record['commit']}, {record['backend']}, seed {record['seed']}: "
        f"{record['seconds'] / 60:.0f} minutes, some {record['tasks']} tasks, of which "
        f"{record['containers']} are containers.",
        "",
        f"- Faults: {faults}.",
        f"- Changes: {changes}.",
        f"- {record['looks']} looks; {len(record['violations'])} violations"
        + (": " + _by_rule(record["violations"]) if record["violations"] else "")
        + f". In the end everything was as declared within {record['recovery']:g} s." * (not record["unsettled"])
        + " In the end not everything was as declared." * bool(record["unsettled"]),
        "",
        "| what | whose | second fifth | last fifth | most | flat |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, points in sorted(record["series"].items(), key=lambda item: item[0].split()[::-1]):
        whose, what = name.split()
        fifth = max(1, len(points) // 5)
        early, late = _median(points[fifth : 2 * fifth]), _median(points[-fifth:])
        flat = "yes" if judged(record["series"])[name] else "**no**"
        shown.append(f"| {what} | {whose} | {early:g} | {late:g} | {max(points):g} | {flat} |")
    shown += ["", *(f"![{what}](images/soak-{what}.svg)" for what in (*DRAWN, *_of_machine(record)))]
    return "\n".join(shown)


def _of_machine(record: Mapping[str, Any]) -> list[str]:
    return [what for what in OF_MACHINE if f"machine {what}" in record["series"]]


def _by_rule(violations: Sequence[str]) -> str:
    counts = Counter(each.split()[0] for each in violations)
    return ", ".join(f"{count} x {rule}" for rule, count in sorted(counts.items()))


def _median(points: Sequence[float]) -> float:
    ordered = sorted(points)
    return ordered[len(ordered) // 2] if ordered else 0.0


def drawings(record: Mapping[str, Any]) -> dict[str, str]:
    """SVG by file name."""
    series: Mapping[str, Sequence[float]] = record["series"]
    found = {}
    for what in DRAWN:
        lines = {name.split()[0]: points for name, points in series.items() if name.split()[1] == what}
        lines.pop("machine", None)
        found[f"soak-{what}.svg"] = drawing(f"{what} of each process" + " (MB)" * (what == "memory"), lines, record)
    for what in _of_machine(record):
        found[f"soak-{what}.svg"] = drawing(f"{what}", {"": series[f"machine {what}"]}, record)
    return found


def drawing(title: str, lines: Mapping[str, Sequence[float]], record: Mapping[str, Any]) -> str:
    """Curves over the minutes of a run."""
    width, height, left, top = 760, 220, 50, 30
    most = max([1.0, *(max(points) for points in lines.values() if points)]) * 1.1
    longest = max(2, *(len(points) for points in lines.values()))
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'role="img" font-family="system-ui, sans-serif" font-size="12" fill="#1d2330">',
        f"<title>{escape(title)}</title>",
        f'<rect width="{width}" height="{height}" rx="8" fill="#ffffff"/>',
        f'<text x="{left}" y="18" font-weight="600">{escape(title)}</text>',
    ]
    for share in (0, 0.5, 1):
        y = round(top + (height - top - 30) * (1 - share), 1)
        parts.append(f'<line x1="{left}" x2="{width - 10}" y1="{y}" y2="{y}" stroke="#d5dae3"/>')
        parts.append(f'<text x="{left - 6}" y="{y + 4}" text-anchor="end">{most * share:.0f}</text>')
    minutes = longest * record["interval"] / 60
    for share in (0, 0.25, 0.5, 0.75, 1):
        x = round(left + (width - left - 10) * share, 1)
        parts.append(f'<text x="{x}" y="{height - 10}" text-anchor="middle">{minutes * share:.0f} min</text>')
    for number, (name, points) in enumerate(sorted(lines.items())):
        colour = COLOURS[number % len(COLOURS)]
        at = " ".join(
            f"{left + (width - left - 10) * index / (longest - 1):.1f},"
            f"{top + (height - top - 30) * (1 - max(0.0, point) / most):.1f}"
            for index, point in enumerate(points)
        )
        parts.append(f'<polyline points="{at}" fill="none" stroke="{colour}" stroke-width="1.3"/>')
        if name:
            x = width - 10 - 95 * (len(lines) - number - 1)
            parts.append(f'<text x="{x}" y="18" text-anchor="end" fill="{colour}">{escape(name)}</text>')
    return "\n".join([*parts, "</svg>", ""])


def wanted() -> dict[Path, str]:
    """Every file as the records have it."""
    found = {PAGE: between(PAGE.read_text(), table(records(), load()))}
    if SOAK.exists():
        record = json.loads(SOAK.read_text())
        found[SOAK_PAGE] = between(SOAK_PAGE.read_text(), soak_text(record))
        found |= {IMAGES / name: text for name, text in drawings(record).items()}
    return found


def write() -> None:
    for path, text in wanted().items():
        path.write_text(text)
