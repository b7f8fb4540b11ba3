"""Terminal, files and processes: command lines, one-line errors, outputs in one step."""
