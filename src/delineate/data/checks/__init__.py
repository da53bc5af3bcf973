"""What is wrong with a dataset, and what of it can be mended safely."""
