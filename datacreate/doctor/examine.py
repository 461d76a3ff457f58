"""All of it, in the order of the screen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from datacreate.doctor.cluster import cluster
from datacreate.doctor.findings import Job
from datacreate.doctor.gpu import find_driver
from datacreate.doctor.homes import homes, see_home
from datacreate.doctor.imported import SECTION, benchmark_lines
from datacreate.doctor.line import WORKS, Line, Work, refused
from datacreate.doctor.machine import machine, suited_build
from datacreate.doctor.network import network
from datacreate.doctor.presets import SECTIONS, preset_lines
from datacreate.doctor.software import installed_build, software
from datacreate.errors import DatacreateError


@dataclass(frozen=True)
class Report:
    """All findings; `job` names what was asked about, in the words of the command line."""

    lines: tuple[Line, ...]
    job: str | None
    works: tuple[Work, ...]

    @property
    def red(self) -> tuple[Line, ...]:
        return tuple(line for line in self.lines if line.state == "red")

    @property
    def blocking(self) -> tuple[Line, ...]:
        """The red lines that keep the job from running; without a job, those that keep every job."""
        if self.job is None:
            return tuple(line for line in self.red if set(line.needed_by) >= set(WORKS))
        return tuple(line for line in self.red if set(line.needed_by) & set(self.works))


def examine(
    job: Job | None = None,
    *,
    hashed: bool = False,
    reach: bool = False,
    note: Callable[[str], None] = lambda _: None,
) -> Report:
    """Look at everything, and at what the job needs.

    `hashed` reads every byte of checkpoints and benchmarks; only `reach` uses a network. `note` is
    told of what takes long.
    """
    driver = find_driver()
    build = installed_build() or suited_build(driver)
    needed = dict.fromkeys(job.things, job.works) if job else {}
    kept = homes()
    lines = [*software(build), *machine(driver, build), *kept]
    if not any(line.name == "home" and line.state == "red" for line in kept):  # else nothing can be in it
        lines += _looked(SECTIONS["instruct"], lambda: preset_lines(note, needed, hashed=hashed))
        lines += _looked(SECTION, lambda: benchmark_lines(note, needed, hashed=hashed))
    lines += [*cluster(), *network(tried=reach), *(job.lines if job else ())]
    return Report(tuple(lines), job.name if job else None, job.works if job else ())


def _looked(section: str, look: Callable[[], list[Line]]) -> list[Line]:
    """The lines of a section; one red line if it cannot be looked at."""
    try:
        return look()
    except DatacreateError as error:
        return [refused(section, "unreadable", error, see_home())]
    except OSError as error:
        said = f"{error.filename or 'the home'}: {error.strerror or error}"
        return [Line(section, "unreadable", "red", said, see_home(), WORKS)]
