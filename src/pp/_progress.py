"""How far the chain is, told to the caller."""

import threading
from collections.abc import Callable
from functools import partial
from typing import Any
from uuid import uuid4

from ..dispatch._inputs import is_dask
from ._plan import cluster

Tell = Callable[[str, int, int], Any]


class Progress:
    """Tells how many cells the step at work has done, from the thread that did them.

    Tasks on the workers of a Dask cluster send it as an event.
    """

    def __init__(self, tell: Tell | None, n_cells: int) -> None:
        self._tell, self._total, self._topic = tell, n_cells, f"csraxis-progress-{uuid4()}"
        self._lock, self._step, self._done = threading.Lock(), "", 0.0
        self._client: Any = None

    def __enter__(self) -> "Progress":
        self._client = None if self._tell is None else cluster()
        if self._client is not None:
            self._client.subscribe_topic(self._topic, self._on_event)
        return self

    def __exit__(self, kind: Any, *exception: object) -> None:
        if self._client is not None:
            self._client.unsubscribe_topic(self._topic)
        if kind is None:
            self._end()

    def over(self, x: Any, step: str) -> Any:
        """A step begins, which goes over x: the same, but counted where it is lazy."""
        if self._tell is None:
            return x
        self._end()
        with self._lock:
            self._step, self._done = step, 0.0
        self._tell(step, 0, self._total)
        if not is_dask(x):
            return x
        from ..dispatch import _chunks

        return _chunks.map_chunks(partial(_counted, progress=self, step=step, m=x.shape[1]), "counted", x, x.dtype)

    def add(self, step: str, n: float) -> None:
        """So many cells more. A step that goes over them again begins again."""
        with self._lock:
            if step != self._step:
                return
            self._done = n if self._done >= self._total else self._done + n
            done = min(round(self._done), self._total)
        if self._tell is not None and done < self._total:
            self._tell(step, done, self._total)

    def _end(self) -> None:
        if self._tell is not None and self._step:
            self._tell(self._step, self._total, self._total)
            self._step = ""

    def _on_event(self, event: tuple[float, tuple[str, float]]) -> None:
        self.add(*event[1])

    def __dask_tokenize__(self) -> str:
        return self._topic

    def __reduce__(self) -> tuple:
        return _Remote, (self._topic,)


class _Remote:
    """What a worker has of it."""

    def __init__(self, topic: str) -> None:
        self._topic = topic

    def add(self, step: str, n: float) -> None:
        from distributed import get_worker

        get_worker().log_event(self._topic, (step, n))

    def __reduce__(self) -> tuple:
        return _Remote, (self._topic,)


def _counted(block: Any, *, progress: Any, step: str, m: int) -> Any:
    progress.add(step, block.shape[0] * block.shape[1] / max(m, 1))
    return block
