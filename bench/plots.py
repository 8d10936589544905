"""Figures as SVG: bars of two sides, and lines over a number. Written by hand; readable on light and dark pages."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from xml.sax.saxutils import escape

OURS, THEIRS = "#2f81f7", "#9a6700"
WIDTH, BAR, GAP, LEFT = 720, 16, 14, 330
_STYLE = "font-family:sans-serif;font-size:13px;fill:#57606a"


def bars(path: Path, title: str, rows: Sequence[tuple[str, float, float]]) -> None:
    """One pair of bars per row (name, ours, incumbent); each pair has a scale of its own."""
    parts = [_text(10, 22, title, weight="bold"), *_legend(40)]
    top = 62
    for name, ours, theirs in rows:
        most = max(ours, theirs) or 1.0
        parts.append(_text(10, top + BAR, name))
        for place, (value, colour) in enumerate(((ours, OURS), (theirs, THEIRS))):
            y, width = top + place * BAR, (WIDTH - LEFT - 80) * value / most
            parts.append(f'<rect x="{LEFT}" y="{y}" width="{width:.1f}" height="{BAR - 2}" fill="{colour}"/>')
            parts.append(_text(LEFT + width + 6, y + BAR - 4, f"{value:.3g}"))
        top += 2 * BAR + GAP
    _write(path, top, parts)


def lines(path: Path, title: str, unit: str, series: Mapping[str, Sequence[tuple[float, float]]]) -> None:
    """Values over a number, which is on a logarithmic axis. Two series at most."""
    points = [point for line in series.values() for point in line]
    most = max(value for _, value in points) * 1.15 or 1.0
    low, high = math.log10(min(x for x, _ in points)), math.log10(max(x for x, _ in points))
    height, left, right = 300, 70, 30

    def place(x: float, y: float) -> tuple[float, float]:
        across = (math.log10(x) - low) / ((high - low) or 1.0)
        return left + across * (WIDTH - left - right), 60 + (height - 100) * (1 - y / most)

    parts = [_text(10, 22, f"{title} ({unit})", weight="bold"), *_legend(40, series)]
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        y = place(10**low, most * share)[1]
        parts.append(f'<line x1="{left}" x2="{WIDTH - right}" y1="{y:.1f}" y2="{y:.1f}" stroke="#d0d7de"/>')
        parts.append(_text(8, y + 4, f"{most * share:.3g}"))
    for x in sorted({x for x, _ in points}):
        parts.append(_text(place(x, 0)[0] - 18, height - 18, f"{x:,.0f}"))
    for (_, line), colour in zip(series.items(), (OURS, THEIRS), strict=False):
        spots = [place(x, y) for x, y in sorted(line)]
        path_text = " ".join(f"{x:.1f},{y:.1f}" for x, y in spots)
        parts.append(f'<polyline points="{path_text}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colour}"/>' for x, y in spots]
    _write(path, height, parts)


def _legend(y: float, names: Sequence[str] | Mapping[str, object] = ("snapbridge", "incumbent")) -> list[str]:
    parts = []
    for number, (name, colour) in enumerate(zip(names, (OURS, THEIRS), strict=False)):
        parts.append(f'<rect x="{10 + number * 130}" y="{y - 10}" width="12" height="12" fill="{colour}"/>')
        parts.append(_text(28 + number * 130, y, name))
    return parts


def _text(x: float, y: float, text: str, *, weight: str = "normal") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" style="{_STYLE};font-weight:{weight}">{escape(text)}</text>'


def _write(path: Path, height: float, parts: Sequence[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height:.0f}">'
    path.write_text("\n".join([head, *parts, "</svg>\n"]))
