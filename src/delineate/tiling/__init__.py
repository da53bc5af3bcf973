"""Images larger than one tile: the grid, the blend, the stitched prediction."""
