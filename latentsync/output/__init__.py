"""Write results: formats, videos and records."""
