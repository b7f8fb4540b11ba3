"""Data sets: labels, readers, images, batches, checks, preparation and summaries."""
