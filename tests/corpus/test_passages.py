"""Documents: what is read, how it is cut, what is left out."""

from __future__ import annotations

import gzip
import json
import os
import sys
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pyarrow import parquet

from datacreate.corpus import CorpusOptions
from datacreate.corpus.documents import Document, cleaned
from datacreate.corpus.passages import Passage, Passages, count_tokens, open_corpus, split
from datacreate.errors import RunError, RunMismatch, UsageError
from tests.corpus.texts import passage, pdf_of, word_document

TEXTS = st.text(st.sampled_from("ab .!?\n\r\t#-*`>|\u00e9\u4e2d\U0001f600\x0c\x85\ufffd"), max_size=600)


def opened(path: Path, *files: object, **options: object) -> Passages:
    return open_corpus(CorpusOptions.of(corpus=tuple(map(str, files)), **options), 42, path / "passages.jsonl", None)


def all_of(passages: Passages) -> list[Passage]:
    return [passages[number] for number in range(len(passages))]


@given(text=TEXTS, is_markdown=st.booleans(), tokens=st.integers(16, 40))
@example(text="    indented code\n\n# A\n\n" + "word " * 90, is_markdown=True, tokens=16)
def test_every_passage_is_a_part_of_its_document(text: str, is_markdown: bool, tokens: int) -> None:
    document = Document(Path("a.md"), None, cleaned(text), is_markdown)
    end = 0
    for found in split(document, tokens):
        assert found.text == document.text[found.offset : found.offset + len(found.text)]
        assert found.text == found.text.strip() != ""
        assert found.offset >= end
        assert count_tokens(found.text) <= tokens
        end = found.offset + len(found.text)
    left = "".join(document.text.split())
    assert "".join("".join(found.text.split()) for found in split(document, tokens)) == left


def test_text_is_cut_at_headings_and_sentences(tmp_path: Path) -> None:
    first, second = passage(1), passage(2)
    (tmp_path / "a.md").write_text(f"# One\n\n{first}\n\n# Two\n\n{second}\n")
    (tmp_path / "b.txt").write_text(f"{passage(3)} {passage(4)} {passage(5)}")
    found = [each.text for each in all_of(opened(tmp_path, tmp_path))]
    assert found[:2] == [f"# One\n\n{first}", f"# Two\n\n{second}"]
    assert len(found) > 2
    assert all(text.endswith(".") for text in found)


def test_every_kind_of_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbf" + passage(1).replace(". ", ".\r\n").encode())
    (tmp_path / "b.md").write_text(passage(2))
    (tmp_path / "c.html").write_text(
        f"<html><head><style>p {{}}</style></head><body><nav><a href='/'>Home</a><nav>Menu</nav></nav>"
        f"<p>{passage(3)}</p><footer>Imprint</footer></body></html>"
    )
    (tmp_path / "d.pdf").write_bytes(pdf_of(passage(4)))
    (tmp_path / "e.docx").write_bytes(word_document(passage(5)))
    (tmp_path / "f.jsonl").write_text("".join(f'{{"id": {n}, "text": {json.dumps(passage(n))}}}\n' for n in (6, 7)))
    (tmp_path / "g.csv").write_text(f'body\n"{passage(8)}"\n')
    parquet.write_table(pa.table({"text": [passage(9)], "title": ["t"]}), tmp_path / "h.parquet")
    (tmp_path / "i.json").write_text(json.dumps([{"text": passage(n)} for n in (10, 11)]))  # one line
    (tmp_path / "ignored.bin").write_bytes(b"\0\1")
    (tmp_path / ".hidden.md").write_text(passage(12))
    passages = opened(tmp_path, tmp_path)
    found = all_of(passages)
    assert [(Path(each.file).name, each.row) for each in found] == [
        *(("a.txt", None), ("b.md", None), ("c.html", None), ("d.pdf", None), ("e.docx", None)),
        *(("f.jsonl", 1), ("f.jsonl", 2), ("g.csv", 1), ("h.parquet", 1), ("i.json", 1), ("i.json", 2)),
    ]
    for number, each in enumerate(found, 1):
        assert each.text.split() == passage(number).split()
    assert passages.notes == ()
    assert passages.counts["documents"] == 11
    assert "\r" not in found[0].text


@pytest.mark.parametrize("declared", ["", '<meta charset="iso-8859-1">'])
def test_pages_are_read_as_utf_8_whatever_they_declare(tmp_path: Path, declared: str) -> None:
    text = f"Zażółć gęślą jaźń. {passage(1)}"
    (tmp_path / "a.html").write_text(f"<html><head>{declared}</head><body><p>{text}</p></body></html>")
    [found] = all_of(opened(tmp_path, tmp_path))
    assert found.text == text


def test_repeated_similar_and_short_passages_are_left_out(tmp_path: Path) -> None:
    texts = [passage(1), passage(1), passage(1).replace("the", "a", 1), "Too short.", passage(2)]
    for name, text in zip("abcde", texts, strict=True):
        (tmp_path / f"{name}.txt").write_text(text)
    passages = opened(tmp_path, tmp_path)
    assert [each.text for each in all_of(passages)] == [passage(1), passage(2)]
    assert passages.counts["left_out"] == {"repeated or similar": 2, "too short": 1}
    assert [note.partition(": ")[0] for note in passages.notes] == [str(tmp_path / f"{name}.txt") for name in "bcd"]


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("a.txt", "Zürich ist groß. ".encode("latin-1") * 20, "line 1: not UTF-8, probably Latin-1"),
        ("a.txt", b"text\0\1\2" * 40, "a binary file or UTF-16"),
        ("a.md", b" \n\n", "no text"),
        ("a.pdf", pdf_of(""), "no text (scanned pages need text recognition"),
        ("a.pdf", b"no pdf", "damaged, or not a .pdf file"),
        ("a.docx", b"no zip", "damaged, or not a .docx file"),
        ("a.jsonl", b'{"text": 3}\n{"text": ""}\n', "2 rows without a text in the field text"),
        ("a.jsonl", b'{"number": 3}\n', "1 rows without a text"),
        ("a.txt", None, "cannot be read (Permission denied)"),
    ],
)
def test_a_file_without_text_is_one_line_and_a_corpus_without_text_an_error(
    tmp_path: Path, name: str, content: bytes | None, why: str
) -> None:
    folder = tmp_path / "docs"
    folder.mkdir()
    if content is None:
        if os.geteuid() == 0:
            (folder / name).symlink_to(name)  # root can read all files: a loop instead
            why = "cannot be read (Too many levels of symbolic links)"
        else:
            (folder / name).touch(mode=0)
    else:
        (folder / name).write_bytes(content)
    with pytest.raises(UsageError) as error:
        opened(tmp_path, folder)
    assert why in str(error.value)
    assert "\n" not in str(error.value)
    (folder / "good.md").write_text(passage(1))
    passages = opened(tmp_path, folder)
    assert len(passages) == 1
    [note] = passages.notes
    assert note.startswith(str(folder / name))
    assert why in note


def test_a_damaged_table_with_a_row_without_text_has_two_notes(tmp_path: Path) -> None:
    texts = ["", *map(passage, range(400))]
    content = gzip.compress("".join(json.dumps({"text": text}) + "\n" for text in texts).encode())
    (tmp_path / "a.jsonl.gz").write_bytes(content[:-1000])
    damaged, without_text = opened(tmp_path, tmp_path / "a.jsonl.gz").notes
    assert damaged.endswith("; left out from there on")
    assert without_text.endswith("a.jsonl.gz: left out: 1 rows without a text in the field text")
    (tmp_path / "b.json").write_text('[{"text": ""}, {"text": ""}, {"text": "')
    with pytest.raises(UsageError, match=r"line 1: not JSON.*; .*b.json: left out: \d rows without a text"):
        opened(tmp_path, tmp_path / "b.json")


def test_many_notes_about_documents_are_counted(tmp_path: Path) -> None:
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "good.md").write_text(passage(1))
    for number in range(12):
        (folder / f"{number}.md").touch()
    *notes, more = opened(tmp_path, folder).notes
    assert (len(notes), more) == (10, "… and 2 more notes about documents that were left out")


def test_paths_that_are_no_documents_are_errors(tmp_path: Path) -> None:
    (tmp_path / "a.xyz").write_text(passage(1))
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "rows.jsonl").write_text('{"title": "a", "body": "b"}\n')
    (tmp_path / "table.csv").write_text(f'id,body\n1,\n2,"{passage(1)}"\n')
    for path, why in {
        "missing": "cannot be read (No such file or directory)",
        "a.xyz": "not a document of a known kind",
        "loop": "Too many levels of symbolic links",
        "rows.jsonl": "name it with --corpus-field (fields: title, body)",
        "table.csv": "name it with --corpus-field (fields: id, body)",  # the first row has only one text
    }.items():
        with pytest.raises(UsageError) as error:
            opened(tmp_path, tmp_path / path)
        assert why in str(error.value)
        assert "\n" not in str(error.value)
    (tmp_path / "rows.jsonl").write_text(json.dumps({"title": "a", "body": passage(1)}))
    assert len(opened(tmp_path, tmp_path / "rows.jsonl", corpus_field="body")) == 1


def test_without_the_extra_the_error_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "markitdown", None)
    (tmp_path / "a.pdf").write_bytes(pdf_of(passage(1)))
    with pytest.raises(UsageError, match=r"pip install 'datacreate\[documents\]'"):
        opened(tmp_path, tmp_path)


def test_links_to_folders_and_pipes_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a.md").write_text(passage(1))
    (tmp_path / "docs" / "again").symlink_to(".", target_is_directory=True)
    os.mkfifo(tmp_path / "docs" / "pipe.txt")
    assert len(opened(tmp_path, tmp_path / "docs")) == 1


def test_each_passage_is_assigned_once_before_any_twice_and_documents_take_turns(tmp_path: Path) -> None:
    for name, numbers in {"a": range(12), "b": range(20, 24), "c": range(30, 31)}.items():
        (tmp_path / f"{name}.md").write_text("".join(f"# {n}\n\n{passage(n)}\n\n" for n in numbers))
    passages = opened(tmp_path, tmp_path)
    assert len(passages) == 17
    assigned = [passages.of_request(request) for request in range(34)]
    assert len(set(assigned[:17])) == 17
    assert assigned[17:] == assigned[:17]
    for end in range(18):
        used = Counter(Path(each.file).stem for each in assigned[:end])
        assert used["a"] - used["b"] <= max(1, end - 8)
        assert abs(min(used["a"], 4) - used["b"]) <= 1
    passages.save(tmp_path / "passages.jsonl")
    other = Passages((tmp_path / "passages.jsonl").open("rb"), 43)
    assert [other.of_request(request) for request in range(17)] != assigned[:17]


def test_a_stored_corpus_is_used_and_a_changed_one_refused(tmp_path: Path) -> None:
    docs, run = tmp_path / "docs", tmp_path / "run" / "passages.jsonl"
    for folder in (docs, run.parent):
        folder.mkdir()
    for number in (1, 2):
        (docs / f"{number}.md").write_text(passage(number))
    options = CorpusOptions.of(corpus=(str(docs),))
    first = open_corpus(options, 42, run, None)
    first.save(run)
    spec, content = first.spec(options), run.read_bytes()
    *stored, last = map(json.loads, content.splitlines())
    assert stored == [each.source | {"text": each.text} for each in all_of(first)]
    assert last["passages"] == [1, 1]
    again = open_corpus(options, 42, run, spec)
    assert (again.spec(options), all_of(again)) == (spec, all_of(first))
    (docs / "2.md").write_text(passage(3))
    with pytest.raises(RunMismatch, match=r"another content of .*2\.md"):
        open_corpus(options, 42, run, spec)
    (docs / "2.md").unlink()
    with pytest.raises(RunMismatch, match=r"another content of .*2\.md"):
        open_corpus(options, 42, run, spec)
    (docs / "2.md").write_text(passage(2))
    (docs / "0.md").write_text(passage(4))
    with pytest.raises(RunMismatch, match=r"another content of .*0\.md"):
        open_corpus(options, 42, run, spec)
    (docs / "0.md").unlink()
    open_corpus(CorpusOptions.of(corpus=(str(docs / "1.md"),)), 42, run, None).save(run)
    assert run.read_bytes() != content  # of a start that was killed before config.json was written
    run.write_bytes(content[:-40])
    with pytest.raises(RunError, match="damaged"):
        open_corpus(options, 42, run, spec)
