"""The core: decisions as functions of facts.

No await, socket, file, clock, randomness, logging or third-party package.
"""
