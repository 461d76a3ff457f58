"""Site settings: what comes of them, and what is wrong with them in one line."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from datacreate.cluster import JOBS, load_site, sbatch_options, shell_settings
from datacreate.errors import SiteError
from datacreate.paths import shipped


@pytest.fixture
def site(tmp_path: Path) -> Path:
    return tmp_path / "site.yaml"


def test_the_shipped_template_is_valid_and_names_every_key() -> None:
    template = shipped("data", "site.yaml")
    loaded = load_site(template)
    text = template.read_text(encoding="utf-8")
    assert all(f"\n{key}:" in text or f" {key}" in text for key in type(loaded).model_fields)
    assert "--gres=gpu:1" in sbatch_options(loaded.job("create"))
    assert not any("gres" in option for option in sbatch_options(loaded.job("report")))


def test_a_section_goes_before_the_rest_and_leaves_the_rest(site: Path) -> None:
    site.write_text("partition: cpu\ngpus: 1\ntime: 1:00:00\ntrain:\n  partition: gpu\n  gpus: a100:4\n")
    loaded = load_site(site)
    assert loaded.job("create").partition == "cpu"
    train = sbatch_options(loaded.job("train"))
    assert train == [
        *("--partition=gpu", "--gres=gpu:a100:4", "--time=1:00:00"),
        *("--signal=B:TERM@120", "--export=ALL"),
    ]


def test_times_are_what_slurm_takes_them_for(site: Path) -> None:
    # To YAML itself these would be the numbers 43200 and 5400.
    for time in ("12:00:00", "90:00", "90", "1-12", "2-00:30", "1-00:00:01", "UNLIMITED"):
        site.write_text(f"time: {time}\n")
        assert load_site(site).job("sweep").time == time


def test_what_is_told_for_all_counts_for_one_with_a_time_of_its_own(site: Path) -> None:
    site.write_text("signal_seconds: 30\nreport:\n  time: 1:00\n")
    assert load_site(site).job("report").signal_seconds == 30


def test_a_key_without_a_value_is_left_to_slurm(site: Path) -> None:
    site.write_text("partition:\naccount: ''\ncpus: 2\ncontainer:\n")
    assert sbatch_options(load_site(site).job("create")) == [
        "--cpus-per-task=2",
        "--signal=B:TERM@120",
        "--export=ALL",
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("partiton: gpu", "partiton: there is no such key; did you mean partition?"),
        ("colour: red", "colour: there is no such key; there are partition, account"),
        ("train:\n  memroy: 3G", "train.memroy: there is no such key; did you mean memory?"),
        ("create:\n  logs: here", "create.logs: there is no such key"),
        ("cpus: many", "cpus: Input should be a valid integer"),
        ("gpus: two", "gpus: 'two' is not of the form 2, or a100:2"),
        ("memory: 64 GB", "memory: '64 GB' is not of the form 64G"),
        ("time: soon", "time: 'soon' is no time; write it as SLURM does"),
        ("time: '2:00'", "signal_seconds: 120 s before the end of 2:00 is before the start"),
        (
            "signal_seconds: 200\nreport:\n  time: 2:00",
            "report: signal_seconds: 200 s before the end of 2:00",
        ),
        ("time: 60\nreport:\n  time: 1:00", "report: signal_seconds: 120 s before the end of 1:00"),
        ("options: --x", "options: "),
        ("options: [-p, gpu]", "options: '-p' is not of the form --constraint=h100"),
        ("container: apptainer 'exec", "container: a quotation mark in it is not closed"),
        ("partition: gpu\npartition: cpu", "not YAML: key partition is there twice"),
        ("train: 3", "train: "),
        ("[", "not YAML"),
        ("", "no settings in it"),
        ("- gpu", "no settings in it"),
    ],
)
def test_what_is_wrong_is_one_line_with_file_and_key(text: str, words: str, site: Path) -> None:
    site.write_text(text)
    with pytest.raises(SiteError) as error:
        load_site(site)
    said = str(error.value)
    assert said.startswith(f"site settings {site}: ")
    assert words in said
    assert "\n" not in said


def test_a_missing_file_says_where_to_get_one(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATACREATE_SITE", str(site))
    with pytest.raises(SiteError, match=r"no site settings at .*site\.yaml: copy .*data/site\.yaml there"):
        load_site()


def test_a_shell_gets_every_value_as_it_is_written(site: Path) -> None:
    site.write_text(
        "options: ['--comment=a b; $(c)']\nlogs: my logs\nmax_array: 3\n"
        "setup: |\n  echo \"it's\"\n  module load x\ncontainer: apptainer exec 'my image.sif'\n"
    )
    loaded = load_site(site)
    script = (
        shell_settings(loaded, loaded.job("sweep"))
        + '\nprintf "%s|" "${options[@]}" "$logs" "$max_array" "$DATACREATE_SETUP" "$DATACREATE_RESTARTS"\n'
        + 'eval "container=($DATACREATE_CONTAINER)"; printf "%s|" "${container[@]}"'
    )
    said = subprocess.run(["bash", "-euc", script], capture_output=True, text=True, check=True).stdout
    assert said == (
        '--signal=B:TERM@120|--export=ALL|--comment=a b; $(c)|my logs|3|echo "it\'s"\nmodule load x\n|50|'
        "apptainer|exec|my image.sif|"
    )


def test_every_job_has_a_script() -> None:
    scripts = Path(__file__).parents[2] / "scripts"
    assert sorted(path.stem for path in scripts.glob("*.sbatch")) == sorted(JOBS)
