"""The delivery protocol of real backends against a plain model: owners, crashes, replays, gaps, in any order."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from collectors import registry
from collectors.errors import FencedError
from collectors.storage.base import KeepsDeadLetters
from collectors.testing.deliveries import SCHEMA, delivery, everything

FLOWS = ("model/a", "model/b")
SHM = Path("/dev/shm")
flows = st.sampled_from(FLOWS)
owners = st.sampled_from((0, 1))


@dataclass
class Stored:
    """What the model says of a flow: its owner's epoch, the last chunk that is durable."""

    epoch: int = 0
    seq: int = 0


@dataclass
class Owner:
    """A process's backend and what it believes: its epoch of each flow, the last chunk that it handed over."""

    backend: object
    epochs: dict[str, int] = field(default_factory=dict)
    taken: dict[str, int] = field(default_factory=dict)


def chunks(flow, first, last, epoch):
    """Return a delivery whose rows and letters depend on nothing but flow and chunk."""
    made = delivery(first, last, epoch, flow=flow, rows=2, letters=1)
    return msgspec.structs.replace(
        made, table=made.table.append_column("flow", pa.array([flow] * made.table.num_rows))
    )


class Protocol(RuleBasedStateMachine):
    """Two owners of the same store. `component` and `options` are set by the test."""

    component: str
    options: dict[str, object]

    def __init__(self):
        super().__init__()
        self.folder = tempfile.TemporaryDirectory(dir=SHM if SHM.is_dir() else None)
        self.flows = {flow: Stored() for flow in FLOWS}
        self.owners = [Owner(self.backend()), Owner(self.backend())]
        self.dead = []

    def backend(self):
        path = {} if self.component == "memory" else {"path": f"{self.folder.name}/store"}
        made = registry.create("backend", self.component, {**path, **self.options})
        made.open()
        return made

    def teardown(self):
        for backend in (*(owner.backend for owner in self.owners), *self.dead):
            backend.close()
        self.folder.cleanup()

    def owns(self, number, flow):
        return self.owners[number].epochs.get(flow) == self.flows[flow].epoch

    def expect_fence(self, number, flow, what):
        """Do what only the owner of a flow may do, and see that this one may not."""
        before = replace(self.flows[flow])
        with pytest.raises(FencedError):
            what()
        self.owners[number].epochs.pop(flow)
        self.learn(number)
        assert self.flows[flow] == before

    def learn(self, number):
        """See what became durable of the flows that an owner has; all that it took of a flow, or nothing."""
        owner = self.owners[number]
        for flow in FLOWS:
            if self.owns(number, flow):
                seq = owner.backend.stored(flow).seq
                assert seq in {self.flows[flow].seq, owner.taken[flow]}
                self.flows[flow].seq = seq

    @rule(number=owners, flow=flows)
    def claim(self, number, flow):
        model, owner = self.flows[flow], self.owners[number]
        checkpoint = owner.backend.claim(flow)
        model.epoch += 1
        assert (checkpoint.epoch, checkpoint.seq) == (model.epoch, model.seq)
        owner.epochs[flow], owner.taken[flow] = model.epoch, model.seq

    @rule(number=owners, flow=flows, count=st.integers(1, 3))
    def commit(self, number, flow, count):
        owner = self.owners[number]
        if flow not in owner.epochs:
            return
        first = owner.taken[flow] + 1
        made = chunks(flow, first, first + count - 1, owner.epochs[flow])
        if not self.owns(number, flow):
            self.expect_fence(number, flow, lambda: (owner.backend.commit(made), owner.backend.flush()))
            return
        seq = owner.backend.commit(made)
        owner.taken[flow] = made.key.seq
        assert seq in {self.flows[flow].seq, made.key.seq}
        self.flows[flow].seq = seq

    @rule(number=owners, flow=flows, back=st.integers(1, 4))
    def commit_again(self, number, flow, back):
        """As after a failure whose outcome is unknown: nothing happens twice, however the chunks are grouped."""
        owner = self.owners[number]
        if not self.owns(number, flow) or not owner.taken[flow]:
            return
        last = owner.taken[flow]
        seq = owner.backend.commit(chunks(flow, max(1, last - back), last, owner.epochs[flow]))
        assert seq in {self.flows[flow].seq, last}
        self.flows[flow].seq = seq

    @rule(number=owners, flow=flows, first=st.integers(-2, 3))
    def commit_what_does_not_follow(self, number, flow, first):
        """Chunks are missing, or the delivery begins with some that are stored and goes on with others."""
        owner = self.owners[number]
        if not self.owns(number, flow) or first == 1 or owner.taken[flow] + first < 1:
            return
        taken = owner.taken[flow]
        wrong = chunks(flow, taken + first, taken + max(first, 1), owner.epochs[flow])
        with pytest.raises(FencedError):
            owner.backend.commit(wrong)
        self.learn(number)

    @rule(number=owners)
    def flush(self, number):
        owner = self.owners[number]
        for _ in FLOWS:
            try:
                owner.backend.flush()
            except FencedError:
                continue  # of a flow that it has lost: that one is dropped, the next call goes on with the others
            break
        for flow in FLOWS:
            if self.owns(number, flow):
                assert owner.backend.stored(flow).seq == owner.taken[flow]
        self.learn(number)

    @precondition(lambda self: self.component != "memory")
    @rule(number=owners, clean=st.booleans())
    def restart(self, number, clean):
        """End a process, or have it die, and start another; what it had only in its buffer is gone."""
        if clean:
            self.owners[number].backend.close()
        else:
            self.dead.append(self.owners[number].backend)
        self.owners[number] = Owner(self.backend())

    @rule(number=owners, flow=flows)
    def ask(self, number, flow):
        if self.component == "memory" and not self.owners[number].epochs:
            return
        checkpoint = self.owners[number].backend.stored(flow)
        model = self.flows[flow]
        assert (checkpoint.epoch, checkpoint.seq) == (model.epoch, model.seq)
        if model.seq:
            assert (checkpoint.position, checkpoint.schema) == ({"offset": model.seq * 100}, SCHEMA)

    @invariant()
    def what_is_stored_is_what_the_model_says(self):
        backend = self.owners[0].backend
        rows = backend.select(everything())
        letters = list(backend.dead_letters("model")) if isinstance(backend, KeepsDeadLetters) else None
        for flow, model in self.flows.items():
            expected = [(number, f"row {number}") for number in range(model.seq * 2)]
            assert [(row["n"], row["text"]) for row in rows if row["flow"] == flow] == expected
        if letters is not None:
            assert sorted(letter.seq for letter in letters) == sorted(
                seq for model in self.flows.values() for seq in range(1, model.seq + 1)
            )


class OneProcess(Protocol):
    """A store that lives in a process: both owners are flows of it."""

    def __init__(self):
        super().__init__()
        self.owners[1].backend = self.owners[0].backend


BACKENDS = {
    "memory": (OneProcess, {}),
    "sqlite": (Protocol, {"table": "rows"}),
    "parquet": (Protocol, {}),
    "parquet of few rows": (Protocol, {"max_rows": 5}),
}


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", BACKENDS)
def test_backends_do_as_the_model_says(name, full):
    machine, options = BACKENDS[name]
    kind = type(name, (machine,), {"component": name.split()[0], "options": options})
    size = settings(
        max_examples=2_000 if full else 100,
        stateful_step_count=40 if full else 25,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(kind, settings=size)
