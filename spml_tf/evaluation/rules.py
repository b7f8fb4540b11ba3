"""The rules that flags and functions take by name; light, so that `--help` answers at once."""

# How scores are calibrated, see `calibration.fit`.
CALIBRATIONS = ("none", "temperature", "platt")
# How photos to label are chosen, see `suggestions.suggest_images`.
SUGGESTIONS = ("gain", "missing", "uncertainty", "disagreement", "random")
# What classes without positives count in means, see `average_precision.mean_average_precision`.
ABSENT_CLASSES = ("skip", "zero")
