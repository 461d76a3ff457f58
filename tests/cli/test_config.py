"""Options from files and from the environment, and `--dry-run`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from datacreate.cli.create import create
from datacreate.cli.train import train
from datacreate.commands.filter_rows import FilterConfig
from datacreate.commands.improve import ImproveConfig
from datacreate.errors import UsageError
from datacreate.finetuning.hyperparameters import Hyperparameters
from datacreate.finetuning.train import TrainConfig
from datacreate.runs.config import CreateConfig
from datacreate.settings import Settings, as_arguments
from tests.support.inprocess import run
from tests.support.making import NLI

OPTIONS: dict[str, Any] = {
    "count": 6,
    "labels": {"label": ["entailment", "neutral", "contradiction"]},
    "label-ratio": {"entailment": 0.5, "neutral": 0.5, "contradiction": 0.0},
    "strategy": "random",
    "concurrency": 2,
    "temperature": 0.7,
    "near": 0.9,
    "decontaminate_near": False,  # a bare `off` in YAML
    "exact": False,
    "decontaminate": [],
    "chat-template-kwargs": {"enable_thinking": False},
}
TYPED = (
    "--count 6 --labels label=entailment,neutral,contradiction --strategy random --concurrency 2 --no-exact "
    "--label-ratio entailment=0.5,neutral=0.5,contradiction=0 --temperature 0.7 --near 0.9 "
    "--decontaminate-near off --decontaminate none --chat-template-kwargs enable_thinking=false"
).split()


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("secrets.token_hex", lambda _: "0123456789abcdef")  # the id of a run
    Path("nli.json").write_text(json.dumps(NLI))
    return tmp_path


def write(name: str, **options: Any) -> str:
    Path(name).write_text(yaml.safe_dump(options))
    return name


def test_a_file_equals_the_same_options_typed(model: str) -> None:
    file = write("run.yaml", example="nli.json", model=model, **OPTIONS)
    assert run("create", "--config", file).code == 0
    typed = run("create", "--example", "nli.json", "--model", model, *TYPED, "--run-dir", "typed")
    assert typed.code == 0, typed.err
    by_file = Path("runs", "nli-random")  # the default of --run-dir
    assert (by_file / "config.json").read_bytes() == Path("typed", "config.json").read_bytes()
    assert (by_file / "train.jsonl").read_bytes() == Path("typed", "train.jsonl").read_bytes()


def test_the_command_line_wins_over_the_environment_and_that_over_the_file(
    model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write("run.yaml", example="nli.json", model=model, count=3, seed=1, top_k=1)
    monkeypatch.setenv("DATACREATE_CREATE_SEED", "2")
    monkeypatch.setenv("DATACREATE_CREATE_TOP_K", "2")
    ended = run("create", "--config", file, "--top-k", "3", "--dry-run", "--json")
    assert ended.code == 0, ended.err
    config = json.loads(ended.out)["config"]
    assert [config[name] for name in ("count", "seed", "top-k")] == [3, 2, 3]


def test_a_dry_run_without_the_model_says_how_the_example_is_understood() -> None:
    ended = run("create", *TYPED, "--example", "nli.json", "--model", "qwen3-8b", "--dry-run")
    assert "qwen3-8b is not downloaded" in ended.failure
    assert (ended.code, ended.out) == (1, "")
    assert "labels: entailment, neutral, contradiction" in ended.lines[0]


def test_dry_run_writes_nothing_and_prints_a_config_that_can_be_given_back(model: str) -> None:
    before = sorted(Path().rglob("*"))
    command = ("create", "--example", "nli.json", "--model", model, *TYPED)
    shown = run(*command, "--dry-run")
    assert shown.code == 0, shown.err
    assert "run dir          runs/nli-random\nstate            new\n" in shown.out
    assert "labels: entailment, neutral, contradiction" in shown.out
    document = json.loads(run(*command, "--dry-run", "--json").out)
    assert sorted(Path().rglob("*")) == before
    assert document["plan"]["state"] == "new"
    assert [document["config"][name] for name in ("strategy", "verify")] == ["random", "off"]
    Path("saved.json").write_text(json.dumps(document))
    assert run("create", "--config", "saved.json").code == 0
    assert run(*command, "--run-dir", "typed").code == 0
    config = Path("typed", "config.json").read_bytes()
    assert Path("runs", "nli-random", "config.json").read_bytes() == config
    again = json.loads(run(*command, "--dry-run", "--json").out)["plan"]
    assert (again["state"], again["accepted"], again["concurrency"]) == ("finished", 6, 2)
    other = run(*command, "--seed", "7", "--dry-run")
    assert (other.code, "another --seed: 42 stored, 7 requested" in other.failure) == (1, True)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("temprature: 1", "no option 'temprature' (did you mean temperature?)"),
        ("config: other.yaml", "no option 'config'"),
        ("json: yes", "json: give true or false"),
        ("- seed", "write it as `option: value`"),
        ("seed: 1\na: [", "--config run.yaml: not valid YAML at line 2, column 5; put texts with "),
        ("seed: many", "--config run.yaml: --seed many: give a valid integer"),
        ("seed: {a: 1}", "seed: give one value, not a mapping"),
        ("seed: 1\nseed: 2", "line 2: the key seed is given twice"),
        ("top_k: 1\ntop-k: 2", "top-k: given twice"),
        ("labels: {label: [a], label: [b]}", "line 1: the key label is given twice"),
        ("labels: [label=a,b]", "labels: write it as a mapping: `labels: {NAME: VALUE}`"),
        ("labels: {label: {a: 1}}", "labels: nested too deeply"),
        ("labels: [['label=a', b]]", "labels: nested too deeply"),
        ("corpus: [[]]", "corpus: nested too deeply"),
        ("labels: {label: null}", "labels: give a value, not null"),
        ("labels: {label: ['yes, surely', 'no']}", "have a comma; write a label with one as `label: [FIELD=VALUE]`"),
        ("labels: {label: [yes, null]}", "give a value, not null"),
        ('example: "a\\0b"', "example: give a value, not null"),
        ("example: &a [*a]", "nested too deeply"),
        ("labels: " + "[" * 1500, "nested too deeply"),
    ],
)
def test_a_wrong_file_is_one_line(model: str, text: str, words: str) -> None:
    Path("run.yaml").write_text(text)
    ended = run("create", "--config", "run.yaml", "--example", "nli.json", "--model", model, "--count", "3")
    assert (ended.code, words in ended.failure) == (2, True), ended.err
    assert not Path("runs").exists()
    absent = run("create", "--config", "none.yaml")
    assert "--config none.yaml: no such file" in absent.failure


def test_a_wrong_value_of_a_variable_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATACREATE_CREATE_COUNT", "ten")
    command = ["create", "--example", "nli.json"]
    assert run(*command).failure.endswith(" $DATACREATE_CREATE_COUNT: --count ten: give a valid integer")
    assert run(*command, "--count", "six").failure.endswith(" --count six: give a valid integer")


def test_a_label_with_a_comma_can_have_a_share(model: str) -> None:
    shares = {"Arts, and more": 0.75, "Politics, US": 0.25}
    Path("example.json").write_text(json.dumps({"text": "Some text.", "section": "Politics, US"}))
    labels = {"label": [f"section={label}" for label in shares]}
    file = write("run.yaml", example="example.json", model=model, count=4, **labels, **{"label-ratio": shares})
    ended = run("create", "--config", file, "--dry-run", "--json")
    assert json.loads(ended.out)["config"]["label-ratio"] == shares, ended.err
    typed = ("--label-ratio", "Arts, and more=0.75,Politics, US=0.25")
    assert run("create", "--config", file, *typed, "--dry-run", "--json").out == ended.out


def test_an_empty_list_in_a_file_sets_nothing(model: str) -> None:
    Path("example.json").write_text(json.dumps({"text": "Some text.", "label": "no"}))
    Path("run.yaml").write_text("count: 2\nexample: []\ncorpus: []\ndecontaminate: []\n")
    assert "give --example FILE" in run("create", "--config", "run.yaml", "--dry-run").failure
    given = ("--example", "example.json", "--model", model)
    planned = run("create", "--config", "run.yaml", *given, "--dry-run", "--json")
    assert json.loads(planned.out)["config"]["decontaminate"] == []


def test_words_and_numbers_of_a_file_stay_as_they_are_written(model: str) -> None:
    Path("example.json").write_text(json.dumps({"text": "Some text.", "label": "no"}))
    Path("run.yaml").write_text("count: 2\nlabels:\n  label: [yes, no, on, Off, 1:30, 007, 1.50, 2024-01-01]\n")
    ended = run("create", "--config", "run.yaml", "--example", "example.json", "--model", model, "--dry-run")
    assert "labels: yes, no, on, Off, 1:30, 007, 1.50, 2024-01-01" in ended.out, ended.err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--seed", "1", "--seed", "2"], "--seed: given 2 times; give it once"),
        (["--exact", "--no-exact"], "--exact: given 2 times"),
        (["--labels", "label=a,b", "--labels", "label=c"], "--labels label=a,b,label=c: label is given twice"),
        (["--label-ratio", "a=0.5", "--label-ratio", "a=1"], "a is given twice"),
    ],
)
def test_an_option_is_never_silently_ignored(model: str, words: list[str], says: str) -> None:
    example = [] if "--example" in words else ["--example", "nli.json"]
    ended = run("create", *example, *words, "--count", 3, "--model", model)
    assert (ended.code, says in ended.failure) == (2, True), ended.err


def test_variables_set_options_by_their_flag_and_those_without_effect_are_named(
    model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("CREATE_JSON", "CREATE_DRY_RUN", "CREATE_RANGES", "TRAIN_SEED", "HOEM"):
        monkeypatch.setenv(f"DATACREATE_{name}", "1")
    monkeypatch.setenv("DATACREATE_CREATE_CHAT_TEMPLATE_KWARGS", "a=1\r\nb=2\n")
    monkeypatch.setenv("DATACREATE_COMMAND", "srun datacreate")  # scripts/datacreate.sbatch reads it
    ended = run("create", "--example", "nli.json", "--count", 3, "--model", model)
    assert json.loads(ended.out)["config"]["chat-template-kwargs"] == {"a": 1, "b": 2}
    assert ended.lines == [
        f"warning: $DATACREATE_{name} has no effect: no such option or variable" for name in ("CREATE_RANGES", "HOEM")
    ]


def test_arguments_are_read_back_as_the_settings_they_were_made_of(folder: Path) -> None:
    settings: list[dict[str, Any]] = [
        {"url": ("http://a:1", "http://b:2"), "servers": 2, "wait": 9.0},
        {"near": 0.7, "label_noise_check": None, "decontaminate": (), "decontaminate_near": None},
        {"enforce_eager": False, "replicas": 2, "trust_remote_code": True, "exact": False},
        {"label_ratio": {"yes": 0.7, "no": 0.3}, "chat_template_kwargs": {"a": False, "b": "so many"}},
    ]
    always = {"example": Path("nli.json"), "count": 1, "run_dir": folder}
    for given in settings:
        words = as_arguments(CreateConfig, {**always, **given})
        params = create.make_context("create", list(words)).params
        names = {name: value for name, value in params.items() if name in CreateConfig.model_fields}
        read = {name: value for name, value in names.items() if value not in (None, ())}
        assert CreateConfig.of(**read) == CreateConfig.of(**always, **given)


@pytest.mark.parametrize("settings", [CreateConfig, FilterConfig, ImproveConfig, TrainConfig, Hyperparameters])
def test_settings_have_the_names_of_their_options(settings: type[Settings]) -> None:
    names = {flag.removeprefix("--").replace("-", "_"): name for name, flag in settings.flags().items()}
    other_names = {option: name for option, name in names.items() if option != name}
    assert other_names == ({"recipe": "name"} if settings is Hyperparameters else {})  # plans have `recipe`, too


def test_train_takes_options_of_a_file_too() -> None:
    file = write("train.yaml", sources=["a.jsonl", "b"], learning_rates=[1e-5, 2e-5], lora=True, epochs=2)
    params = train.make_context("train", ["--config", file, "--epochs", "3"]).params
    shown = {name: params[name] for name in ("sources", "learning_rates", "lora", "epochs", "seeds")}
    expected = {"sources": ("a.jsonl", "b"), "learning_rates": ("1.0e-05", "2.0e-05"), "lora": True}
    assert shown == {**expected, "epochs": "3", "seeds": ()}


def test_python_proposes_the_name_of_an_unknown_setting() -> None:
    with pytest.raises(UsageError, match=r"^urls: no such setting \(did you mean url"):
        CreateConfig.of(example="mine.json", count=2, urls=["http://a:1"])


def test_python_takes_lists_of_labels() -> None:
    config = CreateConfig.of(example="mine.json", count=2, labels={"label": ["yes", "no"]})
    assert config.labels == {"label": "yes,no"}
    with pytest.raises(UsageError, match="no value of a list may have a comma"):
        CreateConfig.of(example="mine.json", count=2, labels={"label": ["yes, surely", "no"]})


@pytest.mark.parametrize(
    ("config", "flag", "value"),
    [
        (CreateConfig, "adapter", ""),
        (CreateConfig, "attributes", ""),
        (CreateConfig, "run_dir", ""),
        (CreateConfig, "example", ["mine.json", ""]),
        (TrainConfig, "out", ""),
        (ImproveConfig, "runs", ["run", ""]),
    ],
)
def test_an_empty_path_from_python_is_not_the_current_folder(config: type[Settings], flag: str, value: Any) -> None:
    required: dict[type[Settings], dict[str, Any]] = {
        CreateConfig: {"example": "mine.json", "count": 2},
        TrainConfig: {"sources": ["run"]},
        ImproveConfig: {"count": 2, "encoder": "reader"},
    }
    with pytest.raises(UsageError, match=f"^--{flag.replace('_', '-')}.*: the path is empty; give a file or a folder$"):
        config.of(**required[config] | {flag: value})
