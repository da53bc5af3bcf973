"""The command line: one file for each command, arguments in, workflow called, result shown."""
