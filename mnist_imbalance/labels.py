"""The ten labels and the study's two groups of them."""

NUM_LABELS = 10
MINORITY = range(0, 5)  # loses most of its training images
MAJORITY = range(5, 10)
GROUPS = {"0-4": MINORITY, "5-9": MAJORITY, "all": range(NUM_LABELS)}
