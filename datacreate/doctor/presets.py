"""Checkpoints: which presets are here, and whether they are whole."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from datacreate.checkpoints import Preset, load_presets, places, state, verify
from datacreate.doctor.line import Line, Work
from datacreate.runs.config import DEFAULT_MODEL, CreateConfig

SECTIONS = {"instruct": "models", "encoder": "encoders"}

USUAL = {"instruct": DEFAULT_MODEL, "encoder": str(CreateConfig.model_fields["embedding_model"].default)}
"""What is pulled first where nothing is here."""


def preset_lines(
    note: Callable[[str], None], needed: Mapping[str, tuple[Work, ...]], *, hashed: bool
) -> list[Line]:
    """A line for each preset that is here, and one for all that are not.

    `needed` says for which work a checkpoint is needed; `hashed`: every byte is read, and `note` is
    told of each before. Otherwise sizes and headers are looked at.
    """
    lines: list[Line] = []
    known = load_presets().values()
    for kind, section in SECTIONS.items():
        looked = [(preset, state(preset)) for preset in known if preset.kind == kind]
        here = [(preset, found) for preset, found in looked if found != "absent"]
        for preset, found in here:
            problem = None if found == "present" else "damaged: a file is missing or not of its size"
            if hashed:
                note(f"reading all of {preset.name}")
                problem = _hashed(preset)
            lines.append(_line(section, preset, problem, needed.get(preset.name, ()), hashed=hashed))
        lines.append(_absent(section, kind, len(looked) - len(here), any_here=bool(here)))
    return lines


def _hashed(preset: Preset) -> str | None:
    report = verify(preset)
    return None if report.good else f"{report.state}: {'; '.join(report.problems)}"


def _line(
    section: str, preset: Preset, problem: str | None, needed_by: tuple[Work, ...], *, hashed: bool
) -> Line:
    if problem:
        fix = f"datacreate models pull {preset.name} --force"
        return Line(section, preset.name, "red", problem, fix, needed_by)
    size = f"{places.bytes_below(places.finished(preset.name)) / 1e9:.2f} GB"
    return Line(section, preset.name, "ok", f"{size}, {'every byte verified' if hashed else 'looks whole'}")


def _absent(section: str, kind: str, absent: int, *, any_here: bool) -> Line:
    if not any_here:
        fix = f"datacreate models pull {USUAL[kind]}"
        return Line(section, "presets", "red", f"none of {absent} is here", fix)
    if not absent:
        return Line(section, "presets", "ok", "all are here")
    return Line(section, "others", "note", f"{absent} more presets are not here", "datacreate models list")
