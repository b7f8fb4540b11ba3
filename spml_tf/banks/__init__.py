"""Moving averages of each image's scores and heatmaps, and warping to and from crops."""
