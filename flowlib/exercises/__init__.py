"""Problem sets: open checks that students run, and the way to grade."""
