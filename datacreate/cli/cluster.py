"""`datacreate cluster`: this site's settings for SLURM, looked at and checked."""

from __future__ import annotations

import json
from importlib import import_module

import click


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def cluster() -> None:
    """The settings that the scripts for SLURM submit with: $DATACREATE_SITE, or site.yaml in the home.

    \b
    datacreate cluster template >"$DATACREATE_HOME/site.yaml"   # once, then fill it in
    datacreate cluster show
    """


@cluster.command()
def template() -> None:
    """Print a commented file of site settings, to be filled in."""
    from datacreate.paths import shipped

    click.echo(shipped("data", "site.yaml").read_text(encoding="utf-8"), nl=False)


@cluster.command()
@click.option("--json", "as_json", is_flag=True, help="Print the settings as JSON.")
def show(as_json: bool) -> None:
    """Check the site settings; print what each job asks SLURM for."""
    from datacreate.cluster import JOBS, check_partitions, load_site, sbatch_options, site_path

    site = load_site()
    jobs = {name: site.job(name) for name in JOBS}
    for settings in dict.fromkeys(jobs.values()):
        check_partitions(settings, site_path())
    if as_json:
        told = {name: settings.model_dump(mode="json") for name, settings in jobs.items()}
        click.echo(json.dumps(told, indent=2, ensure_ascii=False))
        return
    click.echo(f"{site_path()}")
    for name, settings in jobs.items():
        click.echo(f"  {name.ljust(8)}  {' '.join(sbatch_options(settings))}")


@cluster.command()
@click.argument("job")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[-- ARGUMENT...]")
def options(job: str, arguments: tuple[str, ...]) -> None:
    """Print what scripts/JOB.sbatch submits with, for a shell to evaluate.

    ARGUMENTS are those of the verb: a wrong one is told now, and not by a job that waited for its turn.
    """
    from datacreate.cluster import JOBS, check_partitions, load_site, shell_settings, site_path

    if job not in JOBS:
        raise click.UsageError(f"no job {job!r}; jobs are {', '.join(JOBS)}")
    site = load_site()
    settings = site.job(job)
    check_partitions(settings, site_path())
    _check_arguments(job, arguments)
    click.echo(shell_settings(site, settings))


def _check_arguments(verb: str, arguments: tuple[str, ...]) -> None:
    """Raise click.UsageError if the verb would."""
    from datacreate.cli.main import VERBS

    if not arguments or verb not in VERBS:
        return
    module, _ = VERBS[verb]
    command = getattr(import_module(f"datacreate.cli.{module}"), verb)
    assert isinstance(command, click.Command)
    command.make_context(f"datacreate {verb}", list(arguments))
