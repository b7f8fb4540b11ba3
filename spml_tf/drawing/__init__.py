"""Photos, heatmaps and titles drawn into pictures, from arrays."""
