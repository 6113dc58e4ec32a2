"""Workers on this machine: one keeper for each slot, on loky."""
