"""Classifiers that see a part of each row only, cross-validated with families kept together.

What such a classifier gets right is there to be learned without the task (Poliak et al., 2018; Gururangan et
al., 2018). Words: a linear support vector machine on which words and pairs of words are there. Lengths: a
tree of depth 3. Both are the same for the same rows and seed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from datacreate.formats.text_normalization import words

FOLDS = 5
_DEPTH = 3
_LARGEST_LEAF = 50  # rows that a leaf of a tree needs, in a set that is large enough
_MOST_FEATURES = 30_000

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


def by_words(texts: Sequence[str], target: Integers, groups: Sequence[int], seed: int) -> Floats | None:
    """What a bag of words makes of each text when it is not trained on it or on its group.

    `target` (n,) are classes counted from 0; the result (n, classes) scores them, higher is likelier.
    None where there are too few groups to part them.
    """
    from sklearn.feature_extraction.text import CountVectorizer

    # A word that is in one row alone says nothing about any other.
    counter = CountVectorizer(
        analyzer=_terms, binary=True, min_df=2, max_features=_MOST_FEATURES, dtype=np.float64
    )
    try:
        features = counter.fit_transform(texts)
    except ValueError:  # no word is there twice: all classes are as likely
        return np.zeros((len(target), int(target.max()) + 1))
    return _scores(features, target, groups, seed, _linear())


def _terms(text: str) -> list[str]:
    found = words(text)
    return found + [" ".join(pair) for pair in pairwise(found)]


def by_numbers(features: Floats, target: Integers, groups: Sequence[int], seed: int) -> Floats | None:
    """The same of a small tree on features (n, k)."""
    return _scores(features, target, groups, seed, _tree(len(target)))


def _linear() -> Any:
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import Normalizer
    from sklearn.svm import LinearSVC

    # Tells are frequent words, so that they are not weighed down as in a search (by TF-IDF a "not" in all
    # false rows of 200 gave 86 to 91 %, so it gives 99.5 %). C: the best of four on five human sets.
    return make_pipeline(Normalizer(), LinearSVC(C=0.1, dual=False, class_weight="balanced"))


def _tree(rows: int) -> Any:
    from sklearn.tree import DecisionTreeClassifier

    leaf = max(2, min(_LARGEST_LEAF, rows // 20))
    return DecisionTreeClassifier(
        max_depth=_DEPTH, min_samples_leaf=leaf, class_weight="balanced", random_state=0
    )


def _scores(
    features: Any, target: Integers, groups: Sequence[int], seed: int, untrained: Any
) -> Floats | None:
    from sklearn.base import clone

    if len(set(groups)) < FOLDS:
        return None
    scores = np.zeros((len(target), int(target.max()) + 1))
    for train, test in _folds(np.asarray(groups), seed):
        present = np.unique(target[train])
        if len(present) == 1:
            scores[test, present[0]] = 1.0
            continue
        model = clone(untrained).fit(features[train], target[train])
        scores[np.ix_(test, present)] = _confidence(model, features[test])
    return scores


def _confidence(model: Any, features: Any) -> Floats:
    """A score for each class, (n, classes)."""
    if hasattr(model, "predict_proba"):
        return np.asarray(model.predict_proba(features))
    found = np.asarray(model.decision_function(features))
    return np.stack([-found, found], axis=1) if found.ndim == 1 else found


def _folds(groups: Integers, seed: int) -> Iterator[tuple[Integers, Integers]]:
    from sklearn.model_selection import GroupKFold

    # With classes weighted evenly there is nothing to gain from stratified folds, which cost seconds.
    splitter = GroupKFold(FOLDS, shuffle=True, random_state=seed)
    yield from splitter.split(groups, groups=groups)
