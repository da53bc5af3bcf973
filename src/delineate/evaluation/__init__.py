"""How good: images and masks to counts, scores and a report."""
