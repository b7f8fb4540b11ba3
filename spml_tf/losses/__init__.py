"""Losses of labels and logits, and the consistency losses."""
