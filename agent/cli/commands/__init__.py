"""The command line: thin commands that parse, build, call and print."""
