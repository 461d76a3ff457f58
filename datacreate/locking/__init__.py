"""Locks on folders that hold across the nodes of a cluster.

Not flock: over NFS it depends on how each node has mounted it, on Lustre it is off by default, and it
tells nothing of a holder. And not the leases of `filelock`: a soft one is never taken over where names
cannot be exchanged, as on NFS; a soft reader-writer one lets a process that is known to be dead keep its
lock for as long as a silent node; neither tells of a SLURM job.
"""

from datacreate.locking.holder import Holder, slurm_job
from datacreate.locking.lock import FolderLock, Pace, Taken, held_by, is_claim

__all__ = ["FolderLock", "Holder", "Pace", "Taken", "held_by", "is_claim", "slurm_job"]
