"""A creation run -> what its rows are like: bounded in size, whatever the run's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from datacreate.dataset_metrics import DatasetMetrics, sampled
from datacreate.formats.example import Example, Json, field_at
from datacreate.formats.task_format import TaskFormat, answer_text
from datacreate.reporting.collect import spelled
from datacreate.reporting.distance import distance, evenly
from datacreate.reporting.tables import CreatedSet, TreeNode
from datacreate.runs.directory import RunDirectory, summary_of
from datacreate.runs.log import Commit
from datacreate.runs.summary import RunStats

MOST_NODES = 400
MOST_SAMPLES = 10
MOST_TEXT = 160
"""Characters of a node's text."""


def created_set(path: Path, appraiser: DatasetMetrics) -> CreatedSet:
    """What the log of a run says of its rows, and what they are like.

    Raises RunError if config.json or the log is damaged, OSError if they cannot be read.
    """
    directory = RunDirectory(path)
    config = directory.read_config()
    format, spec = config.format, config.spec
    stats, commits = RunStats.of(spec, format), list[Commit]()
    for line in directory.log(config.run):
        stats.take(line.record)
        if isinstance(line.record, Commit):
            commits.append(line.record)
    summary = summary_of(config, stats)
    accepted = [(commit, values) for commit in commits for values in commit.accepted]
    texts = [format.text_of(values) for _, values in accepted]
    return CreatedSet(
        path=spelled(path),
        strategy=spec.strategy,
        model=spec.model,
        method=spec.method,
        seed=spec.seed,
        example_id=Example(spec.example).id,
        example=spec.example,
        requested=summary["requested"],
        accepted=summary["accepted"],
        finished=summary["finished"],
        requests=summary["requests"],
        generated_tokens=summary["generated_tokens"],
        examples_per_second=summary["examples_per_second"],
        labels=summary["labels"],
        depths={int(depth): number for depth, number in summary["depths"].items()},
        rejected=summary["rejected"],
        distance=distance(
            appraiser.likeness,
            format.text_of(spec.example),
            texts,
            [commit.depth + 1 for commit, _ in accepted],
        ),
        measures=appraiser.rows(format, *sampled(commits, appraiser.seed), spec.example, spec.benchmark)
        if accepted
        else None,
        samples=tuple(accepted[place][1] for place in evenly(len(accepted), MOST_SAMPLES)),
        tree=_tree(format, spec.example, accepted),
    )


def _tree(
    format: TaskFormat, root: Mapping[str, Json], accepted: Sequence[tuple[Commit, Mapping[str, Json]]]
) -> tuple[TreeNode, ...]:
    """The formatting example and the first examples; the log has every parent before its children."""
    children = Counter(commit.parent for commit, _ in accepted)

    def node(values: Mapping[str, Json], parent: str | None, depth: int) -> TreeNode:
        id = Example(values).id
        text = " ".join(format.text_of(values).split())
        shown = text if len(text) <= MOST_TEXT else text[: MOST_TEXT - 1] + "…"
        return TreeNode(id, parent, depth, _label(format, values), shown, children[id])

    first = accepted[: MOST_NODES - 1]
    nodes = [node(root, None, 0), *(node(values, c.parent, c.depth + 1) for c, values in first)]
    known = {one.id for one in nodes}
    return tuple(one for one in nodes if one.parent is None or one.parent in known)


def _label(format: TaskFormat, values: Mapping[str, Json]) -> str | None:
    if format.roles.answer is None:
        return None
    try:
        return answer_text(field_at(values, format.roles.answer))
    except (KeyError, TypeError):
        return None
