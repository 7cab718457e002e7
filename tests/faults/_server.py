"""Run as a script by _stack.py: forks lives of pipelines on request, with the shim preloaded.

Everything is imported once, and each pipeline file is read once, then each life is a fork, so that a life costs
little more than its work. A request is a line of JSON on stdin, its answer one on stdout.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import functools
import gc
import importlib
import json
import os
import signal
import sys
from pathlib import Path

from _pushed import Pushed

from collectors.cli._progress import exit_code
from collectors.config.load import load
from collectors.config.model import PipelineConfig
from collectors.errors import CollectorsError
from collectors.runtime import flow
from collectors.runtime.delivery import Edge
from collectors.runtime.engine import Engine
from collectors.runtime.env import Env
from collectors.runtime.supervisor import Supervisor

SHIM = ctypes.CDLL(os.environ["LD_PRELOAD"])
SHIM.shim_arm.argtypes = [ctypes.c_char_p, *[ctypes.c_int] * 2, *[ctypes.c_long] * 2, *[ctypes.c_int] * 2]
KNOWN = set(sys.modules)
SHIM.shim_mark.argtypes = [ctypes.c_char_p, ctypes.c_size_t]
with contextlib.suppress(ImportError):
    from collectors.storage.backends.duckdb import DuckdbBackend

    DuckdbBackend.commit_rows = 0  # many small commits, so that there is more to be killed between
flow.DEATHS = 10**9  # these deaths are ours: no record is to be looked for, in processes of their own


class Hurried(Env):
    """A world in which waiting takes a two-hundredth of the time."""

    speed = 200.0

    def monotonic(self) -> float:
        return super().monotonic() * self.speed

    async def sleep(self, seconds: float) -> None:
        await super().sleep(seconds / self.speed)


def import_all(modules: list[str]) -> None:
    """Import what an earlier life has imported, so that the next ones need not."""
    for module in modules:
        with contextlib.suppress(ImportError):
            importlib.import_module(module)
    gc.collect()
    gc.disable()
    gc.freeze()  # a collection in a child would copy every page


@functools.cache
def loaded(pipeline: str) -> PipelineConfig:
    return load(Path(pipeline))


def mark_what_is_durable() -> None:
    """Write into the journal what each backend has said that it keeps, as soon as it has said so."""
    acknowledge = Edge._acknowledge

    async def marked(self, seq):
        mark = json.dumps({"edge": self.report.backend, "seq": max(seq, self.durable)}).encode()
        SHIM.shim_mark(mark, len(mark))
        await acknowledge(self, seq)

    Edge._acknowledge = marked
    write_down = Pushed.write_down

    def marked_line(self, line):
        mark = json.dumps({"diary": line}).encode()
        SHIM.shim_mark(mark, len(mark))
        write_down(self, line)

    Pushed.write_down = marked_line


def note_when_flows_start(done: dict) -> None:
    """Keep, as `started`, how many points were passed before there was anything to read or to store."""
    run = Supervisor.run

    async def noted(self, flows):
        done["started"] = SHIM.shim_passed()
        await run(self, flows)

    Supervisor.run = noted


def live(request: dict) -> dict:
    """Run a pipeline once, in this process, and return what became of it."""
    fault = request.get("fault") or {}
    journal = -1
    if request.get("journal"):
        journal = os.open(request["journal"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        mark_what_is_durable()
    notices: list[str] = []
    if request.get("stdin"):
        os.dup2(os.open(request["stdin"], os.O_RDONLY), 0)
    SHIM.shim_arm(
        request["folder"].encode(),
        fault.get("kinds", 31),
        fault.get("mode", 0),
        fault.get("first", 0),
        fault.get("last", 0),
        fault.get("value", 0),
        journal,
    )

    def notice(text: str) -> None:
        notices.append(text)
        if request.get("notices"):
            with Path(request["notices"]).open("a") as file:
                file.write(text + "\n")
        if len(notices) == request.get("calm_after_notices"):
            SHIM.shim_calm()

    done: dict = {}
    note_when_flows_start(done)
    try:
        engine = Engine(
            loaded(request["pipeline"]),
            env=Hurried(),
            patience=request.get("patience"),
            on_notice=notice,
        )
        report = asyncio.run(engine.run())
        done |= {
            "exit": exit_code(report),
            "errors": [f"{type(flow.error).__name__}: {flow.error}" for flow in report.failed],
            "balanced": report.balanced,
            "notices_of_flows": [text for flow in report.flows for text in flow.notices],
        }
    except CollectorsError as error:
        done |= {"exit": 2, "errors": [f"{type(error).__name__}: {error}"]}
    except (Exception, BaseExceptionGroup) as error:
        import traceback

        done |= {"exit": 1, "crash": "".join(traceback.format_exception(error))}
    modules = {"modules": sorted(set(sys.modules) - KNOWN)} if request.get("tell_modules") else {}
    return done | modules | {"notices": notices, "passed": SHIM.shim_passed()}


class Children:
    """The lives that have been started and have not ended."""

    def __init__(self) -> None:
        self._reading: dict[int, int] = {}

    def start(self, request: dict) -> int:
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            code = 1
            try:
                os.close(reading)
                told = json.dumps(live(request)).encode()
                os.write(writing, told[:60_000])
                code = 0
            finally:
                os._exit(code)
        os.close(writing)
        self._reading[child] = reading
        return child

    def wait(self, child: int) -> dict:
        """Return once a life has ended, or has been stopped."""
        _, status = os.waitpid(child, os.WUNTRACED)
        if os.WIFSTOPPED(status):
            return {"stopped": True, "pid": child}
        with os.fdopen(self._reading.pop(child), "rb") as file:
            told = file.read()
        if os.WIFSIGNALED(status):
            return {"killed": os.WTERMSIG(status)}
        return json.loads(told)


def main() -> None:
    children = Children()
    for line in sys.stdin:
        request = json.loads(line)
        answer: dict = {}
        if "import" in request:
            import_all(request["import"])
        elif "start" in request:
            loaded(request["start"]["pipeline"])
            answer = {"pid": children.start(request["start"])}
        elif "go_on" in request:
            os.kill(request["go_on"], signal.SIGCONT)
        else:
            answer = children.wait(request["wait"])
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


main()
