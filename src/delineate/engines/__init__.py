"""What runs a network. Engines are imported one by one, so that none costs the others."""
