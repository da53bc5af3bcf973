"""HTTP: a predictor behind FastAPI, from the body of a request to the answer."""
