"""What only the lessons need: figures, target densities, volumes."""
