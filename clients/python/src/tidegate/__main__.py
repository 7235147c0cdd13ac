"""`python -m tidegate`: the command, where its folder is not on the PATH."""

from tidegate.command.main import main

main()
