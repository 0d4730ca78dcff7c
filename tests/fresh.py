"""Python processes of their own, for what cannot be shown inside the one that runs the tests."""

import os
import subprocess
import sys
import textwrap


def run(script, *, options=(), timeout=120, fails=False, **variables):
    """What the script printed: to stdout, or with `fails`, where it must end with an error, to stderr.

    `variables` are added to the environment, which has none of csraxis's own.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CSRAXIS_")}
    process = subprocess.run(
        # -P: the current folder is not on sys.path, so the installed package is what is imported.
        [sys.executable, "-P", *options, "-c", textwrap.dedent(script)],
        env=environment | variables,
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    assert (process.returncode != 0) == fails, f"exit status {process.returncode}\n{process.stdout}\n{process.stderr}"
    return (process.stderr if fails else process.stdout).strip()
