"""The site is built by MkDocs from docs/, and by these hooks from the rest of the repository."""
