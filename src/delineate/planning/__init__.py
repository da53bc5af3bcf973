"""From a dataset and a budget to a plan: what the images are like, and what follows from it."""
