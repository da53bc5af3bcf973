"""The artefact: manifest, graph, post-processing, and loading it as a predictor."""
