"""Every rule that needs an expression (eau.md § 8), in our own FHIRPath, with its text in German and English.

Keys are those that vendors know from the official profiles, because they stand in what we answer; where an edition has
another key for the same rule, that one is used.
"""
