"""HTML pages of one file: the report of a run and the audit of its labels."""
