"""Images: from integer pixels to real vectors and back."""
