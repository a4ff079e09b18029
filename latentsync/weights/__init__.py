"""Model weights: find, download, convert and load them."""
