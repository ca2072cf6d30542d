"""The command line: thin commands, and how their answers look."""
