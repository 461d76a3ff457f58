"""What is found about one job, as it comes in."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from datacreate.benchmarks import find_benchmark, state
from datacreate.checkpoints import read_adapter, resolve, with_adapter
from datacreate.doctor.engines import engine_line
from datacreate.doctor.line import Line, Work, refused
from datacreate.doctor.presets import USUAL
from datacreate.engines.settings import EngineOptions
from datacreate.errors import DatacreateError
from datacreate.sweep.needs import Need, missing

_USUAL_OPTIONS = EngineOptions()


@dataclass(frozen=True)
class Job:
    """What was found about one job. `things` are the checkpoints and benchmarks that it uses."""

    name: str
    works: tuple[Work, ...]
    lines: tuple[Line, ...]
    things: frozenset[str]


class Findings:
    """The lines about one job, as they come in."""

    def __init__(self, name: str, works: tuple[Work, ...]) -> None:
        self.name, self.works = name, works
        self.lines: list[Line] = []
        self.things: set[str] = set()

    def good(self, name: str, said: str) -> None:
        self.lines.append(Line(self.name, name, "ok", said))

    def noted(self, name: str, said: str, fix: str) -> None:
        self.lines.append(Line(self.name, name, "note", said, fix))

    def bad(self, name: str, error: Exception, otherwise: str) -> None:
        self.lines.append(refused(self.name, name, error, otherwise, self.works))

    def blocked(self, name: str, said: str, fix: str) -> None:
        self.lines.append(Line(self.name, name, "red", said, fix, self.works))

    def job(self) -> Job:
        return Job(self.name, self.works, tuple(self.lines), frozenset(self.things))

    def checkpoint(
        self,
        role: str,
        name: str,
        kind: Literal["instruct", "encoder"],
        options: EngineOptions = _USUAL_OPTIONS,
        adapter: Path | None = None,
        count: int = 1,
    ) -> None:
        """A model or encoder, with an adapter perhaps; an instruct model needs an engine and memory, too."""
        self.things.add(name)
        try:
            found = resolve(name, kind, trust_remote_code=options.trust_remote_code)
        except DatacreateError as error:
            self.bad(role, error, f"datacreate models pull {USUAL[kind]}")
            return
        self.things.add(found.name)
        self.good(role, f"{found.name}, {found.path}")
        if adapter is not None:
            try:
                found = with_adapter(found, read_adapter(adapter))
                self.good("adapter", f"{adapter} fits {name}")
            except DatacreateError as error:
                self.bad("adapter", error, "datacreate create --help")
        if kind == "instruct":
            self.lines.append(engine_line(self.name, found, options, count))

    def split(self, kind: Literal["split", "example"], name: str, split: str = "") -> bool:
        """A benchmark's split, or one to draw a formatting example from; whether it is there.

        A benchmark of which nothing is imported has one line, whatever is wanted of it.
        """
        self.things.add(name)
        what = f"{name} {split or 'to draw from'}"
        try:
            if state(find_benchmark(name)) == "absent":  # whichever split is wanted
                what = name
        except DatacreateError as error:
            self.bad(name, error, "datacreate benchmarks list")
            return False
        if what == name and any(line.name == name for line in self.lines):
            return False
        if why := missing(Need(kind, name, split)):
            self.bad(what, DatacreateError(why), f"datacreate benchmarks import DIR {name}")
            return False
        self.good(what, "imported")
        return True
