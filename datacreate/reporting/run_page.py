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
from typing import NamedTuple

import numpy as np

from datacreate.filters.near_index import NearIndex
from datacreate.formats.example import Example, Json, field_text, shorten, value_at
from datacreate.formats.task_format import TaskFormat
from datacreate.formats.text_normalization import words
from datacreate.metrics import NEAR_THRESHOLD, Metrics
from datacreate.metrics.shortcuts import text_and_passage
from datacreate.reporting.charts import COLORS, Bar, Chart, Dot, Plot, page_template
from datacreate.runs.directory import RunDirectory
from datacreate.runs.log import Commit
from datacreate.runs.stats import RunSummary, summary_fields

MAX_SAMPLES, MAX_NODES, MAX_POINTS, MAX_COMPARED, MAX_PAIRS, MAX_BARS = 60, 2_000, 1_000, 20_000, 50, 40
"""At most this many samples, examples in the tree, points on the map, rows compared with each other, pairs of
near-duplicates, and bars of a chart."""

MAX_WORDS = 200  # longer texts share a bar of the lengths
LENGTH_BARS = 15  # about this many bars of lengths
MAX_REJECTS = 3  # texts shown for each reject reason

BELOW_NEAR, MIN_NEAR = 0.2, 0.05
"""Pairs are shown from this much below the threshold of near-duplicates, and never below this similarity."""

_CHARTS = ("labels", "attributes", "depth", "rejected")  # figures of the summary that the page has as charts
_SIZE = 720.0  # width and height of a plot
_LONGEST, _LONGEST_PAIR, _LONGEST_REJECT, _LONGEST_FIELD = 160, 400, 300, 2_000
"""Characters of a text in a plot, of a near-duplicate, of a rejected text and of a field of a sample."""
_BLACK = COLORS  # the color of formatting examples

Rows = Sequence[Mapping[str, Json]]


class Pair(NamedTuple):
    """Two similar rows, by their index."""

    later: int
    earlier: int
    similarity: float


def make_run_page(run: RunDirectory, summary: RunSummary, metrics: Metrics) -> str:
    """The page of a run. Raises RunError or LogDamaged if the run cannot be read."""
    config, total = run.read_config(), summary["accepted"]
    spec, task_format, view = config.spec, config.format, RowView(config.format)
    pairs, near = find_near_pairs(map(task_format.input_texts, run.examples()), spec.filters.near)
    sampled = {index * total // MAX_SAMPLES for index in range(MAX_SAMPLES)}
    in_pairs = {row for pair in pairs for row in (pair.later, pair.earlier)}
    evenly = range(0, total, max(1, math.ceil(total / max(1, MAX_POINTS - len(in_pairs)))))
    mapped = in_pairs | set(evenly)
    needed = sampled | mapped
    rows = {row: values for row, values in enumerate(run.examples()) if row in needed}
    return page_template("run.html.j2").render(
        version=metadata.version("datacreate"),
        run=str(run.path),
        summary=summary,
        fields={name: text for name, text in summary_fields(summary).items() if name not in _CHARTS},
        warnings=[*filter(None, [summary["depth_warning"]]), *metrics.warnings],
        examples=[_fields(values) for values in spec.examples[:MAX_BARS]],
        samples=[(row + 1, _fields(rows[row])) for row in sorted(sampled & rows.keys())],
        shares=share_charts(summary, view),
        rejects=_shares("Reject reasons", summary["rejected"], view) if summary["rejected"] else None,
        rejected=_first_rejects(run.commits()),
        tree=plot_lineage(run.commits(), spec.examples, view, total),
        map=plot_text_map({row: rows[row] for row in sorted(mapped & rows.keys())}, pairs, view, total),
        near=near,
        pairs=[
            (
                f"{pair.similarity:.0%}",
                [(row + 1, view.text(rows[row], _LONGEST_PAIR)) for row in (pair.earlier, pair.later)],
            )
            for pair in pairs
        ],
        lengths=length_chart([rows[row] for row in evenly], view) if total else None,
        shortcuts=shortcut_chart(metrics),
        metrics=metrics,
    )


def _first_rejects(commits: Iterable[Commit]) -> dict[str, list[tuple[str, str]]]:
    """The first rejected texts of each reason, with the details."""
    by_reason = defaultdict[str, list[tuple[str, str]]](list)
    for commit in commits:
        for reject in commit.rejects:
            texts = by_reason[reject.reason.value]
            if len(texts) < MAX_REJECTS:
                texts.append((shorten(reject.text, _LONGEST_REJECT), reject.detail or ""))
    return by_reason


class RowView:
    """How rows of a format are shown in charts and plots: their text, and the color of their label."""

    def __init__(self, task_format: TaskFormat) -> None:
        self.format, self.inputs = task_format, task_format.input_texts
        labels = [str(label) for label in task_format.labels or ()]
        self.colors = {label: min(number, COLORS - 1) for number, label in enumerate(labels)}
        self.legend = labels[:COLORS] if len(labels) <= COLORS else [*labels[: COLORS - 1], "other labels"]

    def color(self, values: Mapping[str, Json]) -> int:
        """A color for each of the first fixed labels; always 0 in other formats."""
        return self.colors.get(str(value_at(values, self.format.roles.answer)), 0)

    def text(self, values: Mapping[str, Json], longest: int = _LONGEST) -> str:
        answer = value_at(values, self.format.roles.answer)
        inputs = shorten("\n".join(self.inputs(values)), longest)
        return inputs if answer is None else f"{inputs} → {shorten(field_text(answer), longest // 2)}"


def share_charts(summary: RunSummary, view: RowView) -> list[Chart]:
    """Shares of labels, of each attribute's values, of generators, and of depths."""
    groups: dict[str, Mapping[str, int]] = {"Labels": summary["labels"]}
    groups |= {f"Attribute {name}": counts for name, counts in summary["attributes"].items()}
    groups["Models"] = summary["generators"]
    groups["Depth in the tree (1: a child of the formatting example)"] = summary["depths"]
    return [_shares(name, counts, view) for name, counts in groups.items() if counts]


def _shares(title: str, counts: Mapping[str, int], view: RowView) -> Chart:
    total, most = max(1, sum(counts.values())), max(1, *counts.values())
    bars = [
        Bar(name, f"{count:,} ({count / total:.1%})", [(view.colors.get(name, 0), 100 * count / most)])
        for name, count in islice(counts.items(), MAX_BARS)
    ]
    left_out = len(counts) - len(bars)
    return Chart(title, bars, f"{left_out:,} more are not shown." if left_out else "")


def length_chart(rows: Rows, view: RowView) -> Chart:
    """The number of rows by the number of words of their text, and by label."""
    lengths = [(min(MAX_WORDS, len(words(text_and_passage(view.format, row)[0]))), view.color(row)) for row in rows]
    shortest, longest = min(lengths)[0], max(lengths)[0]
    width = math.ceil((longest - shortest + 1) / LENGTH_BARS)  # lengths that share a bar
    counts = Counter(((length - shortest) // width, color) for length, color in lengths)
    totals = Counter((length - shortest) // width for length, _ in lengths)
    highest = max(totals.values())
    bars = []
    for number in range(max(totals) + 1):
        low, high = shortest + number * width, shortest + (number + 1) * width - 1
        parts = [(color, 100 * counts[number, color] / highest) for color in range(COLORS) if counts[number, color]]
        bars.append(Bar(str(low) if low == high else f"{low} to {high}", f"{totals[number]:,}", parts))
    title = f"Words per text (longer texts count as {MAX_WORDS})"
    return Chart(title, bars, f"{len(rows):,} rows.", view.legend)


def shortcut_chart(metrics: Metrics) -> Chart:
    """The share of rows that each shortcut alone gets right, with marks at chance and at human rows."""
    human = metrics.human_scores()
    bars = []
    for each in metrics.shortcuts:
        value, marks = f"{each.score:.0%} (chance {each.chance:.0%}", [100 * each.chance]
        if (score := human.get(each.name)) is not None:
            value, marks = f"{value}, human rows {score:.0%}", [*marks, 100 * score]
        bars.append(Bar(each.name, f"{value})", ((0, 100 * each.score),), marks))
    marked = f"chance and {metrics.human_name}" if human else "chance"
    note = f"The share of rows that a model gets right without the task. Marks: {marked}."
    return Chart("Shortcuts", bars, note)


def plot_lineage(commits: Iterable[Commit], examples: Rows, view: RowView, total: int) -> Plot:
    """A plot of the first rows, whose distance from its center is their depth.

    The center is the formatting example; several of them are around an empty center. Rows that waited for the
    label-noise check and were then rejected are hollow.
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
    places, children = _radial(parents), Counter(parents.values())
    dots = [Dot(*places[""], _BLACK, view.text(examples[0]), 7.0)] if len(roots) == 1 else []
    filled = accepted | roots.keys()
    for node, row in nodes.items():
        color = _BLACK if node in roots else view.color(row)
        text = f"{children[node]} children: {view.text(row)}"
        dots.append(Dot(*places[node], color, text, 3.0, node not in filled))
    lines = [(*places[parent], *places[node], "link") for node, parent in parents.items()]
    part = f"The first {len(accepted):,} of {total:,}" if len(accepted) < total else f"All {total:,}"
    note = (
        f"{part} rows; each line leads from an example to a row that was written for it. Black: formatting examples. "
        "Hollow: not accepted."
    )
    return Plot("Tree of examples", (_SIZE, _SIZE), dots, lines, view.legend, note=note)


def _radial(parents: Mapping[str, str]) -> dict[str, tuple[float, float]]:
    """A place for each node and for the center "": leaves evenly on the circle, others between their children.

    `parents` has the parent of each node, which comes before its children.
    """
    children = defaultdict[str, list[str]](list)
    depths: dict[str, int] = {}
    for node, parent in parents.items():
        children[parent].append(node)
        depths[node] = depths.get(parent, 0) + 1
    order, stack = list[str](), [""]
    while stack:
        order.append(node := stack.pop())
        stack += reversed(children.get(node, ()))
    leaves = [node for node in order if not children.get(node)]
    angles = {node: 2 * math.pi * number / len(leaves) for number, node in enumerate(leaves)}
    for node in reversed(order):
        if own := children.get(node):
            angles[node] = (angles[own[0]] + angles[own[-1]]) / 2
    center, deepest = _SIZE / 2, max(depths.values(), default=1)
    radii = {node: (center - 8) * depths.get(node, 0) / deepest for node in order}
    return {
        node: (center + radii[node] * math.cos(angles[node]), center + radii[node] * math.sin(angles[node]))
        for node in order
    }


def find_near_pairs(rows: Iterable[Sequence[str]], threshold: float | None) -> tuple[list[Pair], str]:
    """The pairs of each row (its inputs) and the most similar earlier one, and a sentence about them.

    Pairs are left out if their similarity is more than `BELOW_NEAR` below the threshold.
    """
    lowest = max(MIN_NEAR, (threshold or NEAR_THRESHOLD) - BELOW_NEAR)
    index, pairs, compared = NearIndex(lowest), list[Pair](), 0
    for row, inputs in enumerate(islice(rows, MAX_COMPARED)):
        if most_similar := index.match(inputs):
            pairs.append(Pair(row, *most_similar))
        index.add(inputs)
        compared = row + 1
    pairs.sort(key=lambda pair: (-pair.similarity, pair.later))
    setting = f"--near {threshold:g}" if threshold else f"--near is off; try {NEAR_THRESHOLD:g}"
    note = (
        f"{len(pairs):,} of the first {compared:,} rows share at least {lowest:.0%} of their word shingles with an "
        f"earlier row ({setting}). "
    )
    if len(pairs) > MAX_PAIRS:
        note += f"The {MAX_PAIRS} most similar are shown."
    return pairs[:MAX_PAIRS], note


def plot_text_map(
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
            layout = TSNE(2, perplexity=min(30, (len(rows) - 1) / 3), max_iter=500, init="pca", random_state=0)
            places = layout.fit_transform(reduced)
    except ValueError:  # fewer than three words
        return None
    low, high = places.min(axis=0), places.max(axis=0)
    scaled = (10 + (_SIZE - 20) * (places - low) / np.maximum(high - low, 1e-9)).tolist()
    place_of = {row: (x, y) for row, (x, y) in zip(rows, scaled, strict=True)}
    dots = [
        Dot(*place_of[row], view.color(values), f"row {row + 1}: {view.text(values)}") for row, values in rows.items()
    ]
    lines = [(*place_of[pair.later], *place_of[pair.earlier], "near") for pair in pairs]
    note = (
        f"{len(rows):,} of {total:,} rows; similar texts are close to each other (t-SNE of TF-IDF). Lines join the "
        "pairs below."
    )
    return Plot("Map of the texts", (_SIZE, _SIZE), dots, lines, view.legend, note=note)


def _fields(values: Mapping[str, Json]) -> list[tuple[str, str]]:
    return [(name, shorten(field_text(value), _LONGEST_FIELD)) for name, value in values.items() if value is not None]
