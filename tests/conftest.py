"""How every test runs."""

import os

# OpenMP's threads wait for work by spinning, and take the cores from the other workers of the suite. Boosted trees are
# then 10 times as slow. Set before scikit-learn loads OpenMP; the values that are computed stay as they are.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
