"""What the notebooks do, a module each: frozen settings, experiments composed from the rest of the package."""
