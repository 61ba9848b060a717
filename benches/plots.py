"""Draws the pictures of docs/performance.md: plots.py [RESULTS.json [FOLDER]]."""

import json
import math
import pathlib
import statistics
import sys
from html import escape

ROOT = pathlib.Path(__file__).resolve().parent.parent
WIDTH, HEIGHT = 760, 470
LEFT, RIGHT, TOP, BOTTOM = 84, 24, 74, 104
INK, GRID, PAPER = "#222", "#ddd", "#fff"
# Versand comes first, with a thick line
STYLES = [("#0b5cad", 3.5, "none"), ("#666", 1.6, "6 4"), ("#c4630a", 1.6, "none"), ("#2a7d2e", 1.6, "2 3")]


def short(value):
    """The text of a number at an axis."""
    return f"{value / 1000:g} k" if value >= 1000 else f"{value:g}"


class Axis:
    """Maps figures to coordinates of the picture."""

    def __init__(self, low, high, begin, end, log):
        self.log, self.begin, self.end = log, begin, end
        self.low, self.high = (math.log10(low), math.log10(high)) if log else (low, high)

    def at(self, value):
        value = math.log10(value) if self.log else value
        return self.begin + (value - self.low) / (self.high - self.low) * (self.end - self.begin)


def ticks(low, high):
    """All multiples of 1, 2 and 5 of a power of ten between the bounds."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [m * 10**p for p in powers for m in (1, 2, 5) if low <= m * 10**p <= high]


def bounds(values):
    """The nearest ticks below the smallest and above the largest value."""
    around = ticks(min(values) / 10, max(values) * 10)
    return max(t for t in around if t <= min(values)), min(t for t in around if t >= max(values))


def text(x, y, words, size=13, anchor="middle", more=""):
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" {more}>{escape(words)}</text>'


def line(x1, y1, x2, y2, colour, width=1.0):
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}" stroke-width="{width}"/>'


def drawn(picture, below):
    """One picture: medians as points, ranges as bars, and the lines `below` it in small print."""
    # JSON turned the numbers into strings
    series = {name: sorted((float(at), rates) for at, rates in points.items()) for name, points in picture["series"].items()}
    places = sorted({at for points in series.values() for at, _ in points})
    rates = [rate for points in series.values() for _, rates in points for rate in rates]
    (low, high), middle = bounds(rates), (TOP + HEIGHT - BOTTOM) / 2
    x_axis = Axis(places[0], places[-1], LEFT + 16, WIDTH - RIGHT - 16, picture["log_x"])
    y_axis = Axis(low, high, HEIGHT - BOTTOM, TOP, True)
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        f'font-family="sans-serif" fill="{INK}" role="img">',
        f"<title>{escape(picture['title'])}</title>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="{PAPER}"/>',
        text(LEFT, 26, picture["title"], 18, "start", 'font-weight="bold"'),
        text(LEFT, 46, picture["note"], 12, "start"),
    ]
    for value in ticks(low, high):
        y = y_axis.at(value)
        out += [line(LEFT, y, WIDTH - RIGHT, y, GRID), text(LEFT - 8, y + 4, short(value), 12, "end")]
    for place in places:
        x = x_axis.at(place)
        out += [line(x, TOP, x, HEIGHT - BOTTOM, GRID), text(x, HEIGHT - BOTTOM + 18, f"{place:,.0f}".replace(",", " "), 12)]
    out += [
        f'<rect x="{LEFT}" y="{TOP}" width="{WIDTH - LEFT - RIGHT}" height="{HEIGHT - TOP - BOTTOM}" fill="none" stroke="{INK}"/>',
        text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - BOTTOM + 38, picture["x"] + (" (logarithmic)" if picture["log_x"] else "")),
        text(22, middle, picture["y"] + " (logarithmic)", more=f'transform="rotate(-90 22 {middle:.1f})"'),
    ]
    # Versand is drawn last, on top of the others
    styled = list(zip(series.items(), STYLES))
    for (_, points), (colour, width, dashes) in reversed(styled):
        medians = [(x_axis.at(at), y_axis.at(statistics.median(rates))) for at, rates in points]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in medians)
        out.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="{width}" stroke-dasharray="{dashes}"/>')
        for (x, y), (_, rates) in zip(medians, points):
            out.append(line(x, y_axis.at(min(rates)), x, y_axis.at(max(rates)), colour, 1.4))
            out.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{width + 1.5}" fill="{colour}"/>')
    left = LEFT
    for (name, _), (colour, width, dashes) in styled:
        out.append(
            f'<line x1="{left}" y1="62" x2="{left + 30}" y2="62" stroke="{colour}" stroke-width="{width}" stroke-dasharray="{dashes}"/>'
        )
        out.append(text(left + 36, 66, name, 12, "start"))
        left += 56 + 6.8 * len(name)
    out += [text(LEFT, HEIGHT - 44 + 15 * i, words, 10, "start") for i, words in enumerate(below)]
    return "\n".join([*out, "</svg>", ""])


def draw(results, folder):
    """Draws all pictures of the results. Returns the written files."""
    folder.mkdir(parents=True, exist_ok=True)
    repeated = f"medians of {results['repetitions']} interleaved repetitions, ranges as bars; noise of the machine: {results['noise']:.1%}"
    # two lines: the machine, and the programs that ran on it
    machine, _, programs = results["machine_line"].partition(", Linux")
    below = [repeated, machine + ",", "Linux" + programs]
    written = []
    for name, picture in results["pictures"].items():
        file = folder / f"{name}.svg"
        file.write_text(drawn(picture, below))
        written.append(file)
    return written


def main():
    results = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "target/bench/results.json"
    folder = pathlib.Path(sys.argv[2]) if len(sys.argv) > 2 else ROOT / "docs/plots"
    for file in draw(json.loads(results.read_text()), folder):
        print(file)


if __name__ == "__main__":
    main()
