"""Tables of methods and seeds: plan files, the queue of their runs, the results as tables."""
