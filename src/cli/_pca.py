"""From a matrix on disk to an AnnData file with its principal components."""

import contextlib
import importlib
import json
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from .. import __version__, get_config, pp
from ..io._formats import Source, source_of
from ..io._rows import Rows
from ..pp._plan import Plan, passes_of, plan_of
from ._output import Forgiving, replaced
from ._report import Report, amount, bytes_read, duration, one_line, peak_memory

SUFFIXES = (".h5ad", ".zarr")
# How many cells are looked at before the work begins.
FIRST = 200


class Failed(Exception):
    """With a message for the user."""


class Job(NamedTuple):
    """What `csraxis pca` was asked for."""

    input: Path
    output: Path
    recipe: dict[str, Any]
    """Arguments of `recipe_pca`."""
    transpose: bool = False
    memory: int | None = None
    threads: int | None = None
    workers: int | None = None
    scheduler: str | None = None
    plot: Path | None = None
    overwrite: bool = False
    quiet: bool = False


class Usage(NamedTuple):
    """Of a process."""

    memory: int
    read: int | None


def usage() -> Usage:
    """Of this process, so far."""
    return Usage(peak_memory(), bytes_read())


def run(job: Job) -> list[tuple[str, str]]:
    """Do it, and say what was done: a summary of names and values.

    Raises
    ------
    Failed, ImportError, OSError
        Nothing is written then, and what was there is as it was.
    """
    source = _source(job)
    _check_places(job)
    with Report(job.quiet) as report, contextlib.ExitStack() as stack:
        report.progress("loading libraries")
        _load()
        before = usage()
        _check_memory(job, source, report)
        # The first to be entered is the last to get its name.
        picture = stack.enter_context(_told(job.plot, replaced(job.plot, overwrite=True))) if job.plot else None
        temporary = stack.enter_context(
            _told(job.output, replaced(job.output, overwrite=job.overwrite, folder=job.output.suffix == ".zarr"))
        )
        cluster = stack.enter_context(_compute_on(job, source, report))
        report.progress("opening")
        with _failing(source.path), _without_warnings():
            adata = source.open(job.recipe["chunk_rows"])
        x = _check_matrix(job, adata)
        _check_space(job, adata)
        plan = _plan(job, x, report)
        if plan is None and job.memory and not source.held():
            report.note("--memory has no effect, as features of other types than genes are left out")
        _recipe(job, adata, plan, report)
        report.progress("writing")
        with _failing(job.output), _without_warnings():
            _write(job, adata, temporary)
        if job.plot is not None and picture is not None:
            from ._plot import draw

            report.progress("drawing")
            with _failing(job.plot):
                draw(adata, job.input.name, job.recipe["key_added"], picture, job.plot.suffix[1:])
        workers = list(cluster.run(usage).values()) if cluster is not None else []
        size, n_stored = _size(source.path), source.n_stored(job.recipe["layer"])  # while an error undoes all
    return _summary(job, size, n_stored, adata, plan, report, before, workers)


# Before anything is read


def _load() -> None:
    """Import now what would be imported later, and would count as reading."""
    for package in ("anndata", "dask.array", "h5py", "zarr", "pandas"):
        importlib.import_module(package)


def _source(job: Job) -> Source:
    with _failing(job.input):
        return source_of(job.input, transpose=job.transpose)


def _check_places(job: Job) -> None:
    """Where results go: a name that says how, in a folder that exists, and not the input."""
    if job.output.suffix not in SUFFIXES:
        raise Failed(f"{job.output}: the output must end with {' or '.join(SUFFIXES)}")
    given = job.input.resolve()
    for path in (job.output, *([job.plot] if job.plot else [])):
        if not path.parent.is_dir():
            raise Failed(f"{path}: there is no folder {path.parent}")
        place = path.resolve()
        if place == given or place in given.parents or given in place.parents:
            raise Failed(f"{path}: the output must not be the input, in it, or around it")
    if job.output.exists() and job.output.is_dir() != (job.output.suffix == ".zarr"):
        raise Failed(f"{job.output}: there is a {'folder' if job.output.is_dir() else 'file'} of that name")
    if job.plot:
        from ._plot import suffixes

        if job.plot.suffix[1:] not in suffixes():
            raise Failed(f"{job.plot}: a picture must end with one of {', '.join('.' + end for end in suffixes())}")
        if job.plot.is_dir():
            raise Failed(f"{job.plot}: there is a folder of that name")


def _check_memory(job: Job, source: Source, report: Report) -> None:
    """Say what a format takes that cannot be read in pieces; refuse what does not fit."""
    with _failing(source.path):
        held = source.held()
    if not held:
        return
    if job.workers or job.scheduler:
        raise Failed(
            f"{source.path}: workers read from .h5ad, .zarr and 10x .h5 files only, as parts of these can be read"
        )
    free = _available_memory()
    if held > free:
        raise Failed(
            f"{source.path}: {source.format} can only be read as a whole, which takes {amount(held)} of memory; "
            f"{amount(free)} is available. .h5ad, .zarr and 10x .h5 files are read in pieces"
        )
    besides = f" besides --memory {amount(job.memory)}" if job.memory else ""
    report.note(f"{source.path.name} can only be read as a whole: {amount(held)} of memory{besides}")


def _available_memory() -> int:
    """Bytes, of the machine or of the control group that this process is in."""
    import psutil

    free = psutil.virtual_memory().available
    with contextlib.suppress(OSError, ValueError):  # no control group (version 2), or no limit ("max")
        limit, used = (int(Path(f"/sys/fs/cgroup/memory.{name}").read_text()) for name in ("max", "current"))
        free = min(free, max(limit - used, 0))
    return free


# Where it is computed


@contextlib.contextmanager
def _compute_on(job: Job, source: Source, report: Report) -> Iterator[Any]:
    """The client of a Dask cluster, or None where this process computes, with so many threads."""
    import dask
    from threadpoolctl import threadpool_limits

    if job.scheduler:
        from distributed import Client

        # What a client that does not come about sets as default is put back, too.
        with _failing(job.scheduler), dask.config.set(scheduler="threads"), Client(job.scheduler, timeout=10) as client:
            yield client
    elif job.workers:
        report.progress("starting workers")
        with _workers(job, job.workers) as client:
            yield client
    else:
        own = {"scheduler": "threads"} | ({"num_workers": job.threads} if job.threads else {})
        with dask.config.set(own), threadpool_limits(job.threads), _engine_threads(job.threads):
            yield None


@contextlib.contextmanager
def _engine_threads(count: int | None) -> Iterator[None]:
    """Of kernels that work for the main thread; a number given to `set_config` would hold in Dask's threads, too."""
    name = "CSRAXIS_NUM_THREADS"
    before = os.environ.get(name)
    if count is not None:
        os.environ[name] = str(count)
    try:
        yield
    finally:
        if count is not None:
            os.environ.pop(name)
            os.environ |= {name: before} if before is not None else {}


@contextlib.contextmanager
def _workers(job: Job, count: int) -> Iterator[Any]:
    """Processes on this machine, which share the threads and the memory."""
    import logging

    import dask
    from distributed import Client, LocalCluster

    threads = max(1, (job.threads or get_config()["threads"]) // count)
    memory = _of_each(job) or "auto"
    settings = {
        # Neighbouring blocks are on one worker: to take some from it would move what they are made of.
        "distributed.scheduler.work-stealing": False,
        # Dask looks so long after the loss of a worker whether it is there again, and gives it up where it is not; one
        # that is lost a second time just before that is not there either.
        "distributed.deploy.lost-worker-timeout": "1 day",
        "distributed.scheduler.no-workers-timeout": "2 minutes",
    }
    with dask.config.set(settings):
        with _interrupts_held_back():
            cluster = LocalCluster(
                n_workers=count,
                threads_per_worker=threads,
                memory_limit=memory,
                dashboard_address=":0",
                silence_logs=logging.CRITICAL,
            )
        with cluster, Client(cluster) as client:
            yield client


@contextlib.contextmanager
def _interrupts_held_back() -> Iterator[None]:
    """Ctrl-C waits for the end of the block, and what is started in it never sees one.

    A terminal sends it to all processes; the workers are for this one to end.
    """
    import signal
    from multiprocessing import resource_tracker

    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    resource_tracker.ensure_running()  # which would let signals through to what is started after it
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


# The matrix


def _check_matrix(job: Job, adata: Any) -> Any:
    """The counts, after a look at what can be seen without reading them, and at the first of them."""
    layer = job.recipe["layer"]
    if layer is not None and layer not in adata.layers:
        names = ", ".join(repr(name) for name in adata.layers if name is not None)  # from anndata 0.13 on X is None's
        raise Failed(f"{job.input}: no layer {layer!r}; there are {names or 'none'}")
    x, name = (adata.X, "X") if layer is None else (adata.layers[layer], f"layer {layer!r}")
    if x is None:
        raise Failed(f"{job.input} has no X; --layer names a layer with counts")
    if 0 in adata.shape:
        raise Failed(f"{job.input} is empty: {adata.n_obs:,} cells and {adata.n_vars:,} genes")
    if not hasattr(x._meta, "format"):
        raise Failed(f"{job.input}: {name} is dense; store the counts as a sparse matrix (scipy.sparse.csr_matrix)")
    wanted = job.recipe["n_top_genes"]
    if wanted is not None and wanted > adata.n_vars:
        raise Failed(f"{job.input} has {adata.n_vars:,} genes, fewer than --n-top-genes {wanted}")
    key = job.recipe["batch_key"]
    if key is not None and key not in adata.obs:
        there = f"there are {', '.join(map(repr, adata.obs))}" if len(adata.obs.columns) else "there are none"
        raise Failed(f"{job.input}: no column {key!r} in obs for --batch-key; {there}")
    with _failing(job.input):
        _check_values(job, adata, x, name)
    return x


def _check_values(job: Job, adata: Any, x: Any, name: str) -> None:
    """Whether what the first cells (of a CSC matrix: genes) have may be counts."""
    import numpy as np

    from ..io._lazy import source

    rows = source(x)
    values = (rows.read(0, min(FIRST, x.shape[0])) if isinstance(rows, Rows) else x.blocks[0, 0].compute()).data
    if not np.isfinite(values).all():
        raise Failed(f"{job.input}: {name} has NaN or infinite values")
    if values.min(initial=0) < 0:
        raise Failed(f"{job.input}: {name} has negative values, which counts cannot be")
    if job.recipe["layer"] is None and "log1p" in adata.uns and (values != np.rint(values)).any():
        raise Failed(f"{job.input}: X was logged already (uns['log1p']); --layer names a layer with counts")


def _plan(job: Job, x: Any, report: Report) -> Plan | None:
    """What is going to be done, said before it is; None for what is held as a whole, or of which parts are left out."""
    options = job.recipe
    n_passes = passes_of(options["flavor"], options["target_sum"], options["exclude_highly_expressed"])
    with _failing(job.input):
        plan = plan_of(x, _of_each(job), options["n_top_genes"], n_passes, options["chunk_rows"])
    if plan is not None:
        passes = "once" if plan.passes == 1 else f"{plan.passes} times"
        whose = " in each worker" if job.workers or job.scheduler else ""
        report.note(f"reading {passes}, keeping the {plan.keeps}, in about {amount(plan.peak)} of memory{whose}")
    return plan


def _recipe(job: Job, adata: Any, plan: Plan | None, report: Report) -> None:
    """Run the chain on the AnnData."""
    options = job.recipe | {"memory": _of_each(job), "progress": report.progress}
    if plan is None:
        options = {name: value for name, value in options.items() if name not in ("chunk_rows", "memory")}
    with _failing(job.input), _noted(report):
        pp.recipe_pca(adata, **options)


def _of_each(job: Job) -> int | None:
    """Bytes of memory of each process that computes."""
    return job.memory // (job.workers or 1) if job.memory else None


# The results


def _check_space(job: Job, adata: Any) -> None:
    """Refuse now what the disk cannot hold after an hour's work: the scores are nearly all of the file."""
    import shutil

    wanted = adata.n_obs * (job.recipe["n_comps"] or pp._pca.DEFAULT_COMPONENTS) * 4
    free = shutil.disk_usage(job.output.parent).free
    if wanted > free:
        raise Failed(f"{job.output}: the scores need {amount(wanted)}, and {amount(free)} of the disk is free")


def _write(job: Job, adata: Any, path: Path) -> None:
    """All but the counts, and how it was made."""
    import anndata

    parameters = json.dumps(job.recipe)
    made = {"version": __version__, "input": job.input.name, "command": "pca", "parameters": parameters}
    parts = {name: getattr(adata, name) for name in ("obs", "var", "obsm", "varm", "obsp", "varp")}
    result = anndata.AnnData(**parts, uns={**adata.uns, "csraxis": made})
    if job.output.suffix == ".zarr":
        result.write_zarr(path)
        return
    import h5py
    from anndata.io import write_elem

    with Forgiving(path) as target:
        try:
            with h5py.File(target, "w") as file:
                write_elem(file, "/", result)
                file.pop("raw", None)  # which says that there is none, in a way that older versions cannot read
        finally:  # whatever HDF5 makes of it
            target.check()


def _summary(
    job: Job,
    size: int,
    n_stored: int,
    adata: Any,
    plan: Plan | None,
    report: Report,
    before: Usage,
    workers: list[Usage],
) -> list[tuple[str, str]]:
    now = usage()
    memory = amount(now.memory)
    if workers:
        memory += f", and up to {amount(max(worker.memory for worker in workers))} in each of {len(workers)} workers"
    lines = [
        ("cells", f"{adata.n_obs:,}"),
        ("genes", f"{adata.n_vars:,}, {int(adata.var['highly_variable'].sum()):,} chosen"),
        ("stored values", f"{n_stored:,}"),
        ("components", f"{adata.obsm[job.recipe['key_added'] or 'X_pca'].shape[1]}"),
        ("time", duration(sum(report.seconds.values()))),
        *((f"  {step}", duration(seconds)) for step, seconds in report.seconds.items()),
        ("peak memory", memory),
    ]
    if now.read is not None and before.read is not None:
        read = now.read - before.read + sum(worker.read or 0 for worker in workers)
        passes = f"{plan.passes} pass{'es' * (plan.passes > 1)} over the counts, " if plan is not None else ""
        lines.append(("read", passes + f"{amount(read)}; the input has {amount(size)}"))
    lines.append(("result", str(job.output)))
    return [*lines, ("picture", str(job.plot))] if job.plot else lines


def _size(path: Path) -> int:
    """Bytes of a file, or of all files of a folder."""
    return sum(file.stat().st_size for file in path.rglob("*")) if path.is_dir() else path.stat().st_size


# What goes wrong


@contextlib.contextmanager
def _failing(about: Any) -> Iterator[None]:
    """Errors say what they are about."""
    try:
        yield
    except (Failed, ImportError, MemoryError):
        raise
    except Exception as error:
        text = one_line(error)
        if isinstance(about, Path):
            text = text.replace(str(about.absolute()), str(about))  # as it was given
        raise Failed(text if str(about) in text else f"{about}: {text}") from error


@contextlib.contextmanager
def _told(about: Any, manager: Any) -> Iterator[Any]:
    """Errors of a context manager itself say what they are about; those of the block pass through it."""
    with _failing(about), manager as value:
        yield value


@contextlib.contextmanager
def _without_warnings() -> Iterator[None]:
    """Those of anndata and zarr about their formats are not for who uses the command."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextlib.contextmanager
def _noted(report: Report) -> Iterator[None]:
    """csraxis's own warnings as notes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.filterwarnings("always", category=UserWarning)
        warnings.showwarning = lambda message, category, *_: (
            report.note(f"warning: {message}") if category is UserWarning else None
        )
        yield
