"""Dask graphs of one pass over a matrix: a task goes from what is stored to a small result, block of rows by block.

No block is a task's result (unless it is asked for), so none can be sent from worker to worker. On a cluster neighbours
go to one worker, where their partial results merge before they travel, and blocks that a worker has in memory are used
there. These are wishes: where a worker is lost others do its part, and results merge in the order of the blocks, by
groups that depend on the chunks alone, so that the bits do not depend on what ran where.
"""

import time
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import dask
import dask.array as da
from dask._task_spec import convert_legacy_graph
from dask.base import compute_as_if_collection, get_scheduler
from dask.highlevelgraph import HighLevelGraph
from dask.utils import ensure_dict

# One task does several blocks, one after the other, where that leaves so many tasks; and no more than so many blocks.
# (The scheduler takes about a millisecond for a task.)
TASKS_FROM, BLOCKS_AT_MOST = 128, 16
# How many partial results one task merges.
SPLIT_EVERY = 8
# Seconds between two looks at workers; how often in a row none has anything to do before all starts again; and how
# often there is none before that is said.
PATIENCE, IDLE, ALONE = 2, 3, 15
# In place of the number of a block: of several.
COMMON = -1

Key = Any


class Blocks:
    """Some blocks of a matrix, made by one task: each in its turn, by tasks that Dask does not see."""

    def __init__(self, graphs: list[dict], parts: list[list[Key]], given: list[Key]) -> None:
        self.graphs, self.parts, self.given = graphs, parts, given

    def made_of(self, values: list[Any]) -> Iterator[list[Any]]:
        """The parts of each block; the values are those of the keys that are given."""
        known = dict(zip(self.given, values))
        for graph, parts in zip(self.graphs, self.parts):
            yield _values(graph, parts, known)


def _values(graph: dict, keys: list[Key], known: dict) -> list[Any]:
    """What the tasks of a graph make of what is known; nothing is kept for longer than it is needed."""
    values, uses = dict(known), Counter(keys)
    for task in graph.values():
        uses.update(task.dependencies)

    def value(key: Key) -> Any:
        if key not in values:
            task = graph[key]
            values[key] = task({name: value(name) for name in task.dependencies})
        uses[key] -= 1
        return values[key] if uses[key] else values.pop(key)

    return [value(key) for key in keys]


class Pass:
    """A pass over blocks, each of which is a list of keys: what is needed together, of one or several arrays."""

    def __init__(self, arrays: Sequence[da.Array], blocks: list[list[Key]]) -> None:
        keys = [key for block in blocks for key in block]
        graph = HighLevelGraph.merge(*(array.dask for array in arrays))
        graph = convert_legacy_graph(ensure_dict(arrays[0].__dask_optimize__(graph, keys)))
        owners: dict[Key, int] = {}
        for number, block in enumerate(blocks):
            waiting = list(block)
            while waiting:
                key = waiting.pop()
                owner = owners.get(key)
                if key in graph and owner not in (number, COMMON):
                    owners[key] = number if owner is None else COMMON
                    waiting += graph[key].dependencies
        self.blocks = blocks
        self.own: list[dict] = [{} for _ in blocks]
        self.common: dict[Key, Any] = {}
        for key, owner in owners.items():
            (self.common if owner == COMMON else self.own[owner])[key] = graph[key]
        self.given = [
            sorted({*block, *(name for task in own.values() for name in task.dependencies)} - set(own), key=str)
            for own, block in zip(self.own, blocks)
        ]
        self.client = current_client()
        self.futures = {} if self.client is None else _futures(arrays)
        self.workers: list[Any] = [None] * len(blocks) if self.client is None else self._preferred()
        self.places: dict[Key, list[str]] = defaultdict(list)

    def _preferred(self) -> list[str | None]:
        """The worker for each block: that which has most of what it is made of; without that, neighbours share one."""
        workers = [worker for worker, threads in self.client.nthreads().items() for _ in range(threads)]
        n = len(self.blocks)
        preferred = [workers[i * len(workers) // n] if workers else None for i in range(n)]
        if self.futures:
            import distributed

            distributed.wait(list(self.futures.values()))
            holders = self.client.who_has(list(self.futures.values()))
            for number, given in enumerate(self.given):
                having = [worker for key in given for worker in holders.get(key, ())]
                preferred[number] = max(having, key=having.count, default=preferred[number])
        return preferred

    def groups(self, numbers: range) -> Iterator[range]:
        """These blocks, in groups of neighbours."""
        size = min(max(len(numbers) // TASKS_FROM, 1), BLOCKS_AT_MOST)
        return (numbers[start : start + size] for start in range(0, len(numbers), size))

    def task(self, graph: dict, key: Key, function: Callable, numbers: range, *arguments: Any) -> None:
        """Add the task `function(parts of block after block, *arguments)`."""
        given = list(dict.fromkeys(name for number in numbers for name in self.given[number]))
        blocks = Blocks([self.own[number] for number in numbers], [self.blocks[number] for number in numbers], given)
        graph[key] = (_run, function, blocks, given, *arguments)
        self.put(key, self.workers[numbers[0]])

    def put(self, key: Key, worker: str | None) -> None:
        """Where the task for this key should run."""
        if worker is not None:
            self.places[key] = [worker]

    def merge(self, graph: dict, result: Key, keys: list[Key], combine: Callable, at_once: int) -> None:
        """Add the tasks that make `result` of what the keys stand for, each where the first of its keys is."""
        for key, of in merge_in_order(graph, result, keys, combine, at_once):
            self.places[key] = self.places[of]

    def compute(self, name: str, graph: dict, keys: list[Key]) -> list[Any]:
        """The values of the keys, now."""
        if self.client is None:
            return list(compute_as_if_collection(da.Array, self._whole(name, graph), keys))
        return self.client.gather(self._on_workers(name, graph, keys))

    def persist(self, name: str, graph: dict, like: da.Array) -> da.Array:
        """The keys of the graph as chunks of an array, now: in the memory of the workers, where there are any."""
        layers = self._whole(name, graph)
        if self.client is not None:
            futures = dict(zip(graph, self._on_workers(name, graph, list(graph))))
            # Where they are made again, if a worker is lost, does not matter.
            self.client.sync(self.client.scheduler.set_restrictions, worker=dict.fromkeys(graph))
            layers = HighLevelGraph.from_collections(name, futures, [])
        result = da.Array(layers, name, like.chunks, meta=like._meta, dtype=like.dtype)
        return result.persist() if self.client is None else result

    def _whole(self, name: str, graph: dict) -> HighLevelGraph:
        """The graph, with all that it depends on."""
        return HighLevelGraph.from_collections(name, {**self.futures, **self.common, **graph}, [])

    def _on_workers(self, name: str, graph: dict, keys: list[Key]) -> list[Any]:
        """Futures of the keys, when all are there, or have failed.

        A task whose worker is lost while there is no other waits for that one only (Dask forgets that others were
        allowed, when they come): then all starts again without preferences.
        """
        from distributed import wait

        submit = partial(self.client.get, self._whole(name, graph), keys, sync=False)
        with dask.annotate(workers=self.places.__getitem__, allow_other_workers=True):
            futures = submit()
        idle = alone = 0
        while idle < IDLE:
            try:
                wait(futures, timeout=PATIENCE)
                return futures
            except TimeoutError:
                workers = self.client.nthreads()
                idle = idle + 1 if workers and not any(self.client.processing().values()) else 0
                alone = 0 if workers else alone + 1
                if alone == ALONE:
                    _say_that_none_is_there(self.client)
        self.client.cancel(futures, force=True)
        time.sleep(PATIENCE)  # the scheduler's notice of that must not come when there are new futures of these keys
        futures = submit()
        wait(futures)
        return futures


def merge_in_order(
    graph: dict[Key, Any], result: Key, keys: list[Key], combine: Callable[[list], Any], at_once: int = SPLIT_EVERY
) -> list[tuple[Key, Key]]:
    """Add the tasks that make `result` of what the keys stand for, a few at a time; each task, and its first key."""
    name, *place = result
    added, level = [], 0
    while len(keys) > at_once:
        groups = [keys[i : i + at_once] for i in range(0, len(keys), at_once)]
        keys = [(f"{name}-{level}", *place, i) for i in range(len(groups))]
        added += [(key, group[0]) for key, group in zip(keys, groups)]
        graph.update((key, (combine, group)) for key, group in zip(keys, groups))
        level += 1
    graph[result] = (combine, keys)
    return [*added, (result, keys[0])]


def once(name: str, arrays: Sequence[Any], graph: dict[Key, Any] | None = None) -> tuple[dict[Key, Any], list[Key]]:
    """Arrays that many tasks use, each in the graph once; and their keys."""
    graph = {} if graph is None else graph
    keys = [(f"{name}-shared", number) for number in range(len(arrays))]
    graph.update(zip(keys, arrays))
    return graph, keys


def _run(function: Callable, blocks: Blocks, values: list[Any], *arguments: Any) -> Any:
    return function(blocks.made_of(values), *arguments)


def current_client() -> Any:
    """Dask's client, where a cluster is what computes now."""
    client = getattr(get_scheduler(cls=da.Array), "__self__", None)
    return client if hasattr(client, "who_has") else None


def _say_that_none_is_there(client: Any) -> None:
    warnings.warn(
        f"the cluster at {client.scheduler.address} has had no worker for {ALONE * PATIENCE} s; waiting for one. (With "
        'dask.config.set({"distributed.scheduler.no-workers-timeout": "5 minutes"}) a cluster started after that ends '
        "such a wait with an error.)",
        UserWarning,
        stacklevel=2,
    )


def _futures(arrays: Sequence[da.Array]) -> dict[Key, Any]:
    """What the arrays have in the memory of workers."""
    from distributed import futures_of

    return {future.key: future for array in arrays for future in futures_of(array)}
