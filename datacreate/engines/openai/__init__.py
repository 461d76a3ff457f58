"""Models behind OpenAI-compatible servers: `vllm serve`, one or many, a fleet behind one address.

addresses.py   --url -> the servers there are, now
wire.py        Request -> body, answer -> Completion; what an answer says of the server
server.py      one server: asked over HTTP, let in after a test, left when it fails
fleet.py       many: each request goes to whoever has room, and again elsewhere when that one dies
engine.py      the `Engine` that a run sees; the fleet lives in a thread of its own
"""

from __future__ import annotations

from datacreate.engines.openai.addresses import Addresses
from datacreate.engines.openai.engine import ServedEngine, served_model
from datacreate.engines.openai.fleet import Patience
from datacreate.engines.openai.wire import Wire

__all__ = ["Addresses", "Patience", "ServedEngine", "Wire", "served_model"]
