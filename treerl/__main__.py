"""`python -m treerl`."""

from treerl.cli import main

main()
