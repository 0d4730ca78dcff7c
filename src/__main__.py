"""``python -m csraxis`` and the command ``csraxis``."""

import sys


def main() -> None:
    """Run the command line; without the packages that it needs, say what to install."""
    try:
        from csraxis.cli import _commands
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in ("click", "rich"):
            raise
        print(f'csraxis: the command line needs {error.name}: pip install "csraxis[cli]"', file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:  # while it is loaded
        sys.exit(130)
    _commands.leave(_commands.main())


if __name__ == "__main__":
    main()
