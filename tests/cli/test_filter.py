"""`datacreate filter` on runs and files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from datacreate.commands import filter_rows
from datacreate.engines.request import Completion, Request
from tests.benchmarks.conftest import imported
from tests.support.inprocess import run
from tests.support.making import COMMONSENSE, examples, make
from tests.support.scripted import ScriptedClient

Row = dict[str, Any]


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATACREATE_HOME", str(tmp_path / "home"))


def claim(text: str, label: bool = True) -> Row:
    return {"question": text, "context": None, "options": ["True", "False"], "label": label}


def different(number: int) -> list[Row]:
    """Rows that share no word."""
    return [claim(" ".join(f"w{i}q{k}" for k in range(10)), i % 3 > 0) for i in range(number)]


def write(path: Path, rows: list[Row]) -> Path:
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_bytes(text.encode("utf-8"))
    return path


def read(path: Path) -> list[Row]:
    return [json.loads(line) for line in path.read_bytes().split(b"\n") if line]


def filtered(*arguments: object) -> dict[str, Any]:
    """What `--json` prints."""
    ended = run("filter", *arguments, "--json")
    assert ended.code == 0, ended.err
    report: dict[str, Any] = json.loads(ended.out)
    return report


def error_of(*arguments: object) -> str:
    """The one-line message of a command that fails."""
    ended = run("filter", *arguments)
    assert ended.code in (1, 2)
    return ended.failure


def rejected(report: dict[str, Any]) -> dict[str, int]:
    return {one["name"]: one["rejected"] for one in report["filters"]}


def test_each_planted_row_is_dropped_by_its_filter(tmp_path: Path) -> None:
    rows = different(40)
    test_claim = "Every tenth lighthouse on this coast was once painted red by its keeper's daughters."
    imported(tmp_path / "files", "creak", {"test": [claim(test_claim)]})
    planted = [
        claim(rows[3]["question"].upper() + "."),
        claim(rows[5]["question"] + " more"),
        claim("It is said that " + test_claim.replace("daughters", "sons")),
    ]
    file = write(tmp_path / "rows.jsonl", rows[:20] + planted + rows[20:])
    out, rejects = tmp_path / "new" / "out.jsonl", tmp_path / "rejects.jsonl"
    report = filtered(file, "--out", out, "--rejects", rejects)
    assert rejected(report) == {"exact": 1, "near": 1, "semantic": 0, "contamination": 1}
    assert [one["on"] for one in report["filters"]] == [True, True, False, True]
    assert (report["rows"], report["kept"], report["invalid"]) == (43, 40, 0)
    assert read(out) == rows
    found = read(rejects)
    assert [one["reason"] for one in found] == ["duplicate", "near_duplicate", "contaminated"]
    assert [one["row"] for one in found] == planted
    assert [one["line"] for one in found] == [21, 22, 23]
    assert found[0]["detail"] == "repeats line 4"
    assert found[1]["detail"].startswith("similar to line 6, Jaccard 0.")
    assert found[2]["detail"].startswith("creak test row 1 (Every tenth lighthouse")
    assert report["filters"][3]["settings"]["decontaminate"] == ["creak"]
    [held] = report["compared_with"]
    assert (held["name"], held["split"], len(held["digest"])) == ("creak", "test", 64)
    assert report["labels"] == {"before": {"True": 29, "False": 14}, "after": {"True": 26, "False": 14}}
    label = rows[0]["label"]
    file = write(tmp_path / "rows.jsonl", [rows[0] | {"label": each} for each in (label, not label, label, not label)])
    assert filtered(file)["conflicting_labels"] == 2
    fields = {"text": {"type": "string"}, "label": {"enum": ["", "spam"]}}
    roles = {"inputs": ["text"], "answer": "label"}
    (tmp_path / "format.json").write_text(json.dumps({"properties": fields, "x-datacreate": {"roles": roles}}))
    write(file, [{"text": "Buy now!", "label": each} for each in ("", "spam", "")])
    assert filtered(file, "--format", tmp_path / "format.json")["conflicting_labels"] == 1


def test_each_filter_can_be_switched_off(tmp_path: Path) -> None:
    rows = different(5)
    imported(tmp_path / "files", "creak", {"test": [rows[4]]})
    file = write(tmp_path / "rows.jsonl", [*rows, rows[0], claim(rows[1]["question"] + " more")])
    every = {"exact": 1, "near": 1, "semantic": 0, "contamination": 1}
    assert rejected(filtered(file)) == every
    assert rejected(filtered(file, "--near", "off")) == every | {"near": 0}
    assert rejected(filtered(file, "--no-exact")) == every | {"exact": 0, "near": 2}
    assert rejected(filtered(file, "--decontaminate", "none")) == every | {"contamination": 0}
    assert rejected(filtered(file, "--decontaminate", "creak", "--decontaminate", "creak")) == every
    off = filtered(file, "--decontaminate", "none", "--no-exact", "--near", "off")
    assert (off["kept"], [one["on"] for one in off["filters"]]) == (7, [False] * 4)


def test_without_out_it_prints_a_table_and_writes_nothing(tmp_path: Path) -> None:
    rows = different(5)
    other = {**rows[0], "label": not rows[0]["label"]}
    ended = run("filter", write(tmp_path / "rows.jsonl", [*rows, other, {"question": "no label"}]))
    assert (ended.code, ended.err) == (0, "")
    names = [line.split()[0] for line in ended.out.splitlines()]
    assert names == ["filter", "invalid", "exact", "near", "semantic", "contamination", "kept", "labels:", "rows"]
    assert "first: line 7" in ended.out
    assert "kept 5 of 7 rows (71.4%)" in ended.out
    assert "labels: True 4 -> 3, False 2 -> 2" in ended.out
    assert ended.out.endswith("\nrows whose label is not that of the first row with these inputs: 1\n")
    assert [path.name for path in tmp_path.iterdir()] == ["rows.jsonl"]


def test_labels_and_ranges_can_be_given(tmp_path: Path) -> None:
    rows: list[Row] = [
        {"text": f"note{i} " + " ".join(f"n{i}q{k}" for k in range(5)), "stars": i % 5 + 1} for i in range(10)
    ]
    file = write(tmp_path / "rows.jsonl", [*rows, {**rows[0], "stars": 9}])
    report = filtered(file, "--range", "stars=1..5")
    assert (report["rows"], report["first_invalid"]) == (11, "line 11: stars: maximum 5")
    assert report["labels"]["after"] == {str(stars): 2 for stars in range(1, 6)}
    report = filtered(file, "--labels", "stars=1,2,3,4,5")
    assert (report["rows"], report["invalid"]) == (11, 1)


def test_a_run_is_read_from_its_log(tmp_path: Path, model: str) -> None:
    folder, out = tmp_path / "run", tmp_path / "out.jsonl"
    make(folder, model, count=25, verify="off")
    report = filtered(folder, "--near", "off", "--out", out)
    assert (report["format"], report["rows"], report["kept"]) == ("multiple_choice", 25, 25)
    assert read(out) == examples(folder)
    assert "would overwrite an input" in error_of(folder, "--out", folder / "train.jsonl")
    for name in ("train", "log", "passages"):
        file_of_run = folder / f"{name}.jsonl"
        assert "would overwrite a file of a run" in error_of(out, "--decontaminate", folder, "--out", file_of_run)
    assert filtered(folder, "--out", folder / "filtered.jsonl")["kept"] == 25, "another file beside them"
    assert "a run directory has a format" in error_of(folder, "--format", "multiple_choice")
    assert "not a run directory" in error_of(tmp_path)


def test_invalid_lines_are_counted_and_written_to_the_rejects(tmp_path: Path) -> None:
    good = different(4)
    lines = [json.dumps(good[0]), "", "{broken", json.dumps({**good[1], "label": "maybe"})]
    lines += [json.dumps(claim("beep \x07")), json.dumps(claim("?!")), *map(json.dumps, good[1:])]
    file = tmp_path / "rows.jsonl"
    file.write_text("\n".join(lines))
    out, rejects = tmp_path / "out.jsonl", tmp_path / "rejects.jsonl"
    report = filtered(file, "--out", out, "--rejects", rejects)
    assert (report["rows"], report["invalid"], report["kept"]) == (8, 4, 4)
    assert report["first_invalid"].startswith("line 3: not JSON at column 2")
    assert read(out) == good
    assert [(one["line"], one["reason"]) for one in read(rejects)] == [
        (3, "invalid_json"),
        (4, "schema_violation"),
        (5, "invalid_characters"),
        (6, "blank"),
    ]
    file.write_text("\n".join(lines[:-1]))
    message = "4 of 7 rows are not valid in the format yes_no_closed_book, the first is line 3: not JSON"
    assert message in error_of(file, "--out", out)
    assert read(out) == good


def test_a_row_without_the_answer_is_invalid_also_if_the_format_does_not_require_it(tmp_path: Path) -> None:
    fields = {"text": {"type": "string"}, "label": {"enum": ["a", "b"]}}
    document = {"type": "object", "properties": fields, "x-datacreate": {"roles": {"answer": "label"}}}
    write(tmp_path / "format.json", [document])
    rows = write(tmp_path / "rows.jsonl", [{"text": "One."}, {"text": "Two.", "label": "a"}])
    report = filtered(rows, "--format", tmp_path / "format.json")
    assert (report["invalid"], report["kept"]) == (1, 1)
    assert report["first_invalid"] == "line 1: the field label is missing"


def test_rows_of_a_table_with_another_number_of_cells_are_invalid(tmp_path: Path) -> None:
    file, out, rejects = tmp_path / "rows.csv", tmp_path / "out.jsonl", tmp_path / "rejects.jsonl"
    good = ["one red apple,a", "two green pears,b", '"a, b and c",a', "the last of them,b"]
    more = '"a text\nof two lines",a,"b"'
    file.write_text("\n".join(["text,label", *good[:2], more, "", "no label", *good[2:], ""]))
    report = filtered(file, "--out", out, "--rejects", rejects)
    assert (report["rows"], report["invalid"], report["kept"]) == (6, 2, 4)
    assert [row["text"] for row in read(out)][2:] == ["a, b and c", "the last of them"]
    first, second = read(rejects)
    why = "3 cells, but 2 columns in the first line (quote cells that contain ',')"
    assert first == {"reason": "invalid_json", "detail": why, "line": 4, "row": more}
    assert (second["line"], second["row"]) == (7, "no label")
    assert report["first_invalid"] == f"line 4: {why}"
    file.write_text("\n".join(["text,label", more, *good[:1]]))
    ended = run("preview", "--example", file)
    assert (ended.code, ended.out) == (2, "")
    assert f"{file}: line 2: {why}; repair the row" in ended.failure
    file.write_text("\n".join(["text,label", *good, '"open,a', *good]))  # nobody knows where the next row starts
    assert f"{file}: line 6: ',' expected after '\"'; repair the line" in error_of(file)


def test_terminal_escapes_in_field_names_are_not_printed(tmp_path: Path) -> None:
    name = "\x1b[31mred\u202e"
    good = [{"text": row["question"], name: "a", "\u202etext": "b"} for row in different(3)]
    bad = {**good[0], name: "c\x9b"}
    shown = run("filter", write(tmp_path / "rows.jsonl", [*good, bad]), "--labels", f"{name}=a,b")
    assert shown.code == 0
    assert "[31mred" in shown.out
    failed = run("filter", write(tmp_path / "bad.jsonl", [bad]), "--labels", "\u202etext=a,c")
    assert failed.code == 2
    for text in (shown.out, shown.err, failed.err):
        assert not {"\x1b", "\x9b", "\u202e"} & set(text)


ODD = [
    "Emoji 😀👩‍👩‍👧 and more",
    "هل يعيش الجمل في الصحراء؟ ‏rtl‏",
    "one\u2028two\u2029three\x85four",
    "long " + "x" * 50_000,
    "words " + " ".join(f"k{i}" for i in range(8_000)),
    "<b>bold</b> & [link](javascript:1) </script>",
    "tab\tand\nline\r\nbreaks",
    "水在多少度结冰",
]


@pytest.mark.parametrize("ensure_ascii", [True, False])
def test_kept_lines_are_written_unchanged(tmp_path: Path, ensure_ascii: bool) -> None:
    imported(tmp_path / "files", "boolq_open", {"test": [{**claim("is it"), "context": "It is."}]})
    lines = [json.dumps(claim(text), ensure_ascii=ensure_ascii) for text in ODD]
    file, out = tmp_path / "rows.jsonl", tmp_path / "out.jsonl"
    file.write_bytes("\n".join(lines).encode())
    assert filtered(file, "--out", out)["kept"] == len(ODD)
    assert out.read_bytes() == "".join(line + "\n" for line in lines).encode()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("--near 0", "--near 0: give a"),
        ("--near nan", "--near nan: give a"),
        ("--semantic 1.01", "--semantic 1.01: give a"),
        ("--semantic much", "--semantic much: give a"),
        ("--decontaminate none --decontaminate creak", "cannot be combined"),
        ("--ngram 1", "--ngram 1: give a number greater than or equal to 2"),
        ("--semantic 0.9 --embedding-model no-such-model", "unknown"),
        ("--labels mood", "write it as NAME=VALUE"),
        ("--url http://a:1", "--url only applies to --verifier"),
        ("--engine vllm", "--engine only applies to --verifier"),
    ],
)
def test_errors_are_one_line(tmp_path: Path, words: str, says: str) -> None:
    file = write(tmp_path / "rows.jsonl", [claim("All are true here")])
    assert says in error_of(file, *words.split())


def test_outputs_are_written_whole_or_not_at_all_and_through_links(tmp_path: Path) -> None:
    file = write(tmp_path / "rows.jsonl", different(3))
    before = file.read_bytes()
    for out in (file, tmp_path / "." / "rows.jsonl"):
        assert "would overwrite an input" in error_of(file, "--out", out)
        assert "would overwrite an input" in error_of(file, "--rejects", out)
    twice = tmp_path / "o.jsonl"
    assert "give another file" in error_of(file, "--out", twice, "--rejects", twice)
    out = write(tmp_path / "out.jsonl", [COMMONSENSE])
    invalid = write(tmp_path / "invalid.jsonl", [claim("All are true here"), *[{"question": "no label"}] * 2])
    assert "2 of 3 rows are not valid" in error_of(invalid, "--format", "yes_no_closed_book", "--out", out)
    assert read(out) == [COMMONSENSE]
    assert "would overwrite an input" in error_of(file, "--decontaminate", out, "--out", out)
    assert file.read_bytes() == before
    names = ["invalid.jsonl", "out.jsonl", "rows.jsonl"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    failed = run("filter", file, "--out", out / "inside.jsonl")
    assert (failed.code, failed.out) == (2, "")
    assert f"{out / 'inside.jsonl'}: cannot be written (" in failed.err
    assert ".part" not in failed.err
    link = tmp_path / "link.jsonl"
    link.symlink_to("out.jsonl")
    filtered(file, "--out", link)
    assert (link.is_symlink(), read(out)) == (True, different(3))


@pytest.mark.parametrize("name", ["a.csv", "A.TSV", "a.json", "a.parquet", "a.jsonl.gz", "notes.md", "a"])
@pytest.mark.parametrize("flag", ["--out", "--rejects"])
def test_only_files_with_the_name_of_json_lines_are_written(tmp_path: Path, name: str, flag: str) -> None:
    path = tmp_path / name
    path.write_text("precious")
    link = tmp_path / "link.jsonl"
    link.symlink_to(path)
    file = write(tmp_path / "rows.jsonl", different(3))
    for out in (path, link):
        says = f"{flag} {out}: rows are written as JSONL; give a name that ends in .jsonl"
        assert says in error_of(file, flag, out)
    assert path.read_text() == "precious"


# A verifier


def knowing(request: Request) -> Completion:
    """Takes texts that name a fish for true and others for false; has no scores for riddles."""
    text = request.messages[-1]["content"]
    scores = tuple(0.9 if choice == str("fish" in text) else 0.1 for choice in request.choices)
    return Completion(request.id, "", "stop", 20, 0, None, () if "riddle" in text else scores)


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> ScriptedClient:
    client = ScriptedClient(knowing, scorer=knowing)
    monkeypatch.setattr(filter_rows, "make_client", lambda *_, **__: client)
    return client


def test_rows_with_improbable_labels_are_dropped(tmp_path: Path, model: str, client: ScriptedClient) -> None:
    claims = [claim("A trout is a fish")] * 2 + [claim("A whale is a fish", False)]
    claims += [claim("A stone can swim", False), claim("Is a riddle a question")]
    source, rejects = write(tmp_path / "rows.jsonl", claims), tmp_path / "rejects.jsonl"
    found = filtered(source, "--rejects", rejects, "--verifier", model)
    dropped = read(rejects)
    assert [(one["line"], one["reason"], one["detail"]) for one in dropped[1:]] == [
        (3, "rejected_by_verifier", "label False; the verifier: True 0.90, False 0.10"),
        (5, "rejected_by_verifier", "the verifier returned no scores"),
    ]
    assert (found["kept"], dropped[0]["reason"]) == (2, "duplicate")
    verifier = found["filters"][-1]
    assert verifier["settings"] == {"verifier": "scripted-model"}
    assert (verifier["name"], verifier["rejected"]) == ("verifier", 2)
    assert client.closed


def test_the_verifiers_bias_to_a_label_is_removed(tmp_path: Path, model: str, client: ScriptedClient) -> None:
    """It finds "True" more probable for every claim, and a little more so for the true ones."""

    def biased(request: Request) -> Completion:
        true = 0.8 if "fish" in request.messages[-1]["content"] else 0.7
        scores = tuple(true if choice == "True" else 1 - true for choice in request.choices)
        return Completion(request.id, "", "stop", 20, 0, None, scores)

    client.scorer = biased
    claims = [claim(f"Claim {n} is a {word}", word == "fish") for n in range(15) for word in ("fish", "stone")]
    wrong = [claim("The last claim is a stone", True)]
    # Sorted by label: the sample is taken from the whole file.
    source = write(tmp_path / "rows.jsonl", sorted([*claims, *wrong], key=lambda row: bool(row["label"])))
    found = filtered(source, "--verifier", model)
    assert found["labels"]["after"] == {"True": 15, "False": 15}
    assert len({request.messages[-1]["content"] for request in client.history}) == 31


def test_a_verifier_needs_a_closed_set_of_answers(tmp_path: Path, model: str, client: ScriptedClient) -> None:
    source = write(tmp_path / "rows.jsonl", [{"question": "Who?", "answer": "nobody in particular"}])
    assert "--labels FIELD=a,b,c" in error_of(source, "--verifier", model)
