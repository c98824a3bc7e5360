"""Commands about what a run needs: presets, data, and the machine."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from engine.experiment.mistakes import RequestError
from engine.runs import devices, layout, process, squeue
from engine.runs.mounts import mount_of
from engine.runs.squeue import Cluster
from engine.runs.submitted import allocation
from hah_tui.cli import output
from hah_tui.cli.output import Json, note, print_json, print_table
from hah_tui.text import shown, shown_line

presets_app = typer.Typer(help="Presets: list, show, check, write your own.", no_args_is_help=False)
data_app = typer.Typer(help="Data sets: what is there, and download.", no_args_is_help=False)

PresetArgument = Annotated[
    str, typer.Argument(metavar="PRESET|FILE", autocompletion=output.complete_preset, help="A name or a .yaml file.")
]
Sets = Annotated[
    list[str] | None,
    typer.Option("--set", "-s", metavar="KEY=VALUE", autocompletion=output.complete_setting),
]


def add_to(app: typer.Typer) -> None:
    """Register the commands of this file."""
    app.add_typer(presets_app, name="presets")
    app.add_typer(data_app, name="data")
    app.command()(doctor)


def _unless_asked(context: typer.Context, tell: Callable[[bool], None], json: bool) -> None:
    """What a group says where no command of it is asked for; an option of that is none of the command's."""
    if context.invoked_subcommand is None:
        tell(json)
    elif json:
        raise typer.BadParameter(f"--json belongs behind {context.invoked_subcommand!r}")


@presets_app.callback(invoke_without_command=True)
def presets_default(context: typer.Context, json: Json = False) -> None:
    """Presets: list, show, check, write your own."""
    _unless_asked(context, presets_ls, json)


@presets_app.command("ls")
def presets_ls(json: Json = False) -> None:
    """List presets, your own first."""
    from engine.experiment import RequestError, presets

    rows, documents = [], []
    for preset in presets.listed():
        try:
            experiment = presets.load(preset.name)
            tags, description = experiment.tags, experiment.description
        except RequestError as error:
            tags, description = [], f"broken: {error.mistakes[0]}"
        where = "shipped" if preset.shipped else "yours, hides a shipped one" if preset.shadows else "yours"
        rows.append([preset.name, where, " ".join(tags), description])
        documents.append(
            {
                "name": preset.name,
                "path": str(preset.path),
                "shipped": preset.shipped,
                "shadows": preset.shadows and str(preset.shadows),
                "tags": list(tags),
                "description": description,
            }
        )
    if json:
        print_json({"own_folder": str(presets.own_folder()), "presets": documents})
    else:
        print_table(["preset", "from", "tags", "description"], rows)


@presets_app.command("show")
def presets_show(preset: PresetArgument, set_: Sets = None, json: Json = False) -> None:
    """Print the whole experiment of a preset, every default filled in."""
    from engine.experiment import presets

    experiment = presets.load(preset, set_ or [])
    if json:
        facts = {"parameters": experiment.parameters(), "macs": experiment.macs()}
        print_json({"config": experiment.dump(), **facts})
        return
    print(f"# {experiment.parameters():,} parameters, {experiment.macs() / 1e6:,.1f} M multiply-accumulates an image")
    print(shown(presets.dumped(experiment), 100_000), end="")


@presets_app.command("check")
def presets_check(files: Annotated[list[str], typer.Argument(metavar="PRESET|FILE...")], set_: Sets = None) -> None:
    """Say everything that is wrong with presets; exit code 2 if anything is."""
    from engine.experiment import RequestError, presets

    mistakes: list[Any] = []
    for file in files:
        try:
            idle = presets.load(file, set_ or []).idle()
            print(f"{shown_line(file)}: good", *idle, sep="; ")
        except RequestError as error:
            mistakes += error.mistakes
    if mistakes:
        raise RequestError(*mistakes)


@presets_app.command("new")
def presets_new(
    name: str,
    base: Annotated[str, typer.Option("--from", help="The preset it extends.", autocompletion=output.complete_preset)],
    set_: Sets = None,
) -> None:
    """Write a preset of your own that extends another."""
    from engine.experiment import presets

    print(presets.write_own(name, base, set_ or []))


@data_app.callback(invoke_without_command=True)
def data_default(context: typer.Context, json: Json = False) -> None:
    """Data sets: what is there, and download."""
    _unless_asked(context, data_status, json)


@data_app.command("status")
def data_status(json: Json = False) -> None:
    """Say which data sets are there and where."""
    from engine.runs import launch

    _print_data(launch.ask("data", "status"), json)


@data_app.command("prepare")
def data_prepare(names: Annotated[list[str], typer.Argument(metavar="NAME...")], json: Json = False) -> None:
    """Download data sets and keep each as one archive; cifar10-c: check its files, generate what is missing."""
    from engine.runs import launch

    _print_data(launch.ask("data", "prepare", *names, tell=lambda line: note(shown_line(line, 500))), json)


def doctor(json: Json = False) -> None:
    """Say what this machine has: versions, GPUs, terminal, data, disk, and what stands in the way."""
    from engine.experiment import presets
    from engine.runs import launch, manifest
    from engine.sweep import sites

    problems: list[str] = []
    try:
        torch = launch.ask("probe", "--torch")
    except (launch.LaunchError, ValueError) as error:
        torch = {"error": str(error)}
        problems.append(f"torch does not import: {str(error).splitlines()[-1]}")
    gpus = devices.gpus()
    runs, data = layout.runs_folder(), launch.ask("data", "status")
    if torch.get("torchvision_error"):
        problems.append(
            f"torchvision does not import ({torch['torchvision_error']}): downloads need it, prepared archives do not"
        )
    if gpus and not torch.get("cuda_available", True):
        problems.append("the driver shows GPUs that torch cannot use: its build has no CUDA, or the driver is too old")
    folders = {"runs": runs, "data": data["folder"], "presets": presets.own_folder()}
    writable = {name: os.access(_existing(folder), os.W_OK) for name, folder in folders.items()}
    problems += [f"{folders[name]} cannot be written" for name, good in writable.items() if not good]
    problems += [dataset["problem"] for dataset in data["datasets"] if dataset["problem"]]
    if writable["runs"] and (unlocked := process.unlockable(Path(_existing(runs)))):
        problems.append(unlocked)
    mount = mount_of(runs)
    if not mount.believed:
        problems.append(
            f"{runs} is on {mount.words}: only one host may start what waits there, and of runs of other hosts it "
            "cannot be known whether they live"
        )
    free = shutil.disk_usage(_existing(runs)).free
    if free < 2 << 30:
        problems.append(f"only {free / 2**30:.1f} GiB are free where runs are kept; a full VGG-16 run needs about 0.5")
    slurm = squeue.cluster()
    site, wrong = of_slurm(slurm) if slurm is not None else ([], [])
    problems += wrong
    kills = _kills_user_processes()
    if kills:
        problems.append(
            "systemd ends your processes at logout (KillUserProcesses=yes): runs would not survive it. 'loginctl "
            "enable-linger' keeps them, or start with: systemd-run --user --scope hah run ..."
        )
    term = os.environ.get("TERM", "")
    if sys.stdout.isatty() and term in ("", "dumb"):
        problems.append(f"TERM is {term or 'not set'!r}: hah-tui needs a terminal that understands escapes")
    encoding = (sys.stdout.encoding or "").lower()
    if encoding not in ("utf-8", "utf8"):
        problems.append(
            f"the terminal's encoding is {encoding or 'unknown'}, not UTF-8: some characters will be missing"
        )
    size = shutil.get_terminal_size()
    document = {
        "versions": manifest.versions(),
        "source": manifest.source(),
        "machine": manifest.machine(),
        "torch": torch,
        "driver": devices.driver(),
        "gpus": [vars(gpu) for gpu in gpus],
        "terminal": {
            "term": term,
            "colorterm": os.environ.get("COLORTERM", ""),
            "encoding": encoding,
            "columns": size.columns,
            "lines": size.lines,
        },
        "folders": {name: str(folder) for name, folder in folders.items()},
        "mount": {"kind": mount.kind, "source": mount.source, "locks": mount.locks, "words": mount.words},
        "free_gib": round(free / 2**30, 1),
        "data": data["datasets"],
        "kill_user_processes": kills,
        "slurm": slurm and {
            "version": slurm.version, "cluster": slurm.name, "max_array": slurm.most,
            "partitions": [vars(one) for one in slurm.partitions],
            "profiles": {name: str(path) for name, path in sites.known().items()},
        },
        "problems": problems,
    }  # fmt: skip
    if json:
        print_json(document)
        return
    print("versions   " + ", ".join(f"{name} {version}" for name, version in manifest.versions().items()))
    source = manifest.source()
    if source:
        print(f"source     {source['commit'][:12]}{' with changes' if source['dirty'] else ''}")
    print(f"machine    {manifest.machine()['cpu']}, {os.cpu_count()} CPUs, torch uses {torch.get('threads', '?')}")
    print(f"driver     {devices.driver() or 'no NVIDIA driver'}")
    for gpu in gpus:
        taken = ", an engine has it" if gpu.taken else ""
        print(
            f"cuda:{gpu.index}     {shown_line(gpu.name)}, {gpu.free_gib:.1f} of {gpu.memory_gib:.1f} GiB free{taken}"
        )
    print(f"terminal   {term or 'none'}, {encoding}, {size.columns}x{size.lines}")
    for name, folder in folders.items():
        print(f"{name:<10} {shown_line(folder)}")
    print(f"mount      {shown_line(mount.words, 500)}")
    print(f"disk       {free / 2**30:.1f} GiB free for runs")
    for line in site:
        print(shown_line(line, 300))
    for dataset in data["datasets"]:
        where = dataset["path"] if dataset["there"] else f"not there: hah data prepare {dataset['name']}"
        print(f"{dataset['name']:<10} {shown_line(where)}")
    for problem in problems:
        print(f"problem    {shown_line(problem, 500)}")
    if not problems:
        print("no problem found")


def of_slurm(slurm: Cluster) -> tuple[list[str], list[str]]:
    """What to say of the Slurm here and of the profiles for it, and what is wrong with them."""
    from engine.sweep import profiles, sites

    if not slurm.version and not slurm.problem:
        return ["slurm      installed, but it knows of no cluster (SLURM_CONF, or /etc/slurm/slurm.conf)"], []
    lines = [f"slurm      {slurm.version or 'silent'}"]
    lines[0] += f", cluster {slurm.name}, {slurm.most:,} tasks in an array at most" if slurm.most else ""
    for one in slurm.partitions:
        limit = "no time limit" if one.time == "infinite" else f"{one.time} at most"
        facts = ["the default" * one.default, "up" if one.up else "down", limit, f"{one.nodes} nodes", one.gres]
        lines.append(f"partition  {one.name}: {', '.join(filter(None, facts))}")
    problems, known = [slurm.problem] if slurm.problem else [], sites.known()
    for name, path in known.items():
        try:
            partition = profiles.load(path).partition
        except RequestError as error:
            problems += [str(mistake) for mistake in error.mistakes]
            continue
        there = [one.name for one in slurm.partitions]
        if partition is not None and there and not {*partition.split(",")} <= {*there}:
            problems.append(f"{path}: partition: {partition} is none of this cluster's: {', '.join(there)}")
        lines.append(f"profile    {name}: {path}")
    if not known:
        lines.append("profile    none, which '--on slurm' needs: 'hah slurm-profile --write' begins one")
    if said := allocation():
        lines.append(f"job        {said}")
    return lines, problems


def _print_data(answer: dict[str, Any], json: bool) -> None:
    if json:
        print_json(answer)
        return
    rows = [
        [
            d["name"],
            "not usable" if d["problem"] else "there" if d["there"] else "not there",
            f"{d['train_images']:,}",
            f"{d['test_images']:,}",
            d["path"],
        ]
        for d in answer["datasets"]
    ]
    if rows:
        print_table(["data set", "", "train", "test", "path"], rows, (2, 3))
    for d in answer["datasets"]:
        if d["problem"]:
            note(shown_line(d["problem"], 500))
    if "corruptions" in answer:
        _print_corruptions(answer["corruptions"])
    if not all(d["there"] for d in answer["datasets"]):
        note("'hah data prepare NAME' downloads one; HAH_DATA names another folder")


def _print_corruptions(facts: dict[str, Any]) -> None:
    official, frost, generated = facts["official"], facts["frost"], facts["generated"]
    files, pictures = official["files"], frost["files"]
    for what, there, count, folder in (
        ("official files", list(files.values()).count("there"), len(files), official["folder"]),
        ("generated sets", generated["files"], 5 * len(files), generated["folder"]),
        ("frost photographs", list(pictures.values()).count("there"), len(pictures), frost["folder"]),
    ):
        print(f"cifar10-c  {there} of {count} {what} in {shown_line(folder)}")
    found = files | ({"labels": official["labels"]} if set(files.values()) != {"missing"} else {}) | pictures
    for name, said in found.items():
        if said not in ("there", "missing"):
            print(f"cifar10-c  {shown_line(name)}: {shown_line(said, 500)}")
    if "missing" in files.values():
        print(f"cifar10-c  official files: unpack {shown_line(official['source'])} there; what is missing is generated")
    if "missing" in pictures.values():
        print(f"cifar10-c  frost photographs: {shown_line(frost['source'])}; without them frost is left out")


def _existing(folder: Any) -> str:
    """The folder, or the nearest one above it that is there."""
    path = Path(folder).absolute()
    return str(next(place for place in (path, *path.parents) if place.is_dir()))


def _kills_user_processes() -> bool:
    """Whether systemd-logind ends the processes of a user who logs out (and has no lingering)."""
    import subprocess

    if shutil.which("loginctl") is None:
        return False
    command = [
        "busctl",
        "get-property",
        "org.freedesktop.login1",
        "/org/freedesktop/login1",
        "org.freedesktop.login1.Manager",
        "KillUserProcesses",
    ]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=3, check=False).stdout
        linger = subprocess.run(
            ["loginctl", "show-user", str(os.getuid()), "--property=Linger"],  # noqa: S607
            capture_output=True,
            text=True,
            timeout=3,
            check=False,
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return False
    return "true" in answer and "Linger=yes" not in linger
