"""`make demo`: the main job, shown on the real Exim and the real Mailman, and checked while it is shown."""
