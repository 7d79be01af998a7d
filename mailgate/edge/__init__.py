"""The rim: one outside thing a file, one third-party library a door. Edges do not import each other."""
