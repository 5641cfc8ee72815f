"""Part V: maps x + g(x) with a g that contracts."""
