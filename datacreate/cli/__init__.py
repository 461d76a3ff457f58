"""The command line: parse, call, print, and nothing else.

main.py      signals, standard streams, exit codes; group.py: the list of commands
options.py   command line options from settings, `--config`
terminal.py  output and progress

The other modules are named after their commands.
"""
