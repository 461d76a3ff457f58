"""SLURM: one small file says what a site's jobs ask for, and the scripts in scripts/ submit with it.

The file is `$DATACREATE_SITE`, or `site.yaml` in the home; data/site.yaml is the commented template.
"""

from __future__ import annotations

from datacreate.cluster.partitions import check_partitions
from datacreate.cluster.settings import JOBS, JobSettings, Site, load_site, site_path
from datacreate.cluster.submission import sbatch_options, shell_settings

__all__ = [
    "JOBS",
    "JobSettings",
    "Site",
    "check_partitions",
    "load_site",
    "sbatch_options",
    "shell_settings",
    "site_path",
]
