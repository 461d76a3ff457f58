"""A run -> one HTML page without scripts: figures, charts, the lineage tree, a map of the texts, samples.

Charts are HTML tables, plots are inline SVG, and jinja2 escapes every text. Large runs are sampled, so that the page
stays below about 2 MB; each section says what it leaves out.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from itertools import islice
from typing import Any

import numpy as np

from datacreate import metrics as metric_tables
from datacreate.filters.near import NearIndex
from datacreate.formats.example import Example, Json, field_text, value_at
from datacreate.formats.task_format import TaskFormat
from datacreate.formats.text_normalization import words
from datacreate.formats.validate import shorten
from datacreate.metrics.shortcuts import question_and_passage
from datacreate.reporting.charts import COLORS, Bar, Chart, Dot, Plot, page_template
from datacreate.runs.directory import RunDirectory
from datacreate.runs.log import Commit
from datacreate.runs.summary import summary_fields

MAX_SAMPLES, MAX_NODES, MAX_POINTS, MAX_COMPARED, MAX_PAIRS, MAX_BARS = 60, 2_000, 1_000, 20_000, 50, 40
"""At most this many samples, examples in the tree, points on the map, rows compared with each other, pairs of
near-duplicates, and bars of a chart."""

MAX_WORDS = 200  # longer texts share a bar of the lengths

USUAL_NEAR, BELOW_NEAR = 0.7, 0.2
"""Threshold of near-duplicates if the filter is off; pairs are shown from this much below the threshold."""

_CHARTS = ("labels", "attributes", "depth", "rejected")  # figures of the summary that the page has as charts
_SIZE = 720.0  # width and height of a plot
_LONGEST = 160  # characters of a text in a plot
_BLACK = COLORS  # the color of formatting examples


Rows = Sequence[Mapping[str, Json]]
Pair = tuple[int, int, float]  # two rows, the later one first, and their similarity


def run_page(run: RunDirectory, summary: Mapping[str, Any], metrics: metric_tables.Metrics) -> str:
    """The page of a run; `summary` as in summary.json. Raises RunError or LogDamaged if the run cannot be read."""
    spec, format, total = (config := run.read_config()).spec, config.format, summary["accepted"]
    view = RowView(format)
    pairs, near = near_pairs(map(format.input_texts, run.examples()), spec.filters.near)
    shown = {index * total // MAX_SAMPLES for index in range(MAX_SAMPLES)}
    mapped = {row for later, earlier, _ in pairs for row in (later, earlier)}
    step = max(1, math.ceil(total / max(1, MAX_POINTS - len(mapped))))
    evenly = range(0, total, step)
    mapped |= set(evenly)
    needed = shown | mapped
    rows = {at: values for at, values in enumerate(run.examples()) if at in needed}
    rejected = defaultdict[str, list[tuple[str, str]]](list)
    for commit in run.commits():
        for reject in commit.rejects:
            if len(rejected[reject.reason.value]) < 3:
                rejected[reject.reason.value].append((shorten(reject.text, 300), reject.detail or ""))
    return page_template("run.html.j2").render(
        version=metadata.version("datacreate"),
        run=str(run.path),
        summary=summary,
        fields={name: text for name, text in summary_fields(summary).items() if name not in _CHARTS},
        warnings=[*filter(None, [summary["depth_warning"]]), *metric_tables.warnings(metrics)],
        examples=[_fields(values) for values in spec.examples[:MAX_BARS]],
        samples=[(at + 1, _fields(rows[at])) for at in sorted(shown & rows.keys())],
        shares=share_charts(summary, view),
        rejects=_shares("Reject reasons", summary["rejected"], view) if summary["rejected"] else None,
        rejected=rejected,
        tree=lineage(run.commits(), spec.examples, view, total),
        map=text_map({at: rows[at] for at in sorted(mapped & rows.keys())}, pairs, view, total),
        near=near,
        pairs=[
            (f"{similarity:.0%}", [(at + 1, view.text(rows[at], 400)) for at in (earlier, later)])
            for later, earlier, similarity in pairs
        ],
        lengths=length_chart([rows[at] for at in evenly], view) if total else None,
        shortcuts=shortcut_chart(metrics),
        no_shortcuts=metrics["no_shortcuts"],
        diversity=metric_tables.diversity_table(metrics),
        basis=metric_tables.basis(metrics),
    )


class RowView:
    """How rows of a format are shown in charts and plots: their text, and the color of their label."""

    def __init__(self, format: TaskFormat) -> None:
        self._format, self.inputs = format, format.input_texts
        labels = [str(label) for label in format.labels or ()]
        self._numbers = {label: min(at, COLORS - 1) for at, label in enumerate(labels)}
        self.legend = labels[:COLORS] if len(labels) <= COLORS else [*labels[: COLORS - 1], "other labels"]

    def color(self, values: Mapping[str, Json]) -> int:
        """A color for each of the first fixed labels; always 0 in other formats."""
        return self.label_color(str(value_at(values, self._format.roles.answer)))

    def label_color(self, label: str) -> int:
        return self._numbers.get(label, 0)

    def text(self, values: Mapping[str, Json], longest: int = _LONGEST) -> str:
        """The inputs and the answer, shortened."""
        answer = value_at(values, self._format.roles.answer)
        end = "" if answer is None else f" → {shorten(field_text(answer), longest // 2)}"
        return shorten("\n".join(self.inputs(values)), longest) + end

    def words(self, values: Mapping[str, Json]) -> int:
        """The length of the question, in words."""
        return len(words(question_and_passage(self._format, values)[0]))


def share_charts(summary: Mapping[str, Any], view: RowView) -> list[Chart]:
    """Shares of labels, of each attribute's values, of generators, and of depths."""
    groups: dict[str, Mapping[str, int]] = {"Labels": summary["labels"]}
    groups |= {f"Attribute {name}": counts for name, counts in summary["attributes"].items()}
    groups["Models"] = summary["generators"]
    groups["Depth in the tree (1: a child of the formatting example)"] = summary["depths"]
    return [_shares(name, counts, view) for name, counts in groups.items() if counts]


def _shares(title: str, counts: Mapping[str, int], view: RowView) -> Chart:
    total, most = max(1, sum(counts.values())), max(1, *counts.values())
    bars = [
        Bar(name, f"{count:,} ({count / total:.1%})", [(view.label_color(name), 100 * count / most)])
        for name, count in islice(counts.items(), MAX_BARS)
    ]
    left_out = len(counts) - len(bars)
    return Chart(title, bars, f"{left_out:,} more are not shown." if left_out else "")


def length_chart(rows: Rows, view: RowView) -> Chart:
    """How many rows have a text of which length, by label, in about 15 bars."""
    lengths = [(min(MAX_WORDS, view.words(row)), view.color(row)) for row in rows]
    first, last = min(lengths)[0], max(lengths)[0]
    width = math.ceil((last - first + 1) / 15)
    parts = Counter(((length - first) // width, color) for length, color in lengths)
    totals = Counter((length - first) // width for length, _ in lengths)
    bars = []
    for at in range(max(totals) + 1):
        low, high = first + at * width, first + (at + 1) * width - 1
        percents = [
            (color, 100 * parts[at, color] / max(totals.values()))
            for color in range(COLORS)
            if parts[at, color]
        ]
        bars.append(Bar(str(low) if low == high else f"{low} to {high}", f"{totals[at]:,}", percents))
    title = f"Words per text (longer texts count as {MAX_WORDS})"
    return Chart(title, bars, f"{len(rows):,} rows.", view.legend)


def shortcut_chart(metrics: metric_tables.Metrics) -> Chart:
    """What each shortcut alone gets right, with marks at chance and at human rows."""
    human = {row["name"]: row["score"] for row in (metrics["human"] or {}).get("shortcuts", ())}
    bars = []
    for row in metrics["shortcuts"]:
        value, marks = f"{row['score']:.0%} (chance {row['chance']:.0%}", [100 * row["chance"]]
        if (score := human.get(row["name"])) is not None:
            value, marks = f"{value}, human rows {score:.0%}", [*marks, 100 * score]
        bars.append(Bar(row["name"], f"{value})", ((0, 100 * row["score"]),), marks))
    note = "The share of rows that a model gets right without the task. Marks: chance" + (
        f" and {metric_tables.human_name(metrics)}." if human else "."
    )
    return Chart("Shortcuts", bars, note)


def lineage(commits: Iterable[Commit], examples: Rows, view: RowView, total: int) -> Plot:
    """The first rows around the formatting example, or around a center with several: the distance is the depth.

    Rows that passed the filters but were not accepted are hollow.
    """
    roots = {Example(values).id: values for values in examples}
    nodes: dict[str, Mapping[str, Json]] = dict(roots) if len(roots) > 1 else {}
    parents = dict.fromkeys(nodes, "")  # before their children
    accepted: set[str] = set()
    for commit in commits:
        for values in (*commit.passed, *commit.accepted):
            if (node := Example(values).id) not in nodes and len(nodes) < MAX_NODES:
                nodes[node], parents[node] = values, commit.parent if commit.parent in nodes else ""
        accepted |= {Example(values).id for values in commit.accepted} & nodes.keys()
    children = defaultdict[str, list[str]](list)
    depths: dict[str, int] = {}
    for node, parent in parents.items():
        children[parent].append(node)
        depths[node] = depths.get(parent, 0) + 1
    places = _radial(children, depths)
    dots = [Dot(*places[""], _BLACK, view.text(examples[0]), 7.0)] if len(roots) == 1 else []
    filled = accepted | roots.keys()
    for node, row in nodes.items():
        color = _BLACK if node in roots else view.color(row)
        text = f"{len(children.get(node, ()))} children: {view.text(row)}"
        dots.append(Dot(*places[node], color, text, 3.0, node not in filled))
    lines = [(*places[parent], *places[node], "link") for node, parent in parents.items()]
    part = f"The first {len(accepted):,} of {total:,}" if len(accepted) < total else f"All {total:,}"
    note = (
        f"{part} rows; each line leads from an example to a row that was written for it. Black: formatting examples. "
        "Hollow: not accepted."
    )
    return Plot("Tree of examples", (_SIZE, _SIZE), dots, lines, view.legend, note=note)


def _radial(
    children: Mapping[str, Sequence[str]], depths: Mapping[str, int]
) -> dict[str, tuple[float, float]]:
    """A place for each node and for the center "": leaves evenly on the circle, parents in the middle of theirs."""
    order, stack = list[str](), [""]
    while stack:
        order.append(node := stack.pop())
        stack += reversed(children.get(node, ()))
    leaves = [node for node in order if not children.get(node)]
    angles = {node: 2 * math.pi * at / len(leaves) for at, node in enumerate(leaves)}
    for node in reversed(order):
        if of := children.get(node):
            angles[node] = (angles[of[0]] + angles[of[-1]]) / 2
    center, deepest = _SIZE / 2, max(depths.values(), default=1)
    radii = {node: (center - 8) * depths.get(node, 0) / deepest for node in order}
    return {
        node: (center + radii[node] * math.cos(angles[node]), center + radii[node] * math.sin(angles[node]))
        for node in order
    }


def near_pairs(rows: Iterable[Sequence[str]], threshold: float | None) -> tuple[list[Pair], str]:
    """Each row (its inputs) with the most similar earlier one, if it is at most `BELOW_NEAR` below the threshold; and a
    line about them."""
    lowest = max(0.05, (threshold or USUAL_NEAR) - BELOW_NEAR)
    index, pairs, compared = NearIndex(lowest), [], 0
    for compared, inputs in enumerate(islice(rows, MAX_COMPARED), 1):
        if found := index.match(inputs):
            pairs.append((compared - 1, *found))
        index.add(inputs)
    pairs.sort(key=lambda pair: (-pair[2], pair[0]))
    setting = f"--near {threshold:g}" if threshold else f"--near is off; try {USUAL_NEAR:g}"
    note = (
        f"{len(pairs):,} of the first {compared:,} rows share at least {lowest:.0%} of their word shingles with an "
        f"earlier row ({setting}). {f'The {MAX_PAIRS} most similar are shown.' if len(pairs) > MAX_PAIRS else ''}"
    )
    return pairs[:MAX_PAIRS], note


def text_map(
    rows: Mapping[int, Mapping[str, Json]], pairs: Sequence[Pair], view: RowView, total: int
) -> Plot | None:
    """The texts in two dimensions, similar ones close to each other (t-SNE of TF-IDF); None if there are too few.

    Lines join the pairs of near-duplicates.
    """
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    if len(rows) < 10:
        return None
    texts = ["\n".join(view.inputs(values)) for values in rows.values()]
    try:
        with threadpool_limits(1):  # the same map on every machine
            features = TfidfVectorizer(analyzer=words, sublinear_tf=True).fit_transform(texts)
            dimensions = min(50, features.shape[1] - 1, len(rows) - 1)
            reduced = TruncatedSVD(dimensions, random_state=0).fit_transform(features)
            layout = TSNE(
                2, perplexity=min(30, (len(rows) - 1) / 3), max_iter=500, init="pca", random_state=0
            )
            places = layout.fit_transform(reduced)
    except ValueError:  # fewer than three words
        return None
    low, high = places.min(axis=0), places.max(axis=0)
    scaled = (10 + (_SIZE - 20) * (places - low) / np.maximum(high - low, 1e-9)).tolist()
    place = {at: (x, y) for at, (x, y) in zip(rows, scaled, strict=True)}
    dots = [
        Dot(*place[at], view.color(values), f"row {at + 1}: {view.text(values)}")
        for at, values in rows.items()
    ]
    lines = [(*place[later], *place[earlier], "near") for later, earlier, _ in pairs]
    note = (
        f"{len(rows):,} of {total:,} rows; similar texts are close to each other (t-SNE of TF-IDF). Lines join the "
        "pairs below."
    )
    return Plot("Map of the texts", (_SIZE, _SIZE), dots, lines, view.legend, note=note)


def _fields(values: Mapping[str, Json]) -> list[tuple[str, str]]:
    return [(name, shorten(field_text(value), 2_000)) for name, value in values.items() if value is not None]
