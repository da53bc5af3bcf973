"""The canonical dataset -> other people's label formats."""
