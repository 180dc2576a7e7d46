"""Pictures: attention maps, positions, training curves."""
