"""What each of Mailman's processes does first. To load it takes a second; a fifth of that goes into looking for garbage
of which there is none.
"""

import gc

gc.set_threshold(100_000)
