"""The command `treerl`, also as `python -m treerl`: Ctrl-C may come while it is being imported."""

import sys


def main() -> None:
    """Run the command line."""
    try:
        from treerl.cli import main as run
        from treerl.run.leaving import leave_threads

        try:
            run()
        except SystemExit as end:
            leave_threads(end.code)
            raise
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
