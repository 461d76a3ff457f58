"""Makes a `RunPlan`: everything that is decided before the first request.

`read_inputs` checks settings and inputs before anything slow starts; then `make_plan` decides what depends on models.
It asks the servers for token counts only if the run directory does not have the limits that follow from them: to resume
a finished run, no server is started.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import cycle
from typing import NamedTuple

from datacreate.corpus import about_passages
from datacreate.corpus.passages import Passages, open_corpus
from datacreate.creation.decontamination_sets import find_decontamination_sets, with_names
from datacreate.creation.quotas import checked_label_ratio
from datacreate.creation.recipe import METHODS, Method, choose_strategy, sampling_of, verify_mode
from datacreate.creation.requests import DEFAULT_NUM_EXAMPLES, RequestSize, ResponseLimits, max_uncommitted_requests
from datacreate.creation.run_models import ModelClients, thinking_limit
from datacreate.engines.request import Sampling
from datacreate.engines.server_sources import RemoteServers
from datacreate.errors import RunMismatch, UsageError
from datacreate.filters.filter import DecontaminationSet
from datacreate.formats.example import Example, dotted
from datacreate.formats.infer import InferredFormat
from datacreate.formats.prompt_encoding import PromptEncoding
from datacreate.formats.task_format import TaskFormat
from datacreate.prompts.generation import RequestContent
from datacreate.prompts.label_scoring import check_letters
from datacreate.runs.attributes import Attributes, attribute_descriptions, read_attributes
from datacreate.runs.config import CreateConfig, GeneratorSpec, InputSpec, ResultOptions, RunSpec, VerificationSpec
from datacreate.runs.directory import RunDirectory, StoredConfig
from datacreate.runs.formatting_examples import examples_and_format
from datacreate.selection.strategies import Strategy, find_strategy
from datacreate.verification import VerifyMode
from datacreate.verification.label_noise import max_label_noise_rows

_MIN_REQUESTS_PER_CHAIN = 10
"""The minimum number of requests in each chain, if all examples are accepted. In shorter chains, most examples are
children of formatting examples."""


@dataclass(frozen=True)
class RunInputs:
    """The settings and inputs of a run, checked without a model or a server: what `read_inputs` returns."""

    config: CreateConfig  # as given, with the strategy of the recipe
    stored: StoredConfig | None  # config.json of the run in the directory; None for a new run
    inferred: InferredFormat
    verify: VerifyMode
    decontamination_sets: tuple[DecontaminationSet, ...]
    spec: InputSpec  # the part of `RunPlan.spec` that follows from these inputs
    passages: Passages | None = None  # the passages of the user's documents


@dataclass(frozen=True)
class RunPlan:
    """The decisions of a run before its first request, which never change: what `make_plan` returns.

    `spec` is the part that config.json stores; the other fields follow from it and from the passages of the run.
    """

    spec: RunSpec
    encoding: PromptEncoding
    passages: Passages | None = None  # the passages of the user's documents

    @cached_property
    def formatting_examples(self) -> tuple[Example, ...]:
        """The examples that the run starts from; () with an instruction only."""
        return tuple(map(Example, self.spec.examples))

    @cached_property
    def samplings(self) -> tuple[Sampling, ...]:
        """The sampling settings of each generator."""
        return tuple(Sampling(**generator.sampling) for generator in self.spec.generators)

    @property
    def method(self) -> Method:
        """How examples are created, as the recipe says."""
        return METHODS[self.spec.recipe]

    @cached_property
    def strategy(self) -> Strategy:
        """How the next parents are chosen."""
        return find_strategy(self.spec.strategy)

    @cached_property
    def _attribute_descriptions(self) -> dict[str, dict[str, str]]:
        return attribute_descriptions(self.spec.attributes, self.encoding.format)

    def content_of(self, request_number: int, attributes: Mapping[str, str]) -> RequestContent:
        """What the prompt of a request says beside the examples: instruction, shares, passage and attributes.

        `attributes` has the value of each dimension.
        """
        passage = self.passages.of_request(request_number).text if self.passages else None
        texts = {name: self._attribute_descriptions[name][value] for name, value in attributes.items()}
        return RequestContent(self.spec.instruction, self.spec.label_ratio, texts, passage)

    def text_of(self, parent: Example) -> str:
        """The text of a parent that embeddings compare; that of a parent without fields is the instruction."""
        if not parent.values:
            return self.spec.instruction or ""
        return self.encoding.format.embedding_text(parent.values)

    def warning(self, count: int) -> str:
        """A warning if a run of `count` examples is too small for its formatting examples; "" if not."""
        spec = self.spec
        used, examples = spec.num_chains or math.ceil(count / spec.num_examples), len(spec.examples)
        if used >= examples or spec.shots > 1 or spec.improves:
            return ""
        users = "chains" if spec.num_chains else "requests"
        return (
            f"{examples} formatting examples, but about {used} {users}: some examples may not be used; a larger "
            f"--count uses more of them, and --shots {min(examples, 3)} shows several in each prompt"
        )


def read_inputs(config: CreateConfig) -> RunInputs:
    """Read and check all inputs of a run that need no server; writes nothing. `create` and its dry run start with it.

    Raises ExampleError or FormatError for a wrong example or format, BenchmarkError if a benchmark is unknown or not
    imported, UsageError for other settings, RunError for the run directory, RunMismatch if its run is a different one.
    """
    directory = RunDirectory(config.run_dir)
    directory.check()
    stored = directory.read_config() if directory.exists else None
    stored_spec = stored.spec if stored else None
    config = config.model_copy(update={"strategy": choose_strategy(config, stored_spec)})
    if config.uses_remote_servers:
        RemoteServers(config.url)  # raises UsageError for a wrong --url
    examples, inferred = examples_and_format(config)
    if METHODS[config.recipe].needs_one_example and len(examples) > 1:
        option = "--examples 1" if config.benchmark else "one --example, and --example-limit 1"
        raise UsageError(
            f"--recipe {config.recipe} starts from one example, and there are {len(examples)}; give {option}"
        )
    label_ratio = checked_label_ratio(config, inferred.format)
    verify = verify_mode(config, inferred.format)
    if stored_spec and stored_spec.improves and not config.improves:
        raise RunMismatch(f"{directory.path} was made by `improve`; resume it with `datacreate improve RUN...`")
    passages = None
    if config.corpus:
        stored_corpus = stored_spec.corpus if stored_spec else None
        passages = open_corpus(config, config.seed, directory.passages_path, stored_corpus)
        inferred = _with_corpus(inferred, passages)
    stored_sets = stored_spec.compared_with if stored_spec else None
    sets = find_decontamination_sets(_decontamination_names(config, stored_spec), inferred.format, stored_sets)
    spec = InputSpec(
        **config.model_dump(include=set(ResultOptions.model_fields)),
        examples=tuple(dict(each.values) for each in examples),
        format=inferred.format.document(),
        instruction=config.instruction,
        benchmark=config.benchmark,
        filters=with_names(config, sets),
        compared_with=tuple(each.spec for each in sets),
        label_ratio=label_ratio,
        corpus=passages.spec(config) if passages else None,
        attributes=_attributes(config, inferred.format),
    )
    if stored:
        has_chains = find_strategy(config.strategy).queue == "chain"
        names = {"num_examples", "concurrency", *(["num_chains"] if has_chains else [])}
        sizes = config.model_dump(include=names, exclude_none=True)
        stored.check_same(dict(spec) | sizes, config.count, directory.path)
    return RunInputs(config, stored, inferred, verify, sets, spec, passages)


def _decontamination_names(config: CreateConfig, stored: RunSpec | None) -> tuple[str, ...]:
    """The names in --decontaminate; without it those of the existing run, or of the recipe."""
    if config.decontaminate is not None:
        return config.decontaminate
    if stored:
        return stored.filters.decontaminate or ()
    return METHODS[config.recipe].decontaminate


def _with_corpus(inferred: InferredFormat, passages: Passages) -> InferredFormat:
    """The format for examples about passages, with notes: how the passages are used, and which files have none."""
    task_format = about_passages(inferred.format)
    context = dotted(task_format.passage_field or ())
    use = f"as the {context} of each example" if task_format.context_is_given else "as source material"
    notes = (*inferred.notes, *passages.notes, f"{passages}; {use}")
    return replace(inferred, format=task_format, notes=notes)


def _attributes(config: CreateConfig, task_format: TaskFormat) -> Attributes:
    """The dimensions in the file of --attributes. Raises UsageError if one of them is the label."""
    if config.attributes is None:
        return ()
    dimensions, answer = read_attributes(config.attributes), task_format.roles.answer
    for name in (dimension.name for dimension in dimensions):
        if answer and task_format.labels and name.casefold() == answer[-1].casefold():
            raise UsageError(
                f"--attributes {config.attributes}: {name} is the label, and --label-ratio sets its shares; remove it"
            )
    return dimensions


def make_plan(inputs: RunInputs, clients: ModelClients) -> RunPlan:
    """Decide the settings that the user left open, given the models; those of an existing run stay as they are.

    The servers give token counts, slots and context length; for an existing run they are not asked. Raises
    PromptTooLong if not even one example fits, UsageError if the verifier cannot score the labels, RunMismatch if the
    run in the directory was made with other settings.
    """
    config, models, embedding_model = inputs.config, clients.models, clients.models.embedding_model
    encoding = PromptEncoding(inputs.inferred.format, METHODS[config.recipe].style)
    if any(map(encoding.has_placeholder, inputs.spec.examples)):
        encoding = replace(encoding, may_have_placeholders=True)
    stored = inputs.stored.spec if inputs.stored else None
    sizes = _stored_sizes(stored) if stored else _new_sizes(inputs, encoding, clients)
    # A stored run may have fewer generators: `check_same` refuses it below.
    samplings = [
        {name: value for name, value in vars(sampling_of(config, generator, *limits)).items() if value is not None}
        for generator, limits in zip(models.generators, cycle(sizes.limits))
    ]
    spec = RunSpec(
        **dict(inputs.spec),
        model=models.name,
        model_sha256=models.sha256,
        embedding_model=embedding_model.name if embedding_model else None,
        embedding_model_sha256=embedding_model.sha256 if embedding_model else None,
        num_examples=sizes.num_examples,
        concurrency=sizes.concurrency,
        num_chains=sizes.num_chains,
        sampling=samplings[0],
        verification=_verification(inputs, encoding, clients),
        mixture=tuple(
            GeneratorSpec(model=generator.name, sha256=generator.sha256, sampling=sampling)
            for generator, sampling in zip(models.generators, samplings, strict=True)
            if len(samplings) > 1
        ),
    )
    if inputs.stored:
        inputs.stored.check_same(dict(spec), config.count, config.run_dir)
    return RunPlan(spec, encoding, inputs.passages)


class _Sizes(NamedTuple):
    """The sizes of a run: fields of `RunSpec`, and the limits of each generator."""

    num_examples: int
    num_chains: int | None
    concurrency: int
    limits: list[ResponseLimits]


def _stored_sizes(spec: RunSpec) -> _Sizes:
    """The sizes of an existing run."""
    samplings = [generator.sampling for generator in spec.generators]
    limits = [ResponseLimits(sampling["max_tokens"], sampling.get("longest_text")) for sampling in samplings]
    return _Sizes(spec.num_examples, spec.num_chains, spec.concurrency, limits)


def _new_sizes(inputs: RunInputs, encoding: PromptEncoding, clients: ModelClients) -> _Sizes:
    """The sizes of a new run: as given, else as many examples and requests as models and count allow.

    Raises PromptTooLong if not even one example fits.
    """
    config, spec, passages = inputs.config, inputs.spec, inputs.passages
    descriptions = attribute_descriptions(spec.attributes, encoding.format)
    longest = {name: max(values.values(), key=len) for name, values in descriptions.items()}
    content = RequestContent(spec.instruction, attributes=longest, passage=passages.longest if passages else None)
    ranges = [value.words for dimension in spec.attributes for value in dimension.values if value.words]
    max_words = max((words[1] for words in ranges), default=0)
    request_sizes = [
        RequestSize(encoding, spec.examples, spec.shots, content, max_words, client, thinking_limit(config, generator))
        for client, generator in zip(clients.generators, clients.models.generators, strict=True)
    ]
    per_passage = passages.examples_per_request(config.count) if passages else DEFAULT_NUM_EXAMPLES
    max_examples, min_examples = config.num_examples or min(per_passage, DEFAULT_NUM_EXAMPLES), config.num_examples or 1
    num_examples = min(size.num_examples(max_examples, min_examples) for size in request_sizes)
    limits = [
        ResponseLimits(config.max_tokens) if config.max_tokens else size.limits(num_examples) for size in request_sizes
    ]
    max_uncommitted = max_uncommitted_requests(config.count, num_examples, clients.generators)
    num_chains = _new_num_chains(inputs, num_examples, max_uncommitted)
    concurrency = config.concurrency or num_chains or (1 if METHODS[config.recipe].is_sequential else max_uncommitted)
    return _Sizes(num_examples, num_chains, concurrency, limits)


def _new_num_chains(inputs: RunInputs, num_examples: int, max_uncommitted: int) -> int | None:
    """The number of chains of a new run: as given, else as many as can be long enough; None without chains.

    `num_examples` is that of a request, and `max_uncommitted` the maximum number of uncommitted requests.
    """
    config = inputs.config
    if find_strategy(config.strategy).queue != "chain":
        return None
    # A chain has at most one uncommitted request: more chains would only be shallower.
    max_deep_chains = config.count // (_MIN_REQUESTS_PER_CHAIN * num_examples)
    if METHODS[config.recipe].is_sequential:
        max_deep_chains = 1
    # One for each formatting example, as long as no more than half of the set are children of these.
    min_chains = min(len(inputs.spec.examples), config.count // (2 * num_examples))
    return config.num_chains or max(1, min(max_deep_chains, max_uncommitted), min_chains)


def _verification(inputs: RunInputs, encoding: PromptEncoding, clients: ModelClients) -> VerificationSpec | None:
    """The settings of the verification; None if labels are not verified."""
    config, mode, model, task_format = inputs.config, inputs.verify, clients.models.verifier, encoding.format
    if mode == "off" or model is None:
        return None
    stored = inputs.stored.spec.verification if inputs.stored else None
    can_fall_back = mode != "keep" and encoding.supports_pseudo_labels
    if inputs.stored:  # if it has no verification, `check_same` reports that later: no server is started for it
        scored_by_letter = stored is not None and stored.scored_by_letter
    else:
        scored_by_letter = clients.verifier.needs_letters(task_format.labels or ())
    if scored_by_letter:
        check_letters(task_format, f"--verify {mode}", model.name, "use another --verifier, or --verify off")
    return VerificationSpec(
        mode=mode,
        model=model.name,
        model_sha256=model.sha256,
        label_noise_check=config.label_noise_check if can_fall_back else None,
        label_noise_rows=stored.label_noise_rows if stored else max_label_noise_rows(config.count),
        scored_by_letter=scored_by_letter,
    )
