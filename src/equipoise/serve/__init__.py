"""A page and a JSON API that score clips: bounded, sandboxed, and closed to the network unless opened."""
