"""The ten labels and the study's two groups of them."""

NUM_LABELS = 10
MINORITY = range(0, 5)  # loses most of its training images
MAJORITY = range(5, 10)
