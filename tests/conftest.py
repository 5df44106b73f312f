"""What the whole suite rests on."""

import os

# before torch is imported: two spinning threads on a busy machine are ten times slower than one
os.environ["OMP_NUM_THREADS"] = "1"
