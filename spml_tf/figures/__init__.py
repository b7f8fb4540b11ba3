"""Figures that compare runs: their numbers, their drawing, their explanation."""
