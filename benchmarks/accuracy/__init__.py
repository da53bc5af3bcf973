"""The accuracy that delineate and its peers reach in the same time on the same cores."""
