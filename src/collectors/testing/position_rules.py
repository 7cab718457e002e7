"""The rules for backends that keep a flow's position beside its rows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from collectors.chunks import Checkpoint, DeadLetter, Delivery
from collectors.errors import FencedError
from collectors.storage.base import CommitsTogether, KeepsDeadLetters, KeepsPosition, ListsFlows
from collectors.testing.backend_rig import BackendRig
from collectors.testing.crashes import find_crash_losses
from collectors.testing.deliveries import NOON, SCHEMA, delivery, everything

__all__ = ["PositionRules"]


class PositionRules(BackendRig):
    """What `claim`, `commit` and `stored` promise; skipped for a backend without them."""

    def test_a_claim_raises_the_epoch(self, tmp_path: Path) -> None:
        """Each claim raises the flow's epoch by one, and no other flow's; before the first one it is 0."""
        self.needs(KeepsPosition)

        async def scenario(backend: Any) -> None:
            assert await backend.call(backend.stored, "contract/source") == Checkpoint(0)
            assert await backend.call(backend.claim, "contract/source") == Checkpoint(1)
            assert await backend.call(backend.claim, "contract/source") == Checkpoint(2)
            assert await backend.call(backend.claim, "contract/other") == Checkpoint(1)
            assert await backend.call(backend.stored, "contract/source") == Checkpoint(2)

        self.run(tmp_path, scenario)

    def test_flows_are_listed_by_their_source(self, tmp_path: Path) -> None:
        """Those of which anything is stored, of this source alone: not of one whose name begins like that."""
        self.needs(ListsFlows)
        long = f"{100 * 'p'}/{100 * 's'}"
        stored = [
            "contract/a",
            "contract/a/route",
            "contract/a-b",
            "contract/a0/route",
            "other/a",
            long,
            f"{long}/r",
        ]

        async def scenario(backend: Any) -> None:
            assert await backend.call(backend.flows, "contract/a") == []
            for flow in stored:
                await backend.call(backend.claim, flow)
                await backend.call(backend.commit, delivery(1, 1, flow=flow, letters=0))
                await backend.call(backend.flush)
            await backend.call(backend.claim, "contract/a/claimed")
            assert sorted(await backend.call(backend.flows, "contract/a")) == stored[:2]
            assert await backend.call(backend.flows, "contract/a/route") == stored[1:2]
            assert sorted(await backend.call(backend.flows, long)) == stored[-2:]

        self.run(tmp_path, scenario)

    def test_a_commit_is_whole_and_found_again(self, tmp_path: Path) -> None:
        """Rows, letters, position and schema of a commit are there together, for the next object too."""
        self.needs(KeepsPosition)

        async def store(backend: Any) -> None:
            await backend.call(backend.claim, "contract/source")
            await self._commit(backend, delivery(1, 2))
            await self._commit(backend, delivery(3, 3, letters=0))
            await self._see(backend, 1, 3, letters=2)

        async def see(backend: Any) -> None:
            await self._see(backend, 1, 3, letters=2)

        self.run(tmp_path, store)
        if self.survives:
            self.run(tmp_path, see)

    def test_the_same_delivery_stores_once(self, tmp_path: Path) -> None:
        """A delivery that is stored already is left out, also after later ones."""
        self.needs(KeepsPosition)

        async def scenario(backend: Any) -> None:
            await backend.call(backend.claim, "contract/source")
            await backend.call(backend.commit, delivery(1, 1))
            await backend.call(backend.commit, delivery(1, 1))
            await backend.call(backend.flush)
            assert await backend.call(backend.commit, delivery(1, 1)) == 1
            await self._commit(backend, delivery(2, 2, letters=0))
            assert await backend.call(backend.commit, delivery(1, 1)) == 2
            await self._see(backend, 1, 2, letters=1)

        self.run(tmp_path, scenario)

    def test_a_gap_is_refused(self, tmp_path: Path) -> None:
        """A delivery that does not follow the stored seq is refused as a whole."""
        self.needs(KeepsPosition)

        async def scenario(backend: Any) -> None:
            await backend.call(backend.claim, "contract/source")
            with pytest.raises(FencedError, match="contract/source"):
                await backend.call(backend.commit, delivery(2, 2))
            await self._commit(backend, delivery(1, 1))
            with pytest.raises(FencedError):
                await backend.call(backend.commit, delivery(3, 4))
            await backend.call(backend.flush)
            await self._see(backend, 1, 1, letters=1)

        self.run(tmp_path, scenario)

    def test_an_older_epoch_is_fenced(self, tmp_path: Path) -> None:
        """After another claim the old owner can store nothing more."""
        self.needs(KeepsPosition)

        async def scenario(backend: Any) -> None:
            await backend.call(backend.claim, "contract/source")
            await self._commit(backend, delivery(1, 1))
            await backend.call(backend.claim, "contract/source")
            with pytest.raises(FencedError):
                await backend.call(backend.commit, delivery(2, 2))
            await backend.call(backend.flush)
            await self._see(backend, 2, 1, letters=1)
            await self._commit(backend, delivery(2, 2, 2, letters=0))
            await self._see(backend, 2, 2, letters=1)

        self.run(tmp_path, scenario)

    def test_commits_together_are_stored_all_or_none(self, tmp_path: Path) -> None:
        """Deliveries of different flows: all are stored, each once; where one is fenced, none of them is."""
        self.needs(CommitsTogether)
        flows = ["contract/source", "contract/second", "contract/third"]

        async def scenario(backend: Any) -> None:
            for flow in flows:
                await backend.call(backend.claim, flow)
            first, *others = (delivery(1, 1, flow=flow, letters=0) for flow in flows)
            fenced = replace(others[-1], key=replace(others[-1].key, epoch=7))
            with pytest.raises(FencedError, match="contract/third"):
                await backend.call(backend.commit_together, [first, others[0], fenced])
            stored = [(await backend.call(backend.stored, flow)).seq for flow in flows]
            assert stored == [0, 0, 0]
            assert await backend.call(backend.commit_together, [first, *others]) == [1, 1, 1]
            again = [first, delivery(2, 2, flow=flows[1], letters=0)]
            assert await backend.call(backend.commit_together, again) == [1, 2]
            stored = [(await backend.call(backend.stored, flow)).seq for flow in flows]
            assert stored == [1, 2, 1]
            if self.can_query:
                found = [row["n"] for row in await backend.query(everything())]
                assert sorted(found) == sorted([*range(3)] * 3 + [*range(3, 6)])

        self.run(tmp_path, scenario)

    def test_a_second_process_fences_the_first(self, tmp_path: Path) -> None:
        """The same for an owner in another process, which may have handed rows over that are not durable yet."""
        self.needs(KeepsPosition)
        if not self.survives:
            pytest.skip(f"{self.component} is not shared")

        async def go_on(first: Any) -> None:
            await first.call(first.commit, delivery(2, 2, letters=0))
            await first.call(first.flush)

        async def scenario(first: Any) -> None:
            await first.call(first.claim, "contract/source")
            await first.call(first.commit, delivery(1, 1, letters=0))
            async with self.connected(tmp_path) as second:
                checkpoint = await second.call(second.claim, "contract/source")  # type: ignore[attr-defined]
                done = checkpoint.seq
                with pytest.raises(FencedError):
                    await go_on(first)
                for seq in range(done + 1, 4):
                    await self._commit(second, delivery(seq, seq, 2, letters=0))
                await self._see(second, 2, 3, letters=0)

        self.run(tmp_path, scenario)

    def test_letters_leave_with_the_commit_that_resolves_them(self, tmp_path: Path) -> None:
        """A delivery that replays letters deletes those in its commit; `forget_letters` deletes others; twice is fine."""
        self.needs(KeepsPosition)
        self.needs(KeepsDeadLetters)

        async def store(backend: Any) -> None:
            await backend.call(backend.claim, "contract/source")
            await self._commit(backend, delivery(1, 3))
            first, second, third = await backend.call(_letters(backend))
            replay = replace(
                delivery(1, 1, flow="contract/source/#replay", rows=0, letters=0), resolved=[second, first]
            )
            refused = replace(replay, key=replace(replay.key, epoch=2))
            await backend.call(backend.claim, "contract/source/#replay")
            with pytest.raises(FencedError):
                await backend.call(backend.commit, refused)
            assert await backend.call(_letters(backend)) == [first, second, third]
            await self._commit(backend, replay)
            await backend.call(backend.commit, replay)
            assert await backend.call(_letters(backend)) == [third]

        async def forget(backend: Any) -> None:
            (third,) = await backend.call(_letters(backend))
            await backend.call(backend.forget_letters, [replace(third, run="another"), third])
            await backend.call(backend.forget_letters, [third])
            assert await backend.call(_letters(backend)) == []

        self.run(tmp_path, store)
        if self.survives:
            self.run(tmp_path, forget)

    def test_letters_come_back_as_they_went(self, tmp_path: Path) -> None:
        """Every field of a letter is kept."""
        self.needs(KeepsDeadLetters)

        async def scenario(backend: Any) -> None:
            await backend.call(backend.claim, "contract/source")
            what = delivery(1, 1)
            (letter,) = what.dead_letters
            full = replace(
                letter,
                route="hot",
                attempt=2,
                origin="source:1:decode:0",
                head=b"\x00a,b\n",
                data_format="csv",
                whole=False,
                passed="cast",
            )
            plain = replace(letter, record=1, raw=b"", position=None)
            await self._commit(backend, replace(what, dead_letters=[full, plain]))
            assert await backend.call(_letters(backend)) == [full, plain]

        self.run(tmp_path, scenario)

    def test_dying_at_any_moment_loses_and_doubles_nothing(self, tmp_path: Path) -> None:
        """Killed before any call to the system, it stores each row once all the same."""
        self.needs(KeepsPosition)
        if not (self.survives and self.can_query):
            pytest.skip(f"{self.component} does not outlive its process, or cannot be asked")
        moments, losses = find_crash_losses(self.component, self.settings(Path("{folder}")), tmp_path)
        assert losses == []
        assert moments > 10

    async def _commit(self, backend: Any, what: Delivery) -> None:
        """Commit and flush; the seq is durable then."""
        await backend.call(backend.commit, what)
        await backend.call(backend.flush)
        assert (await backend.call(backend.stored, what.key.flow)).seq == what.key.seq

    async def _see(self, backend: Any, epoch: int, seq: int, *, letters: int) -> None:
        """See that exactly the chunks up to `seq` are there, each row once, with position and letters."""
        keeps_letters = isinstance(backend, KeepsDeadLetters)
        expected = Checkpoint(epoch, seq, {"offset": seq * 100}, SCHEMA)
        assert await backend.call(backend.stored, "contract/source") == expected
        if self.can_query:
            found = await backend.query(everything())
            assert [row["n"] for row in found] == list(range(seq * 3))
        if keeps_letters:
            stored = await backend.call(_letters(backend))
            assert len(stored) == letters
            assert [letter.raw for letter in stored] == [b"\x00\xff{"] * letters
            assert [letter.created_at for letter in stored] == [NOON] * letters


def _letters(backend: Any) -> Callable[[], list[DeadLetter]]:
    return lambda: list(backend.dead_letters("contract"))
