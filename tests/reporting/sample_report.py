"""A report as a cluster would make it: six benchmarks, six arms, two created sets whose texts mean harm."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping
from typing import Any

from datacreate.reporting.tables import (
    Cell,
    Column,
    CreatedSet,
    Curve,
    CurvePoint,
    Difference,
    Distance,
    PaperFigure,
    Report,
    RequestSlot,
    Row,
    Skipped,
    Spread,
    Table,
    TreeNode,
)

HOSTILE = (
    '<script>document.title = "owned"</script>',
    '</script><script>document.body.className = "owned"</script>',
    '<img src="http://127.0.0.1:9/pixel.png" onerror="alert(1)">',
    "</style><style>body { display: none }</style>",
    '"><svg onload=alert(1)><a href="javascript:alert(1)">click</a>',
    "{{ 7 * 7 }} {% raw %} ${7*7} %{x}",
    "<!-- <b>bold</b> &lt;i&gt; &amp; ]]>",
    "a\u202egnp.exe \u2066hidden\u2069",
    "bell\u0007 null\u0000 escape\u001b[31mred",
    "line\u2028separator\u2029here\u0085next",
    "half \ud800 of a character",
    "שלום, what does \u200fthis\u200f mean?",
)

BENCHMARKS = {  # name -> test rows, labels or options, created rows, whether the options vary
    "piqa": (2000, 2, 14113, True),
    "winogrande": (634, 2, 160, True),
    "csqa": (1241, 5, 8500, True),
    "pubmedqa": (500, 2, 450, False),
    "boolq_closed": (1635, 2, 9427, False),
    "creak": (686, 2, 10176, False),
}
PAIRS = (("piqa", "winogrande"), ("winogrande", "piqa"), ("creak", "boolq_closed"), ("pubmedqa", "creak"))
ARMS = ("constant", "zero-shot", "human", "random", "similar", "tree")
SKILL = {"constant": 0.0, "zero-shot": 0.42, "human": 0.5, "random": 0.22, "similar": 0.18, "tree": 0.31}
ENCODER = "all-minilm-l6-v2"
GENERATOR = "qwen2.5-coder-1.5b-instruct"


def sample_report(*, curves: bool = True, sets: int = 2, hostile_names: bool = False) -> Report:
    """The report; the same at every call. With `hostile_names` arms and folders mean harm too."""
    rng = random.Random(7)
    columns = [Column(condition, condition) for condition in ARMS]
    if hostile_names:
        columns[3] = Column("<b>random</b>", "<b>random</b><script>alert(1)</script>")
    tables = (
        _table("in", [(name, name) for name in BENCHMARKS], columns, rng),
        _table("out", list(PAIRS), columns, rng),
    )
    return Report(
        version="0.1.0",
        paths=("sweeps/first", "runs"),
        evaluations=154,
        tables=tables,
        curves=_curves(columns, rng) if curves else (),
        created=tuple(_created(number, rng) for number in range(sets)),
        skipped=(Skipped("sweeps/first/csqa/similar", "training.json: not finished"),),
        citation="a paper of 2023, tables 3 and 4.",
        swapped_note="This row seems to be printed under the wrong heading.",
    )


def _table(
    place: RequestSlot, pairs: list[tuple[str, str]], columns: list[Column], rng: random.Random
) -> Table:
    rows = tuple(_row(train, test, place, rng) for train, test in pairs)
    return Table(
        place=place,
        title=f"{'In' if place == 'in' else 'Out of'} distribution: {ENCODER}, datacreate settings",
        encoder=ENCODER,
        encoder_sha256="0" * 64,
        settings="datacreate",
        selection="held-out",
        generator=GENERATOR,
        columns=tuple(columns),
        rows=rows,
        differences=tuple(_differences(rows, rng)),
    )


def _row(train: str, test: str, place: RequestSlot, rng: random.Random) -> Row:
    rows, classes, _, varying = BENCHMARKS[test]
    count = BENCHMARKS[train][2]
    cells = tuple(_cell(condition, train, test, place, rng) for condition in ARMS)
    paper = tuple(
        PaperFigure(
            round(rng.uniform(0.45, 0.8), 4), count, printed_swapped=test == "creak" and place == "out"
        )
        if condition in ("human", "random", "similar", "tree")
        else None
        for condition in ARMS
    )
    return Row(
        train=train,
        test=test,
        split="test",
        digest="1" * 64,
        rows=rows,
        head="multiple_choice" if varying else "sequence_classification",
        classes=classes,
        smallest_difference=1.4 / rows**0.5,
        count=count,
        cells=cells,
        paper=paper,
    )


def _cell(condition: str, train: str, test: str, place: RequestSlot, rng: random.Random) -> Cell | None:
    if (train, condition) == ("csqa", "similar"):
        return None
    rows, classes, _, _ = BENCHMARKS[test]
    count = BENCHMARKS[train][2]
    trained = condition not in ("constant", "zero-shot")
    learned = SKILL[condition] * (0.6 if place == "out" and trained else 1) * rng.uniform(0.4, 1.5)
    collapsed = (
        2 if trained and (train, condition) in {("winogrande", "random"), ("boolq_closed", "tree")} else 0
    )
    primary = (
        0.0 if condition == "constant" else rng.uniform(-0.06, 0.02) if collapsed else min(learned, 0.93)
    )
    chance = 1 / classes
    accuracy = chance + primary * (1 - chance) + (0.11 if condition == "constant" else 0)
    half = 1.96 / rows**0.5
    created = condition not in ("constant", "zero-shot", "human")
    human = condition == "human"
    return Cell(
        primary=primary,
        primary_interval=(primary - 1.6 * half, min(1.0, primary + 1.6 * half)),
        accuracy=accuracy,
        accuracy_interval=(accuracy - half, min(1.0, accuracy + half)),
        method="bootstrap" if trained else "one model",
        count=(count + 1000 if human and test == "piqa" else count) if trained else None,
        full=human,
        models={"constant": 0, "zero-shot": 1}.get(condition, 6 if created else 3),
        examples=2 if created else 0,
        sets=2 if created else int(human),
        seeds=3 if trained else 0,
        spread=Spread(0.021, 0.034 if created else None) if trained else Spread(None, None),
        collapsed=collapsed,
        collapse_reasons=("97 % of the answers are 'yes'",) if collapsed else (),
        unanswered=3 if (test, condition) == ("pubmedqa", "tree") else 0,
        truncated=41 if test == "pubmedqa" and trained else 0,
        sources=tuple(
            f"sweeps/first/{train}/{condition}/seed-{seed}/evaluations/{test}-test" for seed in (1, 2, 3)
        ),
    )


def _differences(rows: tuple[Row, ...], rng: random.Random) -> list[Difference]:
    found = []
    for place, row in enumerate(rows):
        for first in range(2, len(ARMS)):
            for second in range(first + 1, len(ARMS)):
                one, other = row.cells[first], row.cells[second]
                if one and other:
                    p = min(
                        1.0, max(1e-6, rng.random() * 0.08 / (abs(one.accuracy - other.accuracy) * 10 + 0.1))
                    )
                    found.append(_difference(place, first, second, one, other, p))
    return found


def _difference(place: int, first: int, second: int, one: Cell, other: Cell, p: float) -> Difference:
    holm = min(1.0, p * 12)
    return Difference(place, first, second, one.accuracy - other.accuracy, 61, 44, p, holm, holm < 0.05)


def _curves(columns: list[Column], rng: random.Random) -> tuple[Curve, ...]:
    return tuple(
        _curve(column.condition, skill, benchmark, rng)
        for benchmark in ("csqa", "creak")
        for column, skill in zip(columns[2:], (0.5, 0.22, 0.18, 0.31), strict=True)
    )


def _curve(condition: str, skill: float, benchmark: str, rng: random.Random) -> Curve:
    points = []
    for step, count in enumerate((100, 300, 1000, 3000)):
        primary = skill * (step + rng.uniform(0.2, 0.9)) / 4
        points.append(
            CurvePoint(
                count, primary, primary - 0.06, primary + 0.05, 0.5 + primary / 2, 3, int(primary < 0.03)
            )
        )
    return Curve(condition, benchmark, "test", ENCODER, "datacreate", "held-out", GENERATOR, tuple(points))


def _created(number: int, rng: random.Random) -> CreatedSet:
    strategy = ("tree", "random")[number % 2]
    example = {
        "question": "Where would you put a wet umbrella when you come home?",
        "context": None,
        "options": ["stand", "bookshelf", "oven", "wallet", "aquarium"],
        "label": "stand",
    }
    nodes = _tree(strategy, rng)
    depths = Counter(node.depth for node in nodes[1:])
    distances = [rng.betavariate(4, 3) for _ in nodes]
    edges = tuple(bin / 10 for bin in range(11))
    return CreatedSet(
        path=f"runs/csqa-{strategy}-{number}",
        strategy=strategy,
        model=GENERATOR,
        method="datacreate",
        seed=42 + number,
        example_id="8c1f0e5d6a7b9c02",
        example=example,
        requested=8500,
        accepted=8500 if number % 2 == 0 else 6120,
        finished=number % 2 == 0,
        requests=1904,
        generated_tokens=412_331,
        examples_per_second=11.4,
        labels={} if number % 2 else {"yes": 4250, "no": 4100, HOSTILE[0]: 150},
        depths=depths if strategy == "tree" else dict.fromkeys(range(1, 1225), 5),
        rejected={
            "duplicate": 611,
            "answer_not_in_options": 207,
            "copied_example": 94,
            "schema_violation": 3,
        },
        distance=Distance(
            measure="cosine distance, all-minilm-l6-v2",
            compared=len(nodes),
            mean=0.57,
            median=0.58,
            edges=edges,
            bins=tuple(sum(low <= d < low + 0.1 for d in distances) for low in edges[:-1]),
            by_depth={depth: 0.3 + 0.05 * depth for depth in depths},
        ),
        measures=measures(HOSTILE[number % len(HOSTILE)], human=number % 2 == 0),
        samples=tuple(_sample(text, rng) for text in (HOSTILE if number == 0 else HOSTILE[:3])),
        tree=tuple(nodes),
    )


def measures(hostile: str, human: bool) -> dict[str, Any]:
    """Shortcuts and diversity, a hostile word in a warning."""
    found = {
        "rows": 500,
        "shortcuts": [
            {"name": "length alone", "score": 0.55, "chance": 0.5, "rows": 500, "warning": None},
            {"name": "wording", "score": 0.91, "chance": 0.5, "rows": 500, "warning": f"see {hostile!r}"},
        ],
        "no_shortcuts": None,
        "diversity": {
            "texts": 500,
            "mean_words": 12.4,
            "distinct_1": 0.21,
            "distinct_2": 0.63,
            "distinct_3": None,
            "self_bleu": 0.31,
            "measure": "cosine distance, all-minilm-l6-v2",
            "paired": 500,
            "between": 0.81,
            "from_example": 0.77,
            "vendi": 61.3,
            "vendi_share": 61.3 / 500,
        },
        "passage_words": 91.5,
    }
    beside = {"benchmark": "csqa", "split": "train", **found}
    return found | {"human": beside if human else None}


def _sample(text: str, rng: random.Random) -> Mapping[str, Any]:
    options = [f"option {rng.randrange(100)}", "<b>bold</b>", "a shelf", "tomorrow", text[:12]]
    return {
        "question": f"What is meant by {text}?",
        "context": text * 200 if text == HOSTILE[2] else None,
        "options": options,
        "label": options[2],
        text[:9]: {"key": [text, 1, True]},
    }


def _tree(strategy: str, rng: random.Random) -> list[TreeNode]:
    texts = [*HOSTILE, *(f"Why would somebody keep {n} umbrellas in the {n}th drawer?" for n in range(40))]
    parents = ["root"]
    links: list[tuple[str, str, int]] = []
    depth_of = {"root": 0}
    while len(links) < 300:
        parent = parents.pop(0)
        made = [f"n{len(links) + child}" for child in range(5)]
        links += [(child, parent, depth_of[parent] + 1) for child in made]
        depth_of |= dict.fromkeys(made, depth_of[parent] + 1)
        parents += made if strategy == "tree" else [rng.choice(made)]
    children = Counter(parent for _, parent, _ in links)
    question = "Where would you put a wet umbrella when you come home?"
    return [
        TreeNode("root", None, 0, "stand", question, children["root"]),
        *(
            TreeNode(id, parent, depth, "a shelf", texts[place % len(texts)], children[id])
            for place, (id, parent, depth) in enumerate(links)
        ),
    ]
