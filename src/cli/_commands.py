"""The commands and their options; every error is one line on stderr, and an exit status."""

import contextlib
import inspect
import math
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from .. import __version__, pp, show_config
from ..pp._hvg import FLAVORS
from ..pp._pca import DEFAULT_COMPONENTS, SOLVERS
from ..pp._plan import memory_of
from ._report import one_line

FAILED, USAGE, INTERRUPTED, TERMINATED = 1, 2, 128 + signal.SIGINT, 128 + signal.SIGTERM


class NumberOrNone(click.ParamType):
    """A positive number, or "none"."""

    def __init__(self, kind: type) -> None:
        self.kind = kind
        self.name = f"{'integer' if kind is int else 'number'}|none"

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        """The number, or None."""
        if not isinstance(value, str):
            return value
        if value.lower() == "none":
            return None
        with contextlib.suppress(ValueError):
            number = self.kind(value)
            if 0 < number < math.inf:
                return number
        self.fail(f"{value!r} is neither a positive {self.kind.__name__} nor 'none'", param, ctx)


class Bytes(click.ParamType):
    """An amount of memory: 4GB, 500MB, 2GiB, or a number of bytes."""

    name = "bytes"

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        """In bytes."""
        with contextlib.suppress(ValueError):
            return memory_of(value)
        self.fail(f"{value!r} is no amount of memory such as 4GB or 500MB", param, ctx)


COUNT = click.IntRange(min=1)
PARAMETERS = inspect.signature(pp.recipe_pca).parameters
# Options that are arguments of `recipe_pca`, which has their defaults.
RECIPE: list[tuple[str, Any, str]] = [
    ("n_top_genes", NumberOrNone(int), "Genes to choose; none: by scanpy's cut-offs of mean and dispersion."),
    ("flavor", click.Choice(FLAVORS), "How genes are chosen."),
    ("n_bins", COUNT, "Flavour seurat: bins of genes with a similar mean."),
    ("span", click.FloatRange(min=0, min_open=True), "Flavours seurat_v3: share of genes in a local regression."),
    ("batch_key", str, "Column of obs: genes are chosen in each batch, and the choices merged."),
    ("target_sum", NumberOrNone(float), "Total of a cell after normalisation; none: the median of the cells."),
    ("exclude_highly_expressed", bool, "Leave highly expressed genes out of the totals."),
    ("max_fraction", click.FloatRange(0, 1), "Share of a cell's counts from which a gene is highly expressed."),
    ("max_value", NumberOrNone(float), "Where scaled values are clipped."),
    ("zero_center", bool, "Whether they are clipped after the mean was subtracted, or before."),
    ("n_comps", COUNT, "Principal components."),
    ("svd_solver", click.Choice([name for name in SOLVERS if name]), "How they are found: exactly, or randomized."),
    ("random_state", int, "Seed of what is random."),
    ("layer", str, "Layer with the counts, instead of X."),
    ("key_added", str, "Name of the results, instead of X_pca, PCs and pca."),
    ("chunk_rows", COUNT, "Cells (of a CSC matrix: genes) read at a time."),
]
# What a default of None means.
MEANING = {"n_comps": f"{DEFAULT_COMPONENTS}, or as many as there can be"}


def recipe_options(command: Callable) -> Callable:
    """The options of RECIPE, in its order."""
    for name, kind, text in reversed(RECIPE):
        flag, default = name.replace("_", "-"), PARAMETERS[name].default
        declared = f"--{flag}/--no-{flag}" if kind is bool and default else f"--{flag}"
        how: dict[str, Any] = {"is_flag": True} if kind is bool else {"type": kind}
        shown = MEANING.get(name, True if default is not None else "none" if isinstance(kind, NumberOrNone) else False)
        command = click.option(declared, name, default=default, show_default=shown, help=text, **how)(command)
    return command


SETTINGS: dict[str, Any] = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


@click.group(context_settings=SETTINGS)
@click.version_option(__version__, message="csraxis %(version)s")
def cli() -> None:
    """Single-cell preprocessing on sparse matrices, in bounded memory."""


@cli.command()
def info() -> None:
    """Print the engine, the processor's level, the threads and versions."""
    show_config()


@cli.command()
@click.argument("input", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="A .h5ad file or .zarr folder.")
@recipe_options
@click.option("--transpose", is_flag=True, help="A .mtx file has genes in its rows, not cells.")
@click.option("--memory", type=Bytes(), help="Bound of memory, such as 4GB: decides what is read at a time, and kept.")
@click.option("--threads", type=COUNT, help="Threads, of all workers together.  [default: the processors]")
@click.option("--workers", type=COUNT, help="Processes of a Dask cluster on this machine.  [default: none]")
@click.option("--scheduler", metavar="ADDRESS", help="A Dask cluster that runs already, which sees the same files.")
@click.option("--plot", type=click.Path(path_type=Path), metavar="FILE.png", help="Also draw components and genes.")
@click.option("--overwrite", is_flag=True, help="Replace an output that exists.")
@click.option("--quiet", is_flag=True, help="Print nothing but errors.")
@click.option("--debug", is_flag=True, help="Print the traceback of an error.")
def pca(**options: Any) -> None:
    """From counts to principal components: normalise, log1p, choose genes, scale, PCA.

    INPUT is a matrix of counts, cells x genes: .h5ad, .zarr, .h5 of 10x Genomics, a folder of 10x Genomics with
    matrix.mtx(.gz), a .mtx(.gz) file, or .npz of SciPy. The first three are read in pieces, in bounded memory.

    The output is an AnnData file with all that the input has but the matrices, and the results: the scores in
    obsm["X_pca"], the loadings in varm["PCs"], the genes chosen in var, and variances and parameters in uns. It is
    small: the counts are not copied. It appears when it is complete.

    Exit status: 0 done, 1 failed, 2 wrong usage, 130 interrupted, 143 terminated.
    """
    from ._pca import Job, run

    options.pop("debug")
    if options["workers"] and options["scheduler"]:
        raise click.UsageError("--workers and --scheduler exclude each other")
    recipe = {name: options.pop(name) for name, _, _ in RECIPE}
    summary = run(Job(recipe=recipe, **options))
    if not options["quiet"]:
        width = max(len(name) for name, _ in summary)
        for name, value in summary:
            click.echo(f"{name:{width}}  {value}")


def help_text() -> str:
    """What `csraxis pca --help` prints, 100 columns wide."""
    with click.Context(pca, info_name="csraxis pca", terminal_width=100, **SETTINGS) as context:
        return pca.get_help(context)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return the exit status."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    came: list[int] = []
    try:
        with _signals(came):
            return cli.main(arguments, prog_name="csraxis", standalone_mode=False) or 0
    except BaseException as error:
        if came:  # whatever has become of the exception on its way
            is_interrupt = came[0] == signal.SIGINT
            what, status = ("interrupted", INTERRUPTED) if is_interrupt else ("terminated", TERMINATED)
            return _failed(arguments, f"{what}; nothing was written", status)
        if not isinstance(error, Exception):
            raise
        return _failed(arguments, *_told(error))


def _told(error: Exception) -> tuple[str, int]:
    """The message and the exit status of an error."""
    if isinstance(error, click.UsageError):
        where = error.ctx.command_path if error.ctx is not None else "csraxis"
        return f"{error.format_message()} ({where} --help tells more)", USAGE
    if isinstance(error, ImportError):
        return f'{one_line(error)}: pip install "csraxis[cli]"', USAGE
    if isinstance(error, MemoryError):
        return f"not enough memory: {one_line(error)}", FAILED
    return one_line(error), FAILED


def _failed(arguments: list[str], message: str, status: int) -> int:
    if "--debug" in arguments:
        traceback.print_exc()
    print(f"csraxis: {message}", file=sys.stderr)
    return status


class _Stopped(BaseException):
    """A signal came."""


@contextlib.contextmanager
def _signals(came: list[int]) -> Iterator[None]:
    """Signals that end the process raise, so that it cleans up; the first is enough, others would disturb that."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, _: Any) -> None:
        for each in before:
            signal.signal(each, signal.SIG_IGN)
        came.append(number)
        raise _Stopped

    names = ("SIGINT", "SIGTERM", "SIGHUP")
    numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
    # One that is ignored already stays so: nohup does that.
    before = {number: signal.getsignal(number) for number in numbers if signal.getsignal(number) != signal.SIG_IGN}
    for number in before:
        signal.signal(number, handle)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def leave(status: int) -> None:
    """End the process.

    Where it failed, without more ado, unless it has workers: threads may be at work on a chunk, and HDF5 may crash when
    it closes what it could not write.
    """
    for number in (signal.SIGINT, signal.SIGTERM):  # what was done is done: the status says so
        signal.signal(number, signal.SIG_IGN)
    if status and not any(text.startswith("--workers") for text in sys.argv):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)
