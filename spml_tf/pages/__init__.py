"""HTML pages of one file: the report of a run and the audit of its labels."""

# How many labels of each kind an audit lists, and how many its page shows, unless it is said.
LISTED, SHOWN = 500, 100
# Images at a time.
BATCH_SIZE = 32
