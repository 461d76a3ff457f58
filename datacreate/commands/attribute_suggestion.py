"""`datacreate attributes suggest`: a model proposes dimensions and values from the formatting example."""

from __future__ import annotations

import json
import re
import tempfile
from contextlib import ExitStack
from pathlib import Path

import yaml
from pydantic import TypeAdapter, ValidationError

from datacreate.creation.plan import RunInputs, read_inputs
from datacreate.creation.recipe import sampling_of
from datacreate.creation.run_models import ClientFactory, clients_of, models_of
from datacreate.engines.request import Request
from datacreate.errors import RunError
from datacreate.formats.example import Json
from datacreate.formats.prompt_encoding import PromptEncoding
from datacreate.formats.schema_utils import object_schema
from datacreate.messages import Notify
from datacreate.prompts.generation import Message, describe_fields
from datacreate.runs.config import CreateConfig
from datacreate.settings import FrozenModel

_ATTEMPTS = 3
_MAX_TOKENS = 800
_POLL_SECONDS = 0.5
_SHOWN_EXAMPLES = 3  # formatting examples in the prompt

_USABLE_TEXT = re.compile(r"(?=.*\w)[^]\[{}\"\x00-\x1f\x7f-\x9f]{1,60}")
"""The name of a dimension or a value: a few words, without brackets and quotes of JSON and control characters."""


class _Proposal(FrozenModel):
    dimension: str
    values: list[str]


_PROPOSALS = TypeAdapter(list[_Proposal])

_TEXT: dict[str, Json] = {"type": "string"}
_VALUES: dict[str, Json] = {"type": "array", "items": _TEXT, "minItems": 4, "maxItems": 8}
_DIMENSION = object_schema({"dimension": _TEXT, "values": _VALUES})
_SCHEMA: dict[str, Json] = {"type": "array", "minItems": 3, "maxItems": 5, "items": _DIMENSION}


def suggest_attributes(config: CreateConfig, notify: Notify, client_factory: ClientFactory | None = None) -> str:
    """The YAML text of an attributes file that the model of `config` proposes, to be edited.

    Raises what `read_inputs` raises, CheckpointError if the model is not downloaded, EngineError if its server fails,
    RunError if it proposes nothing usable.
    """
    with tempfile.TemporaryDirectory(prefix="datacreate-attributes-") as folder, ExitStack() as stack:
        inputs = read_inputs(config.model_copy(update={"run_dir": Path(folder)}))
        config = inputs.config
        models = models_of(config, "off", notify, needs_embedder=False)
        clients = stack.enter_context(clients_of(models, config, client_factory, notify))
        clients.start(notify, [], [])
        messages, [client, *_] = _prompt(inputs), clients.generators
        sampling = sampling_of(config, models.generators[0], _MAX_TOKENS)
        for attempt in range(_ATTEMPTS):
            client.submit(Request(attempt, messages, json.dumps(_SCHEMA), sampling))
            while not (completions := client.poll(_POLL_SECONDS)):
                pass
            completion = completions[0]
            if dimensions := _usable_dimensions(completion.text, inputs):
                text = yaml.safe_dump(dimensions, sort_keys=False, allow_unicode=True, width=110)
                return f"# Proposed by {models.name}: edit, and give it to create as --attributes.\n{text}"
    raise RunError(
        f"{models.name} proposed no usable dimensions in {_ATTEMPTS} attempts (the last response: "
        f"{completion.error or completion.text[:100]!r}); try another --model"
    )


def _prompt(inputs: RunInputs) -> list[Message]:
    examples = inputs.spec.examples[:_SHOWN_EXAMPLES]
    if examples:
        lines = "\n".join(json.dumps(values, ensure_ascii=False) for values in examples)
        description = f"Here is an example of it:\n{lines}"
    else:
        description = f"Each is written as {describe_fields(PromptEncoding(inputs.inferred.format))}"
    task = f"The task: {inputs.spec.instruction}\n\n" if inputs.spec.instruction else ""
    user = (
        f"A data set has texts for training a language model. {description}\n\n{task}"
        "The data set must be varied. Name 3 to 5 dimensions in which its examples should differ. The first is the "
        "topic, with 8 concrete subjects that such texts can be about (for hotel reviews: breakfast, noise at night, "
        "staff, wifi, ...). The others are for example difficulty, style or speaker, with 4 to 8 values of a few words "
        "that exclude each other. The answer is no dimension."
    )
    return [
        {"role": "system", "content": "You design data for training language models."},
        {"role": "user", "content": user},
    ]


def _usable_dimensions(text: str, inputs: RunInputs) -> dict[str, Json]:
    """The dimensions in a completion, and their values.

    Without the field of the answer, names and values of many words, and dimensions with only one value.
    """
    try:
        proposals = _PROPOSALS.validate_json(text)
    except ValidationError:
        return {}
    answer = inputs.inferred.format.roles.answer
    used_names = {answer[-1].casefold()} if answer else set()
    dimensions: dict[str, Json] = {}
    for proposal in proposals:
        name = " ".join(proposal.dimension.split()).rstrip(":")
        texts = (" ".join(value.split()) for value in proposal.values)
        values = list({text.casefold(): text for text in texts if _USABLE_TEXT.fullmatch(text)}.values())
        is_usable = _USABLE_TEXT.fullmatch(name) and len(values) > 1
        if is_usable and name.casefold() not in used_names:
            used_names.add(name.casefold())
            dimensions[name] = values
    return dimensions
