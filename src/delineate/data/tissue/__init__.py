"""Generated images that look like tissue stained with haematoxylin and eosin, with exact masks."""
