"""The servers of a generator, started once for all cells of a sweep that use it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from datacreate.engines.addresses import KEY
from datacreate.engines.factory import checkpoint_of, local_servers, make_engine
from datacreate.engines.local import LocalServers
from datacreate.engines.settings import EngineOptions
from datacreate.files import replace_file
from datacreate.messages import Notify
from datacreate.settings import as_arguments
from datacreate.sweep.plan import short_name


@dataclass(frozen=True)
class SharedServers:
    """Running servers, and how a step uses them."""

    slots: int  # requests processed at once
    arguments: tuple[str, ...] | None = None  # of a step; None: the engine options of the plan
    environment: Mapping[str, str] = field(default_factory=dict)
    local: Sequence[LocalServers] = ()

    def repair(self, notify: Notify) -> None:
        """Restart a server that has ended, once."""
        for servers in self.local:
            for address in servers.now():
                if message := servers.repair(address.url, hung=False):
                    notify(message)


@contextmanager
def shared_servers(
    generator: str, verifier: str | None, options: EngineOptions, count: int, logs: Path, notify: Notify
) -> Iterator[SharedServers]:
    """The servers of `options.urls`, or servers that are started here and stopped at the end of the block.

    `count` is the number of examples of all steps; the servers write their logs into `logs`. EngineError or
    CheckpointError if a server cannot be started; ServersUnavailable if none of `options.urls` answers.
    """
    if options.served:
        checkpoint = checkpoint_of(generator, options)
        with closing(make_engine(checkpoint, options, count=count, notify=notify)) as engine:
            slots = engine.slots
        yield SharedServers(slots)
        return
    names = [name for name in (generator, verifier) if name is not None]
    found = {checkpoint.sha256: checkpoint for checkpoint in (checkpoint_of(name, options) for name in names)}
    with ExitStack() as stack:
        local: list[LocalServers] = []
        for checkpoint in found.values():
            servers = local_servers(
                checkpoint,
                EngineOptions(engine=options.engine) if local else options,
                count=count,
                log=logs / f"server-{short_name(checkpoint.name)}.log",
                models=len(found),
                notify=notify,
            )
            if local:
                servers.key = local[0].key  # steps know one key
            stack.callback(servers.stop)
            servers.start()
            local.append(servers)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="datacreate-")))
        for number, address in enumerate(address for servers in local for address in servers.now()):
            replace_file(folder / f"{number}.json", address.model_dump_json())
        addresses = local[0].now()
        arguments = ["--url", str(folder), "--servers", str(len(addresses))]
        arguments += as_arguments(EngineOptions, options.given(("max_model_len",)))
        slots = sum(address.max_num_seqs or 1 for address in addresses)
        yield SharedServers(slots, tuple(arguments), {KEY: local[0].key}, local)
