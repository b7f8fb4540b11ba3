"""What scores and heatmaps are worth: metrics, measures, thresholds, missing labels."""
