"""The beginning and the end of an engine's process."""

import subprocess
import sys

from engine.experiment import presets
from engine.runs.making import Origin, make
from engine.runs.state import read_state

CODE = """
import gc
from engine import __main__ as engine
from engine.job.work import Work

class Looks(Work):
    def prepare(self):
        pass

    def __call__(self):
        print("collects" if gc.isenabled() else "does not collect", end="")
        import atexit
        atexit.register(print, "taken apart")

gc.disable()  # as the program does before it imports torch
engine.WORKS["training"] = engine.WorkOfKind(lambda job, experiment, _: Looks(job, experiment))
engine.end(engine.main())
"""


def test_an_engine_collects_garbage_while_it_works_and_is_not_taken_apart_when_it_ends(runs):
    run, _, lock = make(presets.load("quickstart", ["compute.device=cpu"]), Origin("quickstart"), runs)
    lock.release()
    done = subprocess.run([sys.executable, "-c", CODE, "run", run.path], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.splitlines()[-1], done.stderr) == (0, "collects", "")
    assert read_state(run).status == "finished"
