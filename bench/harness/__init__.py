"""What the sections of the bench have in common: programs, packets, networks, tables."""
