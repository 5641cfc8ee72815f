"""Part VI: Gaussianization, one coordinate at a time, with rotations between."""
