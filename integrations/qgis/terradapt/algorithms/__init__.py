"""The algorithms of the provider."""
