"""Asking together: requests that come while one statement is under way share the next.

By itself, a short statement costs Postgres and this process more in messages and wake-ups than in work. Nobody waits
for company: a request that comes alone is served at once.
"""

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Sequence
from functools import partial
from typing import Final, Generic, TypeAlias, TypeVar

Asked = TypeVar("Asked")
Told = TypeVar("Told")
_Waiting: TypeAlias = list[tuple[Asked, asyncio.Future[Told]]]

_MOST: Final = 500


class Together(Generic[Asked, Told]):
    """One for a process. `act` answers many at once, in their order: each with what it is told, or why it is not.

    Only those of one group share a statement, and a group has one under way at a time.
    """

    def __init__(self, act: Callable[[Sequence[Asked]], Awaitable[Sequence[Told | BaseException]]]) -> None:
        self._act = act
        self._waiting: dict[Hashable, _Waiting[Asked, Told]] = {}
        self._under_way: dict[Hashable, asyncio.Task[Sequence[Told | BaseException]]] = {}

    async def ask(self, asked: Asked, *, group: Hashable = None) -> Told:
        """The answer to `asked`, by a statement that began after this was called. Raises what `act` does."""
        answer: asyncio.Future[Told] = asyncio.get_running_loop().create_future()
        if group in self._waiting:
            self._waiting[group].append((asked, answer))
        else:
            self._waiting[group] = []
            self._begin(group, [(asked, answer)])
        return await answer

    def _begin(self, group: Hashable, served: _Waiting[Asked, Told]) -> None:
        task = asyncio.get_running_loop().create_task(self._look_at([asked for asked, _ in served]))
        task.add_done_callback(partial(self._end, group, served))
        self._under_way[group] = task

    async def _look_at(self, asked: Sequence[Asked]) -> Sequence[Told | BaseException]:
        return await self._act(asked)

    def _end(
        self,
        group: Hashable,
        served: _Waiting[Asked, Told],
        task: asyncio.Task[Sequence[Told | BaseException]],
    ) -> None:
        del self._under_way[group]
        if waiting := self._waiting.pop(group):
            self._waiting[group] = waiting[_MOST:]
            self._begin(group, waiting[:_MOST])
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        told = [error] * len(served) if error else task.result()
        for (_, answer), one in zip(served, told, strict=True):
            if answer.done():
                continue  # who asked has hung up
            if isinstance(one, BaseException):
                answer.set_exception(one)
            else:
                answer.set_result(one)
