"""What a person says once of a Slurm site: a profile in the config folder, checked before anything is submitted."""

from __future__ import annotations

import difflib
import re
import shlex
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, ValidationError
from pydantic_core import PydanticCustomError

from engine import disk
from engine.experiment.document import Document, read
from engine.experiment.mistakes import Mistake, RequestError
from engine.sweep import sites

EXAMPLE = """\
# How runs reach a Slurm cluster: 'hah run PRESET --on slurm'. Everything here may be left out; a site decides what it
# needs. Several profiles are files slurm/NAME.yaml beside this one, chosen by --profile NAME.

partition: gpu            # as 'sinfo' names it; left out: the site's default
# account: my-project     # whom the hours are charged to
gres: gpu:1               # one GPU for each run; left out: the CPU
cpus: 8                   # CPU cores for each run, which are its threads
memory: 16G               # of a run
time: "12:00:00"          # limit of one stretch: a run that takes longer is requeued and goes on where it was
grace: 120                # seconds before that limit at which a run saves itself

# What a node needs besides this Python. Nothing of the shell you submit from is handed over.
# modules: [cuda/12.4]    # 'module load' of each
# container: apptainer exec --nv /shared/hah.sif    # put before Python
# python: /opt/hah/bin/python                       # absolute; left out: the one you submit with
# data: /shared/data      # HAH_DATA on the nodes; left out: as where you submit
# shell: ["ulimit -c 0"]  # more lines of the script, before the run begins
# options: ["--qos=long", "--constraint=a100"]      # more #SBATCH lines
# max_array: 500          # tasks in one array; left out: as 'scontrol show config' says (MaxArraySize)
"""

_TIME = re.compile(r"(?:(\d{1,4})-)?(\d{1,9})(?::(\d{1,2}))?(?::(\d{1,2}))?")
_OURS = ("array", "export", "job-name", "open-mode", "output", "requeue", "no-requeue", "signal", "error", "wrap",
         "ntasks", "nodes", "parsable", "wait")  # fmt: skip
_OPTIONS = 'a list such as ["--qos=long"], with none that hah sets itself (' + ", ".join(_OURS) + ")"


def _one_line(value: str) -> str:
    if not value.strip() or not value.isprintable():
        raise PydanticCustomError("line", "one line")
    return value


def _absolute(value: str) -> str:
    if not _one_line(value).startswith("/"):
        raise PydanticCustomError("absolute", "absolute")
    return value


def _words(value: str) -> str:
    try:
        shlex.split(_one_line(value))
    except ValueError:
        raise PydanticCustomError("words", "words") from None
    return value


def _an_option(value: str) -> str:
    if not _one_line(value).startswith("-"):
        raise PydanticCustomError("option", "an option")
    name = re.split(r"[= ]", value.lstrip("-"), maxsplit=1)[0]
    if name in _OURS or re.match(r"-[aoeJNn]", value):
        raise PydanticCustomError("ours", "ours")
    return value


def _seconds(value: str) -> float:
    """Of one of Slurm's ways to write a time; raises ValueError."""
    found = _TIME.fullmatch(value)
    if found is None:
        raise ValueError(value)
    days, first, second, third = (None if part is None else int(part) for part in found.groups())
    if days is not None:  # days-hours[:minutes[:seconds]]
        return 86400 * days + 3600 * (first or 0) + 60 * (second or 0) + (third or 0)
    if third is not None:  # hours:minutes:seconds
        return 3600 * (first or 0) + 60 * (second or 0) + third
    return 60 * (first or 0) + (second or 0)  # minutes[:seconds]


def _a_time(value: Any) -> Any:
    text = str(value) if type(value) is int else value
    if isinstance(text, str):
        try:
            good = _seconds(text) > 0
        except ValueError:
            good = False
        if not good:
            raise PydanticCustomError("time", "a time")
    return text


_Word = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._,:=/+-]{0,199}$")]
_Line = Annotated[str, BeforeValidator(lambda value: _one_line(value) if isinstance(value, str) else value)]
_Words = Annotated[str, BeforeValidator(lambda value: _words(value) if isinstance(value, str) else value)]
_Option = Annotated[str, BeforeValidator(lambda value: _an_option(value) if isinstance(value, str) else value)]
_Absolute = Annotated[str, BeforeValidator(lambda value: _absolute(value) if isinstance(value, str) else value)]


class Profile(BaseModel):
    """The settings of a site; a description is what is allowed."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    partition: Annotated[_Word | None, Field(description="the name of one, such as gpu")] = None
    account: Annotated[_Word | None, Field(description="the name of one, such as my-project")] = None
    gres: Annotated[_Word | None, Field(description="what Slurm calls a generic resource, such as gpu:1")] = None
    cpus: Annotated[int | None, Field(ge=1, le=4096, description="a whole number from 1 to 4096")] = None
    memory: Annotated[
        Annotated[str, StringConstraints(pattern=r"^[0-9]{1,9}[KMGT]?$")] | None,
        Field(description="a size such as 16G, or megabytes in quotes"),
    ] = None
    time: Annotated[
        Annotated[str, BeforeValidator(_a_time)] | None,
        Field(description='minutes, or "hours:minutes:seconds", or "days-hours", such as "12:00:00"'),
    ] = None
    grace: Annotated[int, Field(ge=1, le=65535, description="whole seconds from 1 to 65535")] = 120
    modules: Annotated[list[_Word], Field(description="a list of names, such as [cuda/12.4]")] = []
    container: Annotated[
        _Words | None, Field(description="a command in one line, such as apptainer exec --nv /shared/hah.sif")
    ] = None
    python: Annotated[_Absolute | None, Field(description="an absolute path, such as /opt/hah/bin/python")] = None
    data: Annotated[_Absolute | None, Field(description="an absolute path, such as /shared/data")] = None
    shell: Annotated[list[_Line], Field(description='a list of lines for bash, such as ["ulimit -c 0"]')] = []
    options: Annotated[list[_Option], Field(description=_OPTIONS)] = []
    max_array: Annotated[int | None, Field(ge=1, le=4_000_000, description="a whole number from 1")] = None


def load(path: Path) -> Profile:
    """A checked profile; raises RequestError with every mistake, each with its line."""
    document = read(path)
    try:
        profile = Profile.model_validate(document.values)
    except ValidationError as error:
        raise RequestError(*dict.fromkeys(_mistake(document, detail) for detail in error.errors())) from None
    if profile.time is not None and _seconds(profile.time) <= profile.grace:
        place = document.origin(("grace",) if "grace" in document.values else ("time",))
        what = f"grace: must be shorter than time ({profile.time}), got {profile.grace} s: a run would only ever save"
        raise RequestError(Mistake(what, place))
    return profile


def _mistake(document: Document, detail: Any) -> Mistake:
    name = str(detail["loc"][0])
    place = document.origin((name,))
    if detail["type"] == "extra_forbidden":
        close = difflib.get_close_matches(name, Profile.model_fields, n=1)
        hint = f"did you mean {close[0]}?" if close else f"there is {', '.join(Profile.model_fields)}"
        return Mistake(f"{name:.80}: unknown; {hint}", place)
    return Mistake(f"{name}: must be {Profile.model_fields[name].description}, got {detail['input']!r:.60}", place)


def write_example() -> Path:
    """Put the example where a profile belongs, and nothing in its place; raises RequestError."""
    path = sites.folder() / "slurm.yaml"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        disk.write_new(path, EXAMPLE.encode())
    except FileExistsError:
        raise RequestError(f"{path} exists; edit it, or take it away first") from None
    except OSError as error:
        raise RequestError(f"{path} cannot be written: {error.strerror}") from None
    return path
