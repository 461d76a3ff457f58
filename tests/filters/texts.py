"""Questions for the tests of duplicates: pairs that differ in a word, that mean the same, and others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datacreate.filters.decontamination import Decontamination, DecontaminationOptions
from datacreate.filters.filter import DecontaminationRow, DecontaminationSet, DecontaminationSetSpec, FilterResources
from datacreate.filters.near import NearDuplicates, NearOptions
from datacreate.filters.semantic import SemanticDuplicates, SemanticOptions
from datacreate.formats.candidate import Candidate
from datacreate.formats.example import Example
from datacreate.formats.text_normalization import normalize_text
from datacreate.selection.embeddings import PassedVectors


def candidate(question: str, passage: str = "") -> Candidate:
    """The candidate with this question and passage."""
    inputs = tuple(filter(None, (question, passage)))
    return Candidate(Example({}), inputs, normalize_text("\n".join(inputs)), "\n".join(inputs), passage)


def decontamination_set(rows: Sequence[str | tuple[str, str]], title: str = "creak") -> DecontaminationSet:
    """A test split with these questions, or questions and passages."""
    pairs = [row if isinstance(row, tuple) else (row, "") for row in rows]
    read = [DecontaminationRow(candidate(*pair).inputs, pair[1]) for pair in pairs]
    return DecontaminationSet(DecontaminationSetSpec(name=title, split="test", digest=""), lambda: read)


def near_filter(threshold: float) -> NearDuplicates:
    return NearDuplicates(NearOptions(near=threshold), FilterResources())


def semantic_filter(threshold: float, vectors: PassedVectors | None = None) -> SemanticDuplicates:
    resources = FilterResources(vectors=vectors or PassedVectors(HashedWords()))
    return SemanticDuplicates(SemanticOptions(semantic=threshold), resources)


def decontamination(sets: Sequence[DecontaminationSet], **settings: Any) -> Decontamination:
    """A prepared filter; the check of near-duplicates is off unless it has a threshold."""
    options = DecontaminationOptions(**{"decontaminate_near": None} | settings)
    decontamination = Decontamination(options, FilterResources(sets))
    decontamination.prepare()
    return decontamination


class HashedWords:
    """An `Embedder` without a model: a text is the sum of a fixed random vector for each of its words."""

    dimensions = 64

    def __init__(self) -> None:
        self.calls: list[list[str]] = []  # the texts of each call

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.calls.append(list(texts))
        rows = np.zeros((len(texts), self.dimensions), np.float32)
        for row, text in zip(rows, texts, strict=True):
            for word in normalize_text(text).split() or [text]:
                seed = list(word.encode("utf-8", "surrogatepass"))
                row += np.random.default_rng([*seed, 1]).normal(size=self.dimensions)
            row /= np.linalg.norm(row)
        return rows


NEAR = [
    ("What would a baker reach for first to make the dough for tomorrow's bread rise overnight?",
     "What would a baker reach for first to make the dough for tomorrow's loaf rise overnight?"),
    ("If a farmer finds the gate open in the morning, what is most likely missing from the field?",
     "If the farmer finds the gate open in the morning, what is most likely missing from the field?"),
    ("How can somebody without a watch tell the hour while walking alone through a sunny desert?",
     "How can somebody without a watch tell the hour while walking alone through a sunny valley?"),
    ("Wo stellt man nach einem langen Spaziergang im Regen die nassen Schuhe zum Trocknen hin?",
     "Wo stellt man nach einem langen Spaziergang im Schnee die nassen Schuhe zum Trocknen hin?"),
    ("أين يضع المسافر حقيبته الثقيلة عندما يصعد إلى القطار السريع المتجه إلى المدينة القديمة؟",
     "أين يضع المسافر حقيبته الكبيرة عندما يصعد إلى القطار السريع المتجه إلى المدينة القديمة؟"),
    ("下雨的时候，人们从超市走回家，通常会用什么东西来遮住头和肩膀？",
     "下雪的时候，人们从超市走回家，通常会用什么东西来遮住头和肩膀？"),
    ("ก่อนออกจากบ้านในวันที่ฝนตกหนักคุณควรหยิบอะไรไปด้วย",
     "ก่อนออกจากบ้านในวันที่ฝนตกมากคุณควรหยิบอะไรไปด้วย"),
]  # fmt: skip

PARAPHRASES = [
    ("Where do people keep a wet umbrella?", "In which place is a dripping umbrella usually put?"),
    ("What do you use to cut paper?", "Which tool is used for cutting paper?"),
    ("Why do birds fly south in winter?", "What is the reason that birds migrate south for the winter?"),
    ("Who repairs broken water pipes?", "Which professional fixes water pipes that are broken?"),
    ("How do fish breathe under water?", "In what way do fish breathe underwater?"),
    ("Where can you borrow books for free?", "What place lets you borrow books without paying?"),
    ("What is the capital city of France?", "Which city is the capital of France?"),
    ("When does the sun rise?", "At what time of day does sunrise happen?"),
    ("What do bees make from nectar?", "Bees use nectar to produce what?"),
    ("How can I make tea taste sweeter?", "What could I do to make my tea sweeter?"),
]

DIFFERENT = [
    "What colour does litmus paper take in vinegar?",
    "Which muscle pumps blood through the body?",
    "Where do penguins raise their chicks?",
    "What is kept in a quiver?",
    "Who conducts a marriage at sea?",
    "How is glass made from sand?",
    "Which metal is liquid at room temperature?",
    "Why does a compass needle point north?",
    "What is the purpose of a lighthouse?",
    "Where is the tongue of a shoe?",
    "How do beavers stop a stream?",
    "What does an anemometer measure?",
    "Which fruit is dried to make raisins?",
    "What does a tailor do with a thimble?",
]

ODD = [
    "", "?", "Hm", "\u2028", "one\u2028two", "😀", "😡", "👩\u200d🚀 or 👨\u200d🚀?", "ما هي عاصمة مصر؟",
    "א ב ג \u202eמראה\u202c", "水", "水在多少度结冰？", "มาที่นี่", "a\x00b\x07c",
    "<b>bold</b> & <script>x</script>",
    "\ud800 half", "e\u0301" * 40, "ＦＵＬＬ ＷＩＤＴＨ", "word " * 10_000, "字" * 50_000, "x" * 50_000,
]  # fmt: skip
"""Texts of all kinds that the filters must bear."""
