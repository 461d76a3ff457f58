"""A report as one HTML file that needs nothing else: no network, no server, no other file.

Every text passes through jinja2's autoescaping and through `harmless`, and the page's content security
policy lets nothing be fetched and no script run but those written here, which it names by their hash:
should markup of a model's ever get through, it still does nothing. Without learning curves there is no
script at all, and plotly.js (5 MB) is left out.
"""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from markupsafe import Markup

from datacreate.files import replace_file
from datacreate.metrics import summary_lines as measures
from datacreate.reporting import figures, overview, wording
from datacreate.reporting.lineage import LARGEST, lineage, size
from datacreate.reporting.tables import Report

if TYPE_CHECKING:
    from jinja2 import Environment

_LARGEST_OF_ALL = 1200  # examples in the trees of the whole page
_SMALLEST = 20


def write_page(report: Report, path: Path) -> None:
    """Write the page, whole or not at all. Raises StorageError if the disk does not take it."""
    replace_file(path, render(report))


def render(report: Report) -> str:
    """The page's text."""
    environment = _environment()
    curves = figures.curve_figures(report.curves)
    scripts = _scripts(environment) if curves else []
    most = min(LARGEST, max(_SMALLEST, _LARGEST_OF_ALL // max(1, len(report.created))))
    return environment.get_template("report.html.j2").render(
        report=report,
        measured=overview.measured(report),
        findings=[overview.finding(table) for table in report.tables],
        curves=curves,
        specs=Markup(figures.script_json([curve.spec for curve in curves])),
        scripts=scripts,
        policy=_policy(scripts),
        trees=[lineage(made.tree, most) for made in report.created],
    )


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("datacreate.reporting"),
        autoescape=True,
        finalize=wording.harmless,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "signed": wording.signed,
        "points": wording.points,
        "between": wording.between,
        "p_value": wording.p_value,
        "behind": wording.behind,
        "spread": wording.spread,
        "parts": wording.parts,
        "heat": figures.heat,
        "bars": figures.bars,
        "depth_bars": figures.depth_bars,
        "distance_bars": figures.distance_bars,
        "distance_by_depth": figures.distance_by_depth,
        "shortcut_pairs": figures.shortcut_pairs,
        "diversity_pairs": figures.diversity_pairs,
        "warnings": measures.warnings,
        "basis": measures.basis,
        "human_name": measures.human_name,
        "size": size,
        "name_of": overview.name_of,
        "notes": overview.notes,
        "shows_swapped": overview.shows_swapped,
    }
    environment.globals |= {"counted": wording.counted, "heat_scale": figures.heat_scale}
    return environment


def _scripts(environment: Environment) -> list[Markup]:
    """plotly.js and what draws the curves with it."""
    from plotly.offline import get_plotlyjs

    assert environment.loader is not None
    drawing, _, _ = environment.loader.get_source(environment, "curves.js")
    return [Markup(get_plotlyjs()), Markup(drawing)]


def _policy(scripts: list[Markup]) -> str:
    """The content security policy: nothing from anywhere, and these scripts alone."""
    hashes = [base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode() for text in scripts]
    allowed = " ".join(f"'sha256-{digest}'" for digest in hashes) or "'none'"
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
