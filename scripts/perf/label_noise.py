#!/usr/bin/env python3
"""How often the label-noise check falls back to pseudo-labels, and after how many examples, in simulated runs.

    scripts/perf/label_noise.py [--runs 1000] [--count 500]... [--concordance 0.5]...

A run has two labels, assigned at random. The verifier's log-odds of the second label have a normal distribution for
each assigned label; the distance of their means gives the concordance. Prints a Markdown table. docs/quality.md has the
results.
"""

from __future__ import annotations

import argparse
import random
from math import exp, sqrt
from statistics import NormalDist, mean

from datacreate.verification import Scored
from datacreate.verification.label_noise import LabelNoiseCheck, max_label_noise_rows

MIN_CONCORDANCE = 0.6  # the default of --label-noise-check
COLUMNS = ("--count", "concordance", "runs that fell back", "examples until the decision")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--count", type=int, action="append", help="default: 500 and 20")
    parser.add_argument("--concordance", type=float, action="append", help="default: 0.5 and 0.7")
    options = parser.parse_args()
    print(f"| {' | '.join(COLUMNS)} |\n{'|---' * len(COLUMNS)}|", flush=True)
    for count in options.count or [500, 20]:
        for concordance in options.concordance or [0.5, 0.7]:
            checks = [simulate(count, concordance, seed) for seed in range(options.runs)]
            fell_back = mean(check.pseudo_labels for check in checks)
            examples = mean(check.seen for check in checks)
            print(f"| {count} | {concordance} | {fell_back:.1%} | {examples:.0f} |", flush=True)


def simulate(count: int, concordance: float, seed: int) -> LabelNoiseCheck:
    """The check of one run, after its decision."""
    rng, distance = random.Random(seed), sqrt(2) * NormalDist().inv_cdf(concordance)
    check = LabelNoiseCheck(["no", "yes"], max_label_noise_rows(count), MIN_CONCORDANCE)
    while not check.decided:
        assigned = rng.randrange(2)
        probability = 1 / (1 + exp(-rng.gauss(assigned * distance, 1)))
        check.add(Scored(assigned, assigned, accepted=True, probabilities=(1 - probability, probability)))
    return check


if __name__ == "__main__":
    main()
