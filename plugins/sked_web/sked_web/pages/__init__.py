"""The page for people: every look is HTML made here, which a small script keeps up to date."""
