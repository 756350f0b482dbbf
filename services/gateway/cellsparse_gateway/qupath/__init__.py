"""What QuPath's extensions speak: the HTTP interface of cellsparse-api 0.2.0, and that of samapi without weights."""
