"""What the first pull of an untested preset found, so that every later one gets the same."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, ValidationError

from datacreate.checkpoints import places
from datacreate.checkpoints.preset import HubSource, Preset, Source
from datacreate.errors import CheckpointError


class Lock(BaseModel):
    """Kept in `home()/locks/NAME.json`; removing that file accepts whatever comes next."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str  # the label of the source that served
    revision: str | None = None  # the Hub's commit
    sha256: dict[str, str]  # of every file that arrived


def read(preset: Preset) -> Lock | None:
    """The lock of an untested preset; None for a tested one, whose hashes are in the preset."""
    path = places.locked_hashes(preset.name)
    if not preset.untested or not path.is_file():
        return None
    try:
        return Lock.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise CheckpointError(
            f"{path}: not readable as a lock; remove it and pull {preset.name} again"
        ) from error


def write(preset: Preset, lock: Lock) -> None:
    path = places.locked_hashes(preset.name)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(lock.model_dump_json(indent=2) + "\n", encoding="utf-8")
    partial.replace(path)


def pinned(source: Source, lock: Lock | None) -> Source:
    """The source at the commit that the first pull found behind its branch."""
    if (
        lock is None
        or lock.revision is None
        or lock.source != source.label
        or not isinstance(source, HubSource)
    ):
        return source
    return source.model_copy(update={"revision": lock.revision})
