"""The methods of `cellsparse.Client`, by what they are about."""
