"""What training minimises: terms over pixels, regions and boundaries, and their weighted sum."""
