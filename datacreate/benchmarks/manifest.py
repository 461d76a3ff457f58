"""`manifest.json`: what an imported benchmark holds, and where it came from."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from datacreate.benchmarks.findings import Findings
from datacreate.benchmarks.registry import Split

NAME = "manifest.json"


class SplitRecord(BaseModel):
    """One split as it was when it was put in place."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rows: int
    size: int  # bytes
    sha256: str
    source: str  # what it was imported from, in words
    note: str | None = None  # how its rows were chosen, where the source alone does not say
    apart_from: dict[Split, str] = {}  # splits whose rows were taken out of it -> their sha256
    findings: Findings


class Manifest(BaseModel):
    """What an import leaves beside the splits."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    splits: dict[Split, SplitRecord]
    missing: dict[Split, str]  # split -> how it can be brought
    when: str  # ISO 8601, UTC
    versions: dict[str, str]
