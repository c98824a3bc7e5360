"""What commands share that hand runs to Slurm, and the command that helps to describe a site."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from engine.experiment.mistakes import RequestError
from engine.runs.layout import RunDirectory
from engine.sweep import sites
from hah_tui.cli.output import Json, print_json

if TYPE_CHECKING:
    from engine.sweep.handover import Handed

Where = Literal["local", "slurm"]
On = Annotated[Where, typer.Option("--on", help="Where it runs: on this host, or as a job of a Slurm cluster.")]


def _complete_profile(incomplete: str) -> list[str]:
    return [name for name in sites.known() if name.startswith(incomplete)]


ProfileName = Annotated[
    str | None,
    typer.Option(
        "--profile", metavar="NAME", help="The Slurm site, where there are several.", autocompletion=_complete_profile
    ),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="With --on slurm: only print the script.")]


def add_to(app: typer.Typer) -> None:
    """Register the command of this file."""
    app.command("slurm-profile")(slurm_profile)


def check(on: Where, profile: str | None = None, dry_run: bool = False, queued: bool = False) -> None:
    """Refuse options that belong to another place; raises RequestError."""
    if on == "local" and (profile is not None or dry_run):
        raise RequestError(f"{'--profile' if profile is not None else '--dry-run'}: only with --on slurm")
    if on == "slurm" and queued:
        raise RequestError("--queue: is the queue of this host; with --on slurm the run waits in Slurm's")


def say_handed(handed: list[Handed], json: bool) -> None:
    """Say which runs are which jobs now."""
    if json:
        print_json(
            {"submitted": [document(one.directory, one.job.id, one.job.cluster, one.job.script) for one in handed]}
        )
        return
    for one in handed:
        tasks = f", with {one.job.parts - 1} tasks beside it" if one.job.parts > 1 else ""
        print(f"{one.directory.id} is job {one.job.id} of Slurm{tasks}; 'hah ls' shows how it stands")


def document(directory: RunDirectory, job: str, cluster: str, script: str) -> dict[str, str]:
    """A run that was handed over, as a program reads it."""
    return {"id": directory.id, "path": str(directory.path), "job": job, "cluster": cluster, "script": script}


def print_scripts(scripts: list[str], json: bool) -> None:
    """What would be submitted."""
    if json:
        print_json({"scripts": scripts})
    else:
        print("\n".join(scripts), end="")


def slurm_profile(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", autocompletion=_complete_profile)] = None,
    example: Annotated[bool, typer.Option("--example", help="Print an example with every setting.")] = False,
    write: Annotated[bool, typer.Option("--write", help="Write that example to where it belongs.")] = False,
    json: Json = False,
) -> None:
    """Check the profile that says how runs reach a Slurm cluster, or give an example of one."""
    from engine.sweep import profiles

    if write:
        print(f"wrote {profiles.write_example()}; fill it in, 'hah slurm-profile' checks it")
        return
    if example:
        print(profiles.EXAMPLE, end="")
        return
    path: Path = sites.find(name)
    profile = profiles.load(path)
    said = profile.model_dump(exclude_defaults=not json)
    if json:
        print_json(
            {"path": str(path), "profile": said, "profiles": {one: str(at) for one, at in sites.known().items()}}
        )
        return
    print(path)
    for setting, value in said.items():
        print(f"  {setting}: {', '.join(value) if isinstance(value, list) else value}")
