"""The spool: on real files, real file systems and, where it has to die, in processes of its own."""
